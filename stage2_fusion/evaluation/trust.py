"""How far to trust predictions, measured on labeled clips: the coverage of intervals, and the clips unlike training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from shared.metrics import DimensionScores
from shared.text import counted
from stage2_fusion.evaluation.conformal import ConformalIntervals
from stage2_fusion.prediction.familiarity import Familiarity, Summaries, present_in

ROUNDING = 1e-6
"""Labels and bounds are rounded differently: a label this far outside counts as inside."""


@dataclass(frozen=True)
class IntervalScores:
    """Coverage and width of intervals on labeled clips."""

    asked: float
    """The nominal coverage."""
    coverage: DimensionScores
    """Share of the labels inside their intervals."""
    width: DimensionScores
    """Mean width on the scale of the labels; the mean over dimensions assumes that all have one scale."""
    validation_groups: dict[str, int]
    """By dimension: groups that the intervals were fitted on. With too few, intervals cover the whole range."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """From the stored content of an evaluation."""
        scores = {name: DimensionScores(**content[name]) for name in ("coverage", "width")}
        return cls(**{**content, **scores})

    def __str__(self) -> str:
        values = [value for value in self.coverage.per_dimension.values() if value is not None]
        if self.coverage.mean is None or self.width.mean is None:
            return f"of {self.asked:.0%}: no labels"
        each = f" ({min(values):.1%} to {max(values):.1%} by dimension)" if len(values) > 1 else ""
        return (
            f"of {self.asked:.0%} hold {self.coverage.mean:.1%} of the labels{each}, mean width {self.width.mean:.3f}"
        )


@dataclass(frozen=True)
class UnlikeClips:
    """How many clips are unlike the training clips."""

    count: int | None
    """None if unknown."""
    of: int
    false_alarms: float
    """The highest share of clips like the training clips that is judged unlike them."""
    not_known: str = ""
    """Why it is unknown which clips are unlike."""

    def __str__(self) -> str:
        if self.not_known:
            return self.not_known
        return (
            f"{self.count} of {counted(self.of, 'clip')} (at most {self.false_alarms:.0%} of "
            "clips like the training clips are "
            "called so)"
        )


def score_intervals(
    intervals: ConformalIntervals,
    predictions: np.ndarray,
    labels: np.ndarray,
    spans: np.ndarray,
    names: Sequence[str],
    coverage: float,
) -> IntervalScores:
    """From predictions and labels (N, K), fractions of the label ranges, NaN = not labeled. spans: (K,), the lengths of
    these ranges."""
    low, high = intervals.bounds(predictions, coverage)
    known = ~np.isnan(labels)  # (N, K)
    inside = (low - ROUNDING <= labels) & (labels <= high + ROUNDING)  # (N, K)

    def mean(values: np.ndarray) -> DimensionScores:
        columns = zip(names, values.T, known.T, strict=True)
        shares = {name: float(column[mask].mean()) if mask.any() else np.nan for name, column, mask in columns}
        return DimensionScores.from_values(shares)

    counts = dict(zip(names, intervals.group_counts(), strict=True))
    return IntervalScores(coverage, mean(inside), mean((high - low) * spans), counts)


def count_unlike(familiarity: Familiarity, seen: Summaries, rows: np.ndarray) -> UnlikeClips:
    """Count the unlike clips among the `rows` of `seen`."""
    seen = {name: values[rows] for name, values in seen.items()}
    judged = familiarity.judge(familiarity.measure(seen), present_in(seen))
    count = None if familiarity.not_known else sum(bool(clip.unlike) for clip in judged)
    return UnlikeClips(count, len(rows), familiarity.false_alarms, familiarity.not_known)
