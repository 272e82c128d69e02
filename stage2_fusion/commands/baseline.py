"""`emit baseline`: ridge regression on features or on plain statistics of clips, evaluated like a fusion model."""

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.dataset.label_scale import LabelScale
from shared.dataset.training_clips import TrainingClips, TrainingSource, fingerprints
from shared.errors import UserError
from shared.options.outputs import OutputEvaluation
from shared.options.ranges import CheckedOptions, NonNegativeInt, Resamples, Seed, Steps
from shared.terminal.closing import closing
from shared.terminal.progress import Progress, progress
from shared.terminal.results import result
from stage2_fusion.data.usable_clips import (
    learnable_dimensions,
    left_out_note,
    not_scored_note,
    scorable_dimensions,
    within_budget,
)
from stage2_fusion.evaluation.kernel_memory import check_kernel_memory
from stage2_fusion.evaluation.known_clips import KnownClips, known_to_model, record_of
from stage2_fusion.evaluation.leak import probe_leak
from stage2_fusion.evaluation.result_files import write_evaluation
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo, score_predictions
from stage2_fusion.evaluation.ridge_baseline import clip_statistics, fit_ridge, standardize
from stage2_fusion.evaluation.scoring import (
    clip_groups,
    crossed_groups,
    crossed_kind,
    group_kind,
    score_table,
)
from stage2_fusion.evaluation.unknown_training import both_unknown, mark_unknown, meet_encoders
from stage2_fusion.evaluation.unmet import find_unmet, unmet_in_features
from stage2_fusion.models.model_config import FusionConfig, TrainedOn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.dataset.clip_dataset import ClipDataset, ClipDatasetInfo, ClipSample
    from stage2_fusion.data.features import FeatureDataset, FeatureSample


