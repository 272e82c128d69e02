"""Warnings about scores or predictions that mean little: each line says why, and what to do."""

import math
from collections.abc import Sequence

import numpy as np

from shared.text import counted

FLAT = 0.05
"""Predictions that vary less than this fraction of the labels are flat: a model with PCC r varies by r of them."""
USUAL_SPREAD = 0.1
"""Assumed standard deviation of unknown labels, as a fraction of their range: at the low end of real labels."""
FEW_PREDICTED = 5
"""With fewer clips, equal predictions mean nothing."""
FEW_VALIDATION = 50
"""With fewer validation clips, the best epoch is selected by chance."""


def flat_line(
    predictions: np.ndarray, names: Sequence[str], labels: np.ndarray | None = None, span: np.ndarray | float = 1.0
) -> str | None:
    """A line about dimensions whose predictions (N, K) hardly differ between clips; None if all do.

    labels: float (N, K), NaN = not labeled; without them, span is the range of the labels, (K,)."""
    if len(predictions) < FEW_PREDICTED:
        return None
    spread = np.broadcast_to(USUAL_SPREAD * np.asarray(span, dtype=np.float64), len(names))  # (K,)
    if labels is not None:
        known = ~np.isnan(labels)  # (N, K)
        count = np.maximum(known.sum(axis=0), 1)  # (K,)
        centered = np.where(known, labels - np.where(known, labels, 0.0).sum(axis=0) / count, 0.0)  # (N, K)
        spread = np.sqrt((centered**2).sum(axis=0) / count)  # (K,)
    varies = predictions.astype(np.float64).std(axis=0)  # (K,)
    flat = [name for k, name in enumerate(names) if varies[k] < FLAT * spread[k]]
    if not flat:
        return None
    which = "all dimensions" if len(flat) == len(names) else ", ".join(flat)
    return (
        f"warning: nearly the same prediction for every clip ({which}): the model has learned little more than the "
        "mean label; more training clips help most, then longer training (emit fuse --train.patience 20) or another "
        "--train.lr"
    )


def few_validation_line(count: int, split: str) -> str | None:
    """A line about too few validation clips; None if there are enough."""
    if count >= FEW_VALIDATION:
        return None
    chance = math.tanh(1.96 / math.sqrt(count - 3)) if count > 3 else 1.0
    return (
        f"warning: only {counted(count, 'validation clip')}: chance alone reaches a PCC of "
        f"{chance:.2f} among so few, so the "
        f"best epoch is hardly better than another; what helps is more clips, {FEW_VALIDATION} or more in split "
        f"{split!r}, or other splits: emit split DATA --valid_share 0.3 --out DATA2"
    )
