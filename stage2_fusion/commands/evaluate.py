"""`emit evaluate`: scores of a fusion model on one split of a feature dataset."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest
from shared.options.outputs import OutputEvaluation, check_output_file
from shared.options.ranges import BatchSize, CheckedOptions, Coverage, Resamples, Seed
from shared.terminal.closing import closing, unused
from shared.terminal.results import result
from stage2_fusion.data.feature_info import FeatureInfo, read_info
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.data.quality_samples import read_quality
from stage2_fusion.evaluation.damage_detection import (
    damaged_in_corpus,
    detect_corpus_damage,
    detect_passing_damage,
    has_passing_damage,
    label_ceiling,
    read_truth,
    score_damaged_views,
)
from stage2_fusion.evaluation.damage_signals import compare_on_purpose, is_uniform
from stage2_fusion.evaluation.explain import write_explanations
from stage2_fusion.evaluation.known_clips import KnownClips, known_to_model
from stage2_fusion.evaluation.leak import probe_leak
from stage2_fusion.evaluation.result_files import write_evaluation
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo, score_predictions
from stage2_fusion.evaluation.scoring import clip_groups, crossed_groups, mean_weights, score_table
from stage2_fusion.evaluation.trust import count_unlike, score_intervals
from stage2_fusion.evaluation.unknown_training import both_unknown, mark_unknown, meet_encoders
from stage2_fusion.evaluation.unmet import unmet_in_features

if TYPE_CHECKING:
    from stage2_fusion.inference import ModelPredictions
    from stage2_fusion.models.base import FusionModel


@dataclass
class EvaluateConfig(CheckedOptions):
    """Score a fusion model on a split: PCC with intervals, CCC, MAE, and how well its weights find damage."""

    model: Path
    """Model folder (RUN/model)."""
    data: Path
    """Feature dataset of the same encoders."""
    split: str = "test"
    """Split to score. "" takes every clip."""
    out: OutputEvaluation | None = None
    """JSON file to write, with tables beside it (OUT_predictions.csv, OUT_labels.csv). By default
    MODEL/evaluation/metrics_SPLIT.json."""
    truth: Path | None = None
    """truth.csv of a synthetic corpus: adds the highest score that its labels allow, and how well the weights find its
    damage."""
    groups: str | None = None
    """Kind of group that the bootstrap draws, by default the first one: clips of one person are not independent."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % interval."""
    coverage: Coverage = 0.9
    """Nominal coverage of the intervals for which coverage and width are reported."""
    batch_size: BatchSize = 64
    """Clips per forward pass; the scores do not depend on it."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    explain: bool = False
    """Also write OUT_explained.jsonl: for each clip, the weight of each modality over time and, for models with a
    decoder, the attention of each dimension."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EvaluateConfig,
        argv,
        prog="emit evaluate",
        example="emit evaluate --model runs/demo/fuse/model --data runs/demo/features --split test",
    )
    evaluation = evaluate(config)
    result(score_table(evaluation), evaluation.to_json())
    shown = config.out or config.model.parent
    closing([_out(config)], [("report", shown, "--out", unused(shown.with_name(f"{shown.stem}_report.html")))])
    return 0


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Score the model; write metrics, predictions and labels."""
    from stage2_fusion.inference import best_device, run_model
    from stage2_fusion.models.base import FusionModel
    from stage2_fusion.prediction.summaries import SummaryRecorder

    began = time.perf_counter()
    out = _out(config)
    check_output_file(out)
    model = FusionModel.from_pretrained(config.model)
    assert model.config is not None
    names, scale = model.config.label_names, model.config.scale
    model.config.check_features(read_info(config.data), config.data)
    data = FeatureDataset.open(config.data, config.split, max_sequence_steps=model.config.max_sequence_steps)
    notes = _not_predicted(data.info.label_names, names)
    data = data.select(names)
    view = np.array([sample.view for sample in data.samples])  # (N,)
    clean, labels = np.flatnonzero(view == 0), data.labels()  # (N, K)
    if np.isnan(labels[clean]).all():
        raise UserError(f"{config.data}: no clip of split {config.split!r} is labeled; `emit predict` needs no labels")
    samples = [data.samples[row] for row in clean]
    ids = [sample.id for sample in samples]
    truth = read_truth(config.truth, ids) if config.truth else []
    passing = has_passing_damage(truth)
    kind, groups = clip_groups(samples, config.groups, data.info.group_names)
    known = known_to_model(config.data, data.info, model.config.trained_on, model.training_clips)
    info = _describe(config, model, data.info, known, kind, ids, labels[clean], notes)
    info.crossed_group, crossed = crossed_groups(samples, kind, data.info.group_names)
    unmet = unmet_in_features(config.data, data.info, ids, known)
    with SummaryRecorder(model.to(best_device())) as recorder:
        result = run_model(model, data.samples, config.batch_size, explain=config.explain or passing)
    weights = result.weights[clean]  # (N, 3)
    info.sections["weights"] = mean_weights(weights)
    if kept := model.calibration:
        fractions, spans = result.predictions[clean], scale.highest - scale.lowest
        info.intervals = score_intervals(kept.intervals, fractions, labels[clean], spans, names, config.coverage)
        info.unlike = count_unlike(kept.familiarity, recorder.summaries(), clean)
    if config.truth is not None:
        info.ceiling = label_ceiling(config.truth, truth, labels[clean], names)
    _score_damage(info, config, model, data, known, result, truth)
    predictions = scale.values(result.predictions[clean]).astype(
        np.float32
    )  # constant columns are detected after rounding
    prints = np.stack([sample.fingerprints for sample in samples])  # (N, 3)
    scored = names, ids, groups, predictions, scale.values(labels[clean])
    evaluation = score_predictions(info, *scored, config.bootstrap, config.seed, crossed, unmet, prints)
    info.sections |= _share_of_ceiling(evaluation)
    if config.explain:
        row_of = dict(zip(ids, clean, strict=True))
        by_id = [result.steps[row_of[name]] for name in evaluation.ids]
        write_explanations(out.with_name(f"{out.stem}_explained.jsonl"), evaluation.ids, by_id, names)
    info.sections["seconds"] = round(time.perf_counter() - began, 2)
    write_evaluation(out, evaluation)
    return evaluation


def _share_of_ceiling(evaluation: Evaluation) -> dict[str, float | None]:
    if evaluation.info.ceiling is None:
        return {}
    pcc, ceiling = evaluation.mean_pcc, evaluation.info.ceiling.mean
    return {"share_of_ceiling": pcc / ceiling if pcc is not None and ceiling and ceiling > 0 else None}


def _not_predicted(labeled: list[str], predicted: list[str]) -> list[str]:
    missing = [name for name in labeled if name not in predicted]
    return [f"not predicted by this model: {', '.join(missing)}"] if missing else []


def _score_damage(
    info: EvaluationInfo,
    config: EvaluateConfig,
    model: "FusionModel",
    data: FeatureDataset,
    known: KnownClips,
    result: "ModelPredictions",
    truth: list[dict[str, str]],
) -> None:
    """Add scores of damage detection: of the damage in a synthetic corpus (`truth`), and of deliberate damage, for the
    weights and for cheap detectors (unless all weights are the same)."""
    assert model.config is not None
    clean = [i for i, sample in enumerate(data.samples) if sample.view == 0]
    came_damaged = damaged_in_corpus(truth, [data.samples[i].id for i in clean]) if truth else None
    if has_passing_damage(truth):
        info.damage = detect_passing_damage(truth, [result.steps[i] for i in clean])
    elif truth:
        info.damage = detect_corpus_damage(truth, result.weights[clean])
    if len(clean) == len(data.samples):
        return
    info.damaged_on_purpose = score_damaged_views(data.samples, result.predictions, result.weights, came_damaged)
    if not is_uniform(result.weights):
        training = read_quality(config.data, known.trained)
        unmet = model.config.training.get("train", {}).get("leave_out_damage", [])
        _, groups = clip_groups(data.samples, config.groups, data.info.group_names)
        info.damage_detectors = compare_on_purpose(
            data.samples, result.weights, groups, data.info.quality, training, unmet, came_damaged
        )


def _out(config: EvaluateConfig) -> Path:
    return config.out or config.model / "evaluation" / f"metrics_{config.split or 'all'}.json"


def _describe(
    config: EvaluateConfig,
    model: "FusionModel",
    features: FeatureInfo,
    known: KnownClips,
    group: str | None,
    ids: list[str],
    labels: np.ndarray,
    notes: list[str],
) -> EvaluationInfo:
    """What is scored: the model on the clips `ids` with labels (N, K). known: which of them it has seen; group: the
    kind of their groups. UserError if it is unknown whether they were in training."""
    assert model.config is not None
    about, trained_on = model.config, model.config.trained_on
    met = meet_encoders(config.data, features, ids)
    all_notes = [*notes, *met.notes, *known.notes]
    info = EvaluationInfo(
        split=config.split,
        group=group,
        model=about.model,
        configuration=about.options,
        made_from={
            "model": str(config.model),
            "model_digest": digest(config.model / "model.safetensors"),
            "features": features.digest,
            "encoders": about.encoders.digest,
            "fold": features.split,
            "trained_on": trained_on.features or None,
        },
        data=features.data.digest,
        training_seed=trained_on.seed,
        label_ranges=about.label_ranges,
        seen=known.count(ids),
        seen_by_encoders=met.seen,
        leak_probe=probe_leak(config.data, features, ids, labels, None if known.unknown else known.trained),
        sections={
            "training": {**about.training, "finetune": about.finetune, "seconds": model.metrics.get("seconds")},
            **({"notes": all_notes} if all_notes else {}),
        },
    )
    unknown = both_unknown(met.unknown, known.unknown)
    mark_unknown(info, unknown, config.data, config.allow_unknown_training)
    return info


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
