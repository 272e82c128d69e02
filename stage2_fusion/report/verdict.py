"""Whether a score says that a model is of use, in a sentence."""

import numpy as np

from shared.metrics import pcc
from stage2_fusion.evaluation.comparison import Difference
from stage2_fusion.evaluation.results import Evaluation

RESAMPLES = 1000
FEW_CLIPS = 20
"""Scored clips below which a score says little."""


def verdict(evaluation: Evaluation, baseline: str, difference: Difference | None) -> str:
    """What speaks against using the model, the worst first, with a space at the end; "" when nothing does. baseline:
    the name of the strongest one, and `difference` the mean PCC less its own."""
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
        return f"Whether this model is of use, one {evaluation.info.group} cannot tell: score it on others first. "
    if evaluation.scores.n < FEW_CLIPS:
        return f"Whether this model is of use, {evaluation.scores.n} clips can hardly tell: score it on more first. "
    return ""


def chance_level(evaluation: Evaluation) -> float | None:
    """The mean PCC that 95 % of random orders of the predictions stay below: how high a score of so few clips gets by
    luck. None when too few orders have a score."""
    rng, reached = np.random.default_rng(evaluation.bootstrap_seed), []
    for _ in range(RESAMPLES):
        order = rng.permutation(len(evaluation.ids))
        values = [pcc(evaluation.predictions[order, k], evaluation.labels[:, k]) for k in range(len(evaluation.names))]
        reached += [] if np.isnan(values).all() else [float(np.nanmean(values))]
    return float(np.quantile(reached, 0.95)) if len(reached) >= RESAMPLES / 2 else None
