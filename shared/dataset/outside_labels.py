"""Labels outside their range: in which clips, and whether they look like another scale or like codes of missing values.

Nothing is decided here; a message suggests what a person must declare.
"""

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shared.text import counted, first_few

Range = tuple[float, float]
TOLERANCE = 1e-6
"""Tolerance for rounding errors, as a fraction of the range."""
SCALES = ((0, 1), (1, 5), (1, 7), (1, 9), (0, 5), (0, 10), (0, 100), (0, 1000), (-1, 1), (-3, 3), (-5, 5), (-10, 10))
"""Usual scales."""
POSITIVE_CODES = (9.0, 77.0, 88.0, 99.0, 888.0, 998.0, 999.0, 9999.0, 99999.0)
"""Usual codes of missing values above 1; any negative integer may be a code."""
MAX_CODES = 3
"""More different values indicate a scale rather than codes."""


@dataclass(frozen=True)
class OutsideDimension:
    """The labels of one dimension; some lie outside its range."""

    name: str
    range: Range
    clips: list[str]
    """Clips with a label outside."""
    values: list[float]
    """The labels outside, one per clip of `clips`."""
    inside: list[float]
    """All other labels."""


@dataclass(frozen=True)
class OutsideLabels:
    """Labels outside their range. str() gives how many, in which clips, and what to do."""

    dimensions: list[OutsideDimension]
    fractional: list[str]
    """Other dimensions with labels in [0, 1], which another range would change."""

    def __str__(self) -> str:
        parts = self.dimensions
        count = sum(len(part.values) for part in parts)
        everything = [value for part in parts for value in (*part.values, *part.inside)]
        ranges = sorted({part.range for part in parts})
        expected = f"[{ranges[0][0]:g}, {ranges[0][1]:g}]" if len(ranges) == 1 else "their ranges"
        examples = [f"{part.name} {part.values[0]:g} of {part.clips[0]!r}" for part in parts]
        if len(parts) == 1:
            shown = zip(parts[0].values, parts[0].clips, strict=True)
            examples = [f"{value:g} of {clip!r}" for value, clip in shown]
        return (
            f"{count} of {len(everything)} labels of {first_few([part.name for part in parts])} "
            f"{'lies' if count == 1 else 'lie'} outside {expected} (from {min(everything):g} to {max(everything):g}), "
            f"such as {first_few(examples)}; {self._advice()}"
        )

    def _advice(self) -> str:
        codes = self.likely_codes()
        ways = []
        if codes:
            listed = " and ".join(f"{code:g} ({counted(times, 'time')})" for code, times in codes.items())
            option = ",".join(f"{code:g}" for code in codes)
            means = "means" if len(codes) == 1 else "mean"
            ways.append(f"if {listed} {means} not labeled, add --missing_labels={option}")
        others = [value for part in self.dimensions for value in part.values if value not in codes]
        scales = {part.name: _likely_scale(part, codes if others else ()) for part in self.dimensions}
        if not others and all(code < 0 for code in codes):
            ways.append(f"if they belong to a scale, add {self._range_option(scales)}")
        elif others:
            ways.append(f"if that is their scale, add {self._range_option(scales)}")
        few = len(others) * 20 < sum(len(part.values) + len(part.inside) for part in self.dimensions)
        return ("correct them; " if few and others else "") + "; ".join(ways)

    def _range_option(self, scales: dict[str, Range]) -> str:
        if not self.fractional:
            low, high = min(low for low, _ in scales.values()), max(high for _, high in scales.values())
            return f"--label_range={low:g},{high:g}"
        listed = ", ".join(f"{name}: [{low:g}, {high:g}]" for name, (low, high) in scales.items())
        return f"--label_range '{{{listed}}}'"

    def likely_codes(self) -> dict[float, int]:
        """{value: count} of labels that look like codes of missing values: a few different integers away from all other
        labels."""
        counts = Counter(value for part in self.dimensions for value in part.values)
        inside = [value for part in self.dimensions for value in part.inside]
        highest = max([1.0, *inside, *(value for value in counts if value > 0 and value not in POSITIVE_CODES)])
        codes = [value for value in counts if value in POSITIVE_CODES and value > 5 * highest]
        negative = [value for value in counts if value < 0]
        symmetric = len(negative) > 1 and -min(negative) == highest
        if len(negative) <= MAX_CODES and all(value.is_integer() for value in negative) and not symmetric:
            codes += negative
        return {value: counts[value] for value in sorted(codes, reverse=True)}


def find_outside(labels: np.ndarray, ids: Sequence[str], ranges: Mapping[str, Range]) -> OutsideLabels | None:
    """The labels (N, K) outside their ranges, None without any; NaN is not outside. ids: of the N clips."""
    dimensions, fractional = [], []
    for (name, (low, high)), column in zip(ranges.items(), labels.T, strict=True):
        margin = TOLERANCE * (high - low)
        is_outside = (column < low - margin) | (column > high + margin)  # (N,)
        inside = column[~is_outside & ~np.isnan(column)].tolist()
        rows = np.flatnonzero(is_outside)
        if len(rows):
            clips, values = [ids[row] for row in rows], column[rows].tolist()
            dimensions.append(OutsideDimension(name, (low, high), clips, values, inside))
        elif any(0 < value <= 1 for value in inside):
            fractional.append(name)
    return OutsideLabels(dimensions, fractional) if dimensions else None


def _likely_scale(part: OutsideDimension, codes: Container[float]) -> Range:
    """The narrowest usual scale that contains the labels of a dimension, otherwise their minimum and maximum."""
    values = [value for value in (*part.values, *part.inside) if value not in codes] or [*part.values]
    low, high = min(values), max(values)
    steps = all((2 * value).is_integer() for value in values)  # ratings from 1 on come in whole or half points
    for scale in sorted(SCALES, key=lambda scale: scale[1] - scale[0]):
        if scale[0] <= low and high <= scale[1] and (steps or scale[0] <= 0):
            return scale
    return min(0.0, float(math.floor(low))), float(math.ceil(high))