@dataclass
class BaselineConfig(CheckedOptions):
    """Baselines that a fusion model should beat: ridge regression on the same features, and kernel ridge regression on
    statistics of the media, without any encoder."""

    data: Path
    """Feature dataset (`emit encode`), or clip dataset (`emit prepare`)."""
    out: OutputEvaluation
    """JSON file of the evaluation to write."""
    kind: Literal["ridge", "kernel", "logistic", "statistics"] | None = None
    """ridge: on the mean and standard deviation of each modality's features, from a feature dataset. kernel: kernel
    ridge regression on the same, which models interactions between modalities. logistic: multinomial logistic
    regression on the same, for a few distinct labels, such as mutually exclusive emotions. statistics: kernel ridge
    regression on plain statistics of face crops, sound and words, from a clip dataset. By default ridge or statistics,
    to suit the data."""
    modalities: list[Literal["vision", "audio", "text"]] = field(default_factory=lambda: ["vision", "audio", "text"])
    """Modalities that the regression reads."""
    split: str = "test"
    """Split to score."""
    scored_data: Path | None = None
    """Score the split of this dataset instead of `data`."""
    max_train_clips: NonNegativeInt = 0
    """Fit on at most this many labeled training clips, the same ones as `emit fuse` with this option; 0: all."""
    train_split: str = "train"
    """Split to fit on."""
    valid_split: str = "valid"
    """Split that chooses the penalty and the kernel."""
    max_sequence_steps: Steps = 128
    """For features: longer sequences are averaged over time to this many steps on loading, as in training."""
    groups: str | None = None
    """Kind of group that the bootstrap draws, by default the first one."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""

    RENAMED: ClassVar[dict[str, str]] = {"max_steps": "max_sequence_steps"}

    def __post_init__(self):
        super().__post_init__()
        if not self.modalities:
            raise UserError("--modalities is empty: give at least one of vision, audio, text")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        BaselineConfig,
        argv,
        prog="emit baseline",
        example="emit baseline --kind statistics --data runs/demo/clips --out runs/demo/media_baseline.json",
    )
    evaluation = baseline(config)
    result(score_table(evaluation), evaluation.to_json())
    closing([config.out], [("leaderboard", config.out)])
    return 0


def baseline(config: BaselineConfig) -> Evaluation:
    """Fit on train, choose on valid, score, write the evaluation."""
    began = time.perf_counter()
    evaluation = (_on_clips if kind_of(config) == "statistics" else _on_features)(config)
    evaluation.info.sections["seconds"] = round(time.perf_counter() - began, 2)
    write_evaluation(config.out, evaluation)
    return evaluation


def kind_of(config: BaselineConfig) -> str:
    """The requested kind, or the default for this data. UserError when the kind reads other data."""
    clips = (config.data / "dataset.json").exists()
    if config.kind == "statistics" and not clips and (config.data / "features.json").exists():
        raise UserError(f"{config.data}: holds features, and --kind statistics reads media: give the clip dataset")
    if config.kind in ("ridge", "kernel", "logistic") and clips:
        raise UserError(
            f"{config.data}: holds clips, and --kind {config.kind} reads features: give the output of `emit encode`"
        )
    return config.kind or ("statistics" if clips else "ridge")


def _on_clips(config: BaselineConfig) -> Evaluation:
    """Kernel ridge regression on statistics of clips."""
    from shared.dataset.clip_dataset import ClipDataset
    from stage2_fusion.evaluation.kernel_baseline import ClipStatistics, fit_kernel_ridge

    data = [ClipDataset.open(path, split) for path, split in _where(config)]
    info, where = data[0].info, [f"{path}, split {part!r}" for path, part in _where(config)]
    _check_scored(config, info, data[2].info)
    all_labels = [part.labels() for part in data]  # (N, K)
    for labels, place in zip(all_labels, where, strict=True):
        if np.isnan(labels).all():
            raise UserError(f"{place}: no clip of it is labeled")
    every_id, groups = data[0].column("id"), _all_groups(data[0])
    budget = within_budget(every_id, groups, all_labels[0], config.max_train_clips)
    all_labels[0] = all_labels[0][budget]
    check_kernel_memory("statistics", int(budget.sum()), len(data[1]) + len(data[2]))
    chosen = [np.flatnonzero(budget), *(np.arange(len(part)) for part in data[1:])]
    names, left_out = learnable_dimensions(all_labels[0], info.label_names, where[0])
    columns = [info.label_names.index(name) for name in names]
    train_labels, valid_labels, labels = (each[:, columns] for each in all_labels)
    not_scored = scorable_dimensions(valid_labels, names, where[1])
    notes = [left_out_note(left_out)] if left_out else []
    notes += [not_scored_note(not_scored, config.valid_split)] if not_scored else []
    with progress("read clips", sum(map(len, chosen)), "clips") as bar:
        parts = [
            ClipStatistics.of(_clips(part, rows, bar), info.recipe.sample_rates[0], config.modalities)
            for part, rows in zip(data, chosen, strict=True)
        ]
    for part, place in zip(parts, where, strict=True):
        if not part.present().any():
            raise UserError(f"{place}: none of its clips has {' or '.join(config.modalities)}")
    fit = fit_kernel_ridge(parts, train_labels, valid_labels)
    prints = fingerprints(data[2])  # (N, 3)
    known = _known(data, budget, prints)
    ids = data[2].column("id")
    kind = group_kind(config.groups, data[2].info.group_names)
    scale = LabelScale.of(names, info.label_ranges)
    about = EvaluationInfo(
        split=config.split,
        group=kind,
        model="kernel ridge",
        configuration={"modalities": [name for name in MODALITIES if name in config.modalities]},
        made_from={"model": None, "clips": data[2].digest, "fold": data[2].info.split, "trained_on": info.digest},
        data=data[2].digest,
        seen=known.count(ids),
        seen_by_encoders=0,
        label_ranges=info.label_ranges,
        sections={"chosen": fit.options, **({"notes": notes} if notes else {})},
    )
    kinds_of = {name: data[2].column(f"group_{name}") for name in data[2].info.group_names}
    about.crossed_group = crossed_kind(kinds_of, kind)
    crossed = _groups_of(data[2], about.crossed_group) if about.crossed_group else None
    met = [*itertools.compress(groups, budget), *_all_groups(data[1])]
    # Groups of another dataset may have the same names.
    unmet = find_unmet(info.group_names, _all_groups(data[2]), met) if known.whole else None
    scored = names, ids, _groups_of(data[2], kind), scale.values(fit.predictions), scale.values(labels)
    return score_predictions(about, *scored, config.bootstrap, config.seed, crossed, unmet, prints)


def _where(config: BaselineConfig) -> list[tuple[Path, str]]:
    """Dataset and split of the clips for fitting, selection and scoring."""
    return [
        (config.data, config.train_split),
        (config.data, config.valid_split),
        (config.scored_data or config.data, config.split),
    ]


def _check_scored(config: BaselineConfig, ours: "ClipDatasetInfo", theirs: "ClipDatasetInfo") -> None:
    """UserError unless a fit to clips like `ours` can score clips like `theirs`. Transcripts may come from anywhere."""
    mine, other = (
        {"labels": info.label_names, "label ranges": info.label_ranges, **info.recipe.to_json()}
        for info in (ours, theirs)
    )
    for name, value in mine.items():
        if name != "transcribe" and other[name] != value:
            raise UserError(
                f"{config.scored_data}: {name} {other[name]}, but {config.data} has {value}; make both alike"
            )


def _known(parts: "Sequence[ClipDataset]", fitted: np.ndarray, prints: np.ndarray) -> KnownClips:
    """Which clips of the third part, with fingerprints uint64 (N, 3), are among the `fitted` clips, bool (n,), of the
    first part, or in the second. Clips match by content, and within a dataset also by id; in another dataset, equal ids
    may be chance."""
    train, valid, scored = (part.column("id") for part in parts)
    to_fit, to_choose = map(fingerprints, parts[:2])  # (n, 3), (m, 3)
    met = TrainingClips.of(to_fit[fitted], to_choose, []).met(prints)
    trained, chosen = (list(itertools.compress(scored, hits)) for hits in met)
    if parts[2].digest == parts[0].digest:
        return KnownClips([*itertools.compress(train, fitted), *trained], [*valid, *chosen], whole=True)
    return KnownClips(trained, chosen)


def _all_groups(part: "ClipDataset") -> list[dict[str, str]]:
    """The groups of each clip, kind to name."""
    kinds = part.info.group_names
    names = [part.column(f"group_{kind}") for kind in kinds]
    return [dict(zip(kinds, row, strict=True)) for row in zip(*names, strict=True)] or [{}] * len(part)


def _groups_of(part: "ClipDataset", kind: str | None) -> list[str]:
    """The group of each clip; a clip without a known group is its own."""
    ids = part.column("id")
    return [
        group or f"clip {name}" for group, name in zip(part.column(f"group_{kind}") if kind else ids, ids, strict=True)
    ]


def _clips(data: "ClipDataset", rows: np.ndarray, bar: Progress) -> "Iterator[ClipSample]":
    for row in rows.tolist():
        yield data[row]
        bar.update()


def _on_features(config: BaselineConfig) -> Evaluation:
    """A regression on statistics of features."""
    parts, notes = _open_splits(config)
    scored_data = config.scored_data or config.data
    train_ids, valid_ids, ids = ([sample.id for sample in part.samples] for part in parts)
    met = meet_encoders(scored_data, parts[2].info, ids)
    notes += met.notes
    groups_of = [sample.groups for sample in parts[0].samples]
    budget = within_budget(train_ids, groups_of, parts[0].labels(), config.max_train_clips)
    train_labels, valid_labels, labels = (part.labels() for part in parts)  # (N, K)
    train_labels, train_ids = train_labels[budget], list(itertools.compress(train_ids, budget))
    samples = [list(itertools.compress(parts[0].samples, budget)), *(part.samples for part in parts[1:])]
    fit = _fit_features(config, samples, train_labels, valid_labels)
    info = parts[2].info
    trained_on = TrainedOn(data=parts[0].info.data.digest, clips=train_ids, chosen_on=valid_ids)
    record = record_of(samples[0], samples[1], TrainingSource(str(config.data), "features", config.train_split))
    known = known_to_model(scored_data, info, trained_on, record)
    notes += known.notes
    kind, groups = clip_groups(parts[2].samples, config.groups, info.group_names)
    about = EvaluationInfo(
        split=config.split,
        group=kind,
        model=fit.model,
        configuration={"modalities": [name for name in MODALITIES if name in config.modalities]},
        made_from={
            "model": None,
            "features": info.digest,
            "encoders": info.encoders.digest,
            "fold": info.split,
            "trained_on": parts[0].info.digest,
        },
        data=info.data.digest,
        seen=known.count(ids),
        seen_by_encoders=met.seen,
        leak_probe=probe_leak(scored_data, info, ids, labels, None if known.unknown else known.trained),
        label_ranges=info.label_ranges,
        sections={**fit.chosen, **({"notes": notes} if notes else {})},
    )
    mark_unknown(about, both_unknown(met.unknown, known.unknown), scored_data, config.allow_unknown_training)
    about.crossed_group, crossed = crossed_groups(parts[2].samples, kind, info.group_names)
    return score_predictions(
        about,
        info.label_names,
        ids,
        groups,
        info.scale.values(fit.predictions),
        info.scale.values(labels),
        config.bootstrap,
        config.seed,
        crossed,
        unmet_in_features(scored_data, info, ids, known),
        np.stack([sample.fingerprints for sample in parts[2].samples]),  # (N, 3)
    )


class _Fit(NamedTuple):
    """A fitted regression on features."""

    model: str
    """Its name in tables."""
    predictions: np.ndarray
    """float64 (N, K)."""
    chosen: dict[str, Any]
    """What was selected on the validation clips."""


def _fit_features(
    config: BaselineConfig, samples: "Sequence[list[FeatureSample]]", train_labels: np.ndarray, valid_labels: np.ndarray
) -> _Fit:
    """samples: for fitting, selection and prediction; labels (n, K) and (m, K) of the first two."""
    if config.kind == "kernel":
        from stage2_fusion.evaluation.feature_kernel import fit_feature_kernel

        check_kernel_memory("kernel", len(samples[0]), len(samples[1]) + len(samples[2]))
        statistics = [[clip_statistics(part, [name]) for name in config.modalities] for part in samples]
        kernel = fit_feature_kernel(statistics, train_labels, valid_labels)
        return _Fit("kernel ridge on features", kernel.predictions, {"chosen": kernel.options})
    train, valid, scored = standardize([clip_statistics(part, list(config.modalities)) for part in samples])
    if config.kind == "logistic":
        from stage2_fusion.evaluation.class_baseline import fit_classes

        classes = fit_classes(train, train_labels, valid, valid_labels, scored)
        return _Fit("logistic regression", classes.predictions, {"chosen": classes.options})
    ridge = fit_ridge(train, train_labels, valid, valid_labels, scored)
    return _Fit("ridge", ridge.predictions, {"strength": ridge.penalty})


def _open_splits(config: BaselineConfig) -> "tuple[list[FeatureDataset], list[str]]":
    """The splits for fitting, selection and scoring, with the labels of the dimensions that can be learned; and notes
    on the other dimensions. UserError when a split cannot be used."""
    from stage2_fusion.data.features import FeatureDataset
    from stage2_fusion.data.usable_clips import require_modality

    parts = [FeatureDataset.open(path, split, (0,), config.max_sequence_steps) for path, split in _where(config)]
    where = [f"{path}, split {split!r}" for path, split in _where(config)]
    if config.scored_data:
        fitted = FusionConfig.from_features(
            parts[0].info, model=kind_of(config), options={}, max_sequence_steps=config.max_sequence_steps
        )
        fitted.check_features(parts[2].info, config.scored_data)
    for part, name in zip(parts, where, strict=True):
        if np.isnan(part.labels()).all():
            raise UserError(f"{name}: no clip of it is labeled")
    names, left_out = learnable_dimensions(parts[0].labels(), parts[0].info.label_names, where[0])
    parts = [part.select(names) for part in parts]
    not_scored = scorable_dimensions(parts[1].labels(), names, where[1])
    notes = [left_out_note(left_out)] if left_out else []
    notes += [not_scored_note(not_scored, config.valid_split)] if not_scored else []
    for part, name in zip(parts, where, strict=True):
        notes += require_modality(part.samples, config.modalities, name)
    return parts, notes


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
