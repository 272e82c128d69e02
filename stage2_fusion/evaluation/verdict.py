"""Whether a score shows that a model is useful: the start of a report, and the end of a run."""

from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.metrics import pcc
from shared.text import counted
from stage2_fusion.evaluation.comparison import Difference, compare_evaluations
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import Evaluation

RESAMPLES = 1000
"""Paired bootstrap samples, and random orders."""
FEW_CLIPS = 20
"""With fewer scored clips, a score says little."""


def baseline_verdict(model: Path, baseline: Path) -> str:
    """A line about two evaluations of the same clips, or why they are not compared. UserError when one cannot be
    read."""
    ours, cheap = read_evaluation(model), read_evaluation(baseline)
    if ours.mean_pcc is None or cheap.mean_pcc is None:
        return "the cheap baseline is not compared: the labels of these clips allow no correlation"
    name = baseline_name(cheap)
    score = f"the {name} reaches {cheap.mean_pcc:.3f}"
    try:
        difference = compare_evaluations(ours, cheap, RESAMPLES, ours.bootstrap_seed).mean
    except UserError as error:
        return f"{score}, and is not compared: {error}"
    if difference is None:
        return f"{score}, and is not compared: no dimension is scored by both"
    return f"{score}: the model is {beside(ours, 'it', difference)}. {verdict(ours, name, difference)}".strip()


def beside(evaluation: Evaluation, baseline: str, mean: Difference) -> str:
    """The difference between the model and the baseline of this name, and whether it may be chance."""
    side = "above" if mean.difference >= 0 else "below"
    text = f"{abs(mean.difference):.3f} {side} {baseline}"
    if mean.interval is None:
        groups = counted(evaluation.scores.groups, evaluation.info.group or "group")
        return f"{text}; {groups} cannot tell whether that is chance"
    low, high = mean.interval
    sure = "which may be chance" if low <= 0 <= high else "beyond chance"
    return f"{text}, {sure} (paired interval {signed(low)} to {signed(high)})"


def signed(value: float) -> str:
    """Three digits with a sign; four if three would hide it."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 else f"{value:+.4f}"


def baseline_name(baseline: Evaluation) -> str:
    """The name of a baseline in texts and figures."""
    modalities = (baseline.info.configuration or {}).get("modalities") or []
    read = "" if len(modalities) == 3 or not modalities else f" ({', '.join(modalities)})"
    return f"{baseline.info.model.replace('_', ' ')} baseline{read}"


def verdict(evaluation: Evaluation, baseline: str, difference: Difference | None) -> str:
    """The strongest reason not to use the model, with a space at the end; "" if there is none. baseline: the name of
    the strongest baseline; difference: the mean PCC minus that of the baseline."""
    mean, interval = evaluation.mean_pcc or 0.0, evaluation.scores.pcc.interval
    below = difference is not None and difference.difference < 0
    if mean <= 0:
        more = f" and worse than the {baseline}" if below else ""
        return f"This model is no better than chance{more}: do not use it. "
    if below and difference is not None:
        sure = difference.interval is not None and difference.interval[1] < 0
        if sure or difference.interval is None:
            return f"This model is worse than the {baseline}, which is cheap: do not use it. "
        return f"This model is not better than the {baseline}, which is cheap: do not use it before it is. "
    if interval is not None:
        if interval[0] <= 0:
            return "This model may be no better than chance, as its interval includes 0: do not rely on it. "
    else:
        level = chance_level(evaluation)
        if level is not None and mean <= level:
            return "This model may be no better than chance: do not rely on it. "
    if evaluation.scores.groups == 1 and evaluation.info.group:
        return f"One {evaluation.info.group} cannot tell whether this model is useful: score it on others first. "
    if evaluation.scores.n < FEW_CLIPS:
        clips = counted(evaluation.scores.n, "clip")
        return f"{clips} can hardly tell whether this model is useful: score it on more first. "
    return ""


def chance_level(evaluation: Evaluation) -> float | None:
    """The mean PCC that 95 % of random orders of the predictions stay below: how high a score of so few clips gets by
    luck. None if too few orders have a score."""
    rng, reached = np.random.default_rng(evaluation.bootstrap_seed), []
    for _ in range(RESAMPLES):
        order = rng.permutation(len(evaluation.ids))
        values = [pcc(evaluation.predictions[order, k], evaluation.labels[:, k]) for k in range(len(evaluation.names))]
        reached += [] if np.isnan(values).all() else [float(np.nanmean(values))]
    return float(np.quantile(reached, 0.95)) if len(reached) >= RESAMPLES / 2 else None
