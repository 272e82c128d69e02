"""Whether a model is worth using: its score beside that of a cheap baseline, paired on the same clips."""

from pathlib import Path

from shared.errors import UserError
from shared.text import counted
from stage2_fusion.evaluation.comparison import compare_evaluations
from stage2_fusion.evaluation.results import Evaluation, read_evaluation

RESAMPLES = 1000
"""Paired bootstrap samples."""


def baseline_verdict(model: Path, baseline: Path) -> str:
    """One line about two evaluations of the same clips, or why they are not compared. UserError when one cannot be
    read."""
    ours, cheap = read_evaluation(model), read_evaluation(baseline)
    if ours.mean_pcc is None or cheap.mean_pcc is None:
        return "the cheap baseline is not compared: the labels of these clips allow no correlation"
    try:
        return f"the cheap baseline reaches {cheap.mean_pcc:.3f}: {_against(ours, cheap)}"
    except UserError as error:
        return f"the cheap baseline reaches {cheap.mean_pcc:.3f}, and is not compared: {error}"


def _against(ours: Evaluation, cheap: Evaluation) -> str:
    mean = compare_evaluations(ours, cheap, RESAMPLES, ours.bootstrap_seed).mean
    if mean is None:
        return "no dimension is scored by both"
    paired = "; paired 95 % interval {:+.3f} to {:+.3f}".format(*mean.interval) if mean.interval else ""
    side = f"{abs(mean.difference):.3f} {'above' if mean.difference > 0 else 'below'} it{paired}"
    if mean.difference <= 0:
        return f"the model is not better ({side}): do not use this model"
    if mean.a <= 0:
        return f"the model is better ({side}), but its correlation is not above zero: do not use this model"
    if mean.interval is None:
        groups = counted(ours.scores.groups, ours.info.group or "group")
        return f"the model is better ({side}), but {groups} cannot tell whether that is chance"
    if mean.interval[0] <= 0:
        return f"the model is better ({side}), which may be chance"
    return f"the model is better, beyond chance ({side})"
