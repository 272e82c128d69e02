"""`emit baseline`: ridge regression on the features, evaluated like a fusion model."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.options.outputs import OutputEvaluation
from shared.options.ranges import CheckedOptions, Resamples, Seed, Steps
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.leak import count_seen_by_encoders, probe_leak
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo, score_predictions, write_evaluation
from stage2_fusion.evaluation.ridge_baseline import clip_statistics, fit_ridge, standardize
from stage2_fusion.evaluation.scoring import clip_groups, count_seen, score_table

if TYPE_CHECKING:
    from stage2_fusion.data.features import FeatureDataset


@dataclass
class BaselineConfig(CheckedOptions):
    """Ridge regression on mean and standard deviation of each modality's features: the baseline of fusion models."""

    data: Path
    """Feature dataset (`emit encode`)."""
    out: OutputEvaluation
    """JSON file of the evaluation to write."""
    modalities: list[Literal["vision", "audio", "text"]] = field(default_factory=lambda: ["vision", "audio", "text"])
    """Modalities that the regression reads, such as ["text"]."""
    split: str = "test"
    """Split to score."""
    train_split: str = "train"
    """Split to fit on."""
    valid_split: str = "valid"
    """Split that chooses the penalty."""
    max_sequence_steps: Steps = 128
    """Longer sequences are averaged over time to this many steps on loading, as in training."""
    groups: str | None = None
    """Kind of group that the bootstrap draws, by default the first one."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: Seed = 0
    """Seed of the bootstrap."""

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
        example='emit baseline --data runs/demo/features --modalities ["text"] --out runs/demo/ridge_text.json',
    )
    evaluation = baseline(config)
    result(score_table(evaluation), evaluation.to_json())
    closing([config.out], [("leaderboard", config.out)])
    return 0


def baseline(config: BaselineConfig) -> Evaluation:
    """Fit on train, choose the penalty on valid, score, write the evaluation."""
    from stage2_fusion.models.model_config import TrainedOn

    began = time.perf_counter()
    parts, notes = _open_splits(config)
    train_labels, valid_labels, labels = (part.labels() for part in parts)  # (N, K)
    train_ids, valid_ids, ids = ([sample.id for sample in part.samples] for part in parts)
    train, valid, scored = standardize([clip_statistics(part.samples, list(config.modalities)) for part in parts])
    fit = fit_ridge(train, train_labels, valid, valid_labels, scored)
    info = parts[0].info
    kind, groups = clip_groups(parts[2].samples, config.groups, info.group_names)
    about = EvaluationInfo(
        split=config.split,
        group=kind,
        model="ridge",
        configuration={"modalities": [name for name in MODALITIES if name in config.modalities]},
        made_from={
            "model": None,
            "features": info.digest,
            "encoders": info.encoders.digest,
            "fold": info.split,
        },
        seen=count_seen(ids, TrainedOn(clips=train_ids, chosen_on=valid_ids)),
        seen_by_encoders=count_seen_by_encoders(config.data, info, ids),
        leak_probe=probe_leak(config.data, info, ids, labels, train_ids),
        label_ranges=info.label_ranges,
        sections={"strength": fit.penalty, **({"notes": notes} if notes else {})},
    )
    evaluation = score_predictions(
        about,
        info.label_names,
        ids,
        groups,
        info.scale.values(fit.predictions),
        info.scale.values(labels),
        config.bootstrap,
        config.seed,
    )
    about.sections["seconds"] = round(time.perf_counter() - began, 2)
    write_evaluation(config.out, evaluation)
    return evaluation


def _open_splits(config: BaselineConfig) -> "tuple[list[FeatureDataset], list[str]]":
    """The splits to fit on, to choose by and to score, with the labels of the dimensions that can be learned; and notes
    on those that cannot. UserError when a split allows nothing."""
    from stage2_fusion.data.features import FeatureDataset
    from stage2_fusion.data.usable_clips import (
        learnable_dimensions,
        left_out_note,
        not_scored_note,
        require_modality,
        scorable_dimensions,
    )

    splits = (config.train_split, config.valid_split, config.split)
    parts = [FeatureDataset.open(config.data, split, (0,), config.max_sequence_steps) for split in splits]
    where = [f"{config.data}, split {split!r}" for split in splits]
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
