"""The cheap baseline that a report shows beside the model."""

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo, SeenClips, score_predictions
from stage2_fusion.evaluation.ridge_baseline import clip_statistics, fit_ridge, standardize
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.inputs import Inputs


def strongest_baseline(inputs: Inputs) -> Evaluation:
    """The best baseline on the clips of the evaluation: one that the runs hold, otherwise the ridge regression of `emit
    baseline` on the same features. NotFound says why there is none."""
    known = [each for each in inputs.baselines if each.mean_pcc is not None]
    if known:
        return max(known, key=lambda each: each.mean_pcc or 0.0)
    if "ridge" not in inputs.computed:
        inputs.computed["ridge"] = _ridge(inputs)
    return inputs.computed["ridge"]


def _ridge(inputs: Inputs) -> Evaluation:
    evaluation = inputs.evaluation
    try:
        data = inputs.features.select(evaluation.names)
    except (NotFound, UserError, ValueError) as reason:
        raise NotFound(f"no baseline: {reason}") from None
    clean = [sample for sample in data.samples if sample.view == 0]
    sample_of = {sample.id: sample for sample in clean}
    scored_ids = set(evaluation.ids)
    parts = [
        [s for s in clean if s.split == split and s.id not in scored_ids and not np.isnan(s.labels).all()]
        for split in ("train", "valid")
    ]
    missing = [name for name in evaluation.ids if name not in sample_of]
    if missing or not all(parts):
        lacking = "labeled clips to train and validate on" if not all(parts) else "clips that were scored"
        raise NotFound(f"no baseline: {inputs.features_path} lacks {lacking}")
    parts.append([sample_of[name] for name in evaluation.ids])
    labels = [np.stack([sample.labels for sample in part]) for part in parts]  # (N, K) each
    statistics = standardize([clip_statistics(part, list(MODALITIES)) for part in parts])
    fit = fit_ridge(statistics[0], labels[0], statistics[1], labels[1], statistics[2])
    info = EvaluationInfo(
        split=evaluation.info.split,
        group=evaluation.info.group,
        model="ridge",
        configuration={"modalities": list(MODALITIES)},
        made_from={"features": data.info.digest},
        seen=SeenClips(0, 0),  # scored clips are left out above
        seen_by_encoders=evaluation.info.seen_by_encoders,
        label_ranges=evaluation.info.label_ranges,
    )
    return score_predictions(
        info,
        evaluation.names,
        evaluation.ids,
        evaluation.groups,
        data.info.scale.values(fit.predictions),
        evaluation.labels,
        evaluation.resamples,
        evaluation.bootstrap_seed,
    )
