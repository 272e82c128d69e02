"""The range of labels, which is decided only here, where labels are first read.

Datasets store labels as fractions of their range, in [0, 1], and models predict such fractions. `label_range` gives the
scale of the source (0 to 100, 1 to 7, -1 to 1), and predictions use this scale. Without it, labels must lie in [0, 1].
Codes of missing values (-1, 999) must be declared, and are never guessed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from shared.dataset.clip import ClipSource
from shared.dataset.outside_labels import OutsideLabels, Range, find_outside
from shared.errors import UserError
from shared.options.placeholders import Placeholder
from shared.options.ranges import CheckedOptions, LabelValue
from shared.registry import nearest
from shared.tables.columns import normalize_name

UNIT = (0.0, 1.0)
GUESSED = "labels are the numeric columns"
"""Start of the note about label columns recognized by their numbers (shared/tables/columns.py)."""


@dataclass
class LabelOptions(CheckedOptions):
    """What the numbers of a source's labels mean."""

    label_range: Annotated[str | list[LabelValue] | dict[str, list[LabelValue]], Placeholder("LOW,HIGH")] = ""
    """Lowest and highest label on the source's scale, such as 0,100 or 1,7, or per dimension, such as {valence: [-1,
    1]}. Labels are stored as fractions of this range; predictions use the source's scale. By default 0,1: labels
    outside are refused, not clipped."""
    missing_labels: Annotated[str | LabelValue | list[LabelValue], Placeholder("NUMBER,...")] = ""
    """Numbers that mean "not labeled", such as -1,-5 or 999."""

    def __post_init__(self):
        super().__post_init__()
        self.ranges()
        self.codes()

    def ranges(self) -> Range | dict[str, Range]:
        """The range of all dimensions, or a range for some; {} by default. UserError if it is not a range."""
        given: Any = self.label_range
        if isinstance(given, str):
            given = _parse(given)
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return {str(name): _range(ends, f"label_range of {name}") for name, ends in given.items()}
        return _range(given, "label_range")

    def codes(self) -> list[float]:
        """The numbers that mean "not labeled". UserError if one is not a number."""
        given: Any = self.missing_labels
        if isinstance(given, str):
            given = _parse(given)
        values = [] if given is None else given if isinstance(given, list) else [given]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise UserError(f"missing_labels is {self.missing_labels!r}: give numbers, such as -1,-5")
        return [float(value) for value in values]


def _parse(text: str) -> Any:
    """The value of an option as YAML, with or without brackets; None if it is empty. UserError if it is invalid."""
    try:
        inner = text.strip().removeprefix("[").removesuffix("]")
        return yaml.safe_load(text if text.strip().startswith("{") else f"[{inner}]" if inner.strip() else "null")
    except yaml.YAMLError:
        raise UserError(f"{text!r} cannot be read: give numbers, such as 0,100") from None


def _range(ends: Any, what: str) -> Range:
    numbers = isinstance(ends, Sequence) and all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends)
    if not numbers or len(ends) != 2 or not -math.inf < ends[0] < ends[1] < math.inf:
        raise UserError(f"{what} is {ends!r}: give its lowest and its highest value, such as 0,100")
    return float(ends[0]), float(ends[1])


@dataclass(frozen=True)
class LabelScale:
    """The range of each of K dimensions."""

    ranges: dict[str, Range]

    @classmethod
    def of(cls, names: Sequence[str], ranges: Mapping[str, Sequence[float]] | None = None) -> "LabelScale":
        """From the `label_ranges` of a dataset or a model; None stands for [0, 1] in all dimensions. UserError for a
        range without two finite ends in order."""
        given = ranges or {}
        return cls({n: _range(given[n], f"label_ranges of {n}") if n in given else UNIT for n in names})

    @classmethod
    def from_options(cls, options: LabelOptions, names: Sequence[str]) -> "LabelScale":
        """The range of each dimension. UserError for a dimension that does not exist."""
        given = options.ranges()
        if not isinstance(given, dict):
            return cls(dict.fromkeys(names, given))
        known = {normalize_name(name): name for name in names}
        for name in given:
            if normalize_name(name) not in known:
                hint = nearest(name, names) if names else "there are no labels"
                raise UserError(f"label_range: no label is called {name!r}: {hint}")
        return cls(dict.fromkeys(names, UNIT) | {known[normalize_name(name)]: ends for name, ends in given.items()})

    def to_json(self) -> dict[str, list[float]] | None:
        """The value to store in datasets and models; None if every range is [0, 1]."""
        if all(ends == UNIT for ends in self.ranges.values()):
            return None
        return {name: list(ends) for name, ends in self.ranges.items()}

    def __str__(self) -> str:
        ends = {f"{low:g} to {high:g}" for low, high in self.ranges.values()}
        if len(ends) == 1:
            return ends.pop()
        return ", ".join(f"{low:g} to {high:g} ({name})" for name, (low, high) in self.ranges.items())

    def describe(self, names: Sequence[str]) -> str:
        """The ranges of some dimensions, for messages: [0, 1], or several."""
        return " or ".join(dict.fromkeys(f"[{self.ranges[n][0]:g}, {self.ranges[n][1]:g}]" for n in names))

    @property
    def lowest(self) -> np.ndarray:
        """float64 (K,)."""
        return np.array([low for low, _ in self.ranges.values()], np.float64)

    @property
    def highest(self) -> np.ndarray:
        """float64 (K,)."""
        return np.array([high for _, high in self.ranges.values()], np.float64)

    def fractions(self, labels: ArrayLike) -> np.ndarray:
        """Labels (..., K) on their scale to fractions of it, float64; NaN stays NaN, and [0, 1] stays bitwise equal."""
        return (np.asarray(labels, np.float64) - self.lowest) / (self.highest - self.lowest)

    def values(self, fractions: ArrayLike) -> np.ndarray:
        """Fractions (..., K) to labels or predictions on their scale, float64; NaN stays NaN."""
        return np.asarray(fractions, np.float64) * (self.highest - self.lowest) + self.lowest


# --- the labels of a source ------------------------------------------------------------------------------------------


def scale_labels(source: ClipSource, options: LabelOptions, where: str) -> ClipSource:
    """The source with its labels as fractions of their range, and without codes of missing values.

    UserError, with counts, clips and the option that helps, if labels lie outside their range, and if the layout itself
    defines the meaning of its labels."""
    source = without_codes(source, options)
    scale = source_scale(source, options)
    outside = outside_labels(source, scale)
    if outside:
        raise UserError(f"{where}: {outside}{_no_labels_advice(source, outside)}")
    fractions = np.clip(scale.fractions(_array(source)), 0, 1)  # (N, K); clips rounding errors
    ranges = scale.to_json() or {} if source.label_ranges is None else source.label_ranges
    notes = [*source.notes, *_narrow_notes(source, scale)]
    if not source.label_names and (options.ranges() or options.codes()):
        notes.append("label_range and missing_labels have no effect: no column is read as labels")
    return replace(_with_labels(source, fractions), notes=notes, label_ranges=ranges)


def source_scale(source: ClipSource, options: LabelOptions) -> LabelScale:
    """The range of each label of a source: [0, 1] if its layout defines the meaning of the labels. UserError if the
    options give a different range."""
    if source.label_ranges is None:
        return LabelScale.from_options(options, source.label_names)
    if options.label_range:
        raise UserError("label_range: this layout defines the range of its labels; leave the option out")
    return LabelScale.of(source.label_names)


def outside_labels(source: ClipSource, scale: LabelScale) -> OutsideLabels | None:
    """The labels of a source that lie outside their range."""
    return find_outside(_array(source), [clip.id for clip in source.clips], scale.ranges)


def without_codes(source: ClipSource, options: LabelOptions) -> ClipSource:
    """The source with NaN in place of the numbers that mean "not labeled"; a note gives their number."""
    codes = options.codes()
    if not codes or not source.label_names:
        return source
    labels, notes = _array(source), list(source.notes)
    for code in codes:
        count = int(_equal(labels, code).sum())
        are = "label is" if count == 1 else "labels are"
        notes.append(f"{count} {are} {code:g}, which means not labeled (missing_labels)")
    return replace(_with_labels(source, _without(labels, codes)), notes=notes)


def _without(labels: np.ndarray, codes: Sequence[float]) -> np.ndarray:
    """The labels (...) with NaN in place of the codes."""
    for code in codes:
        labels = np.where(_equal(labels, code), np.nan, labels)
    return labels


def _equal(labels: np.ndarray, code: float) -> np.ndarray:
    return np.isclose(labels, code, rtol=1e-6, atol=0)


def _array(source: ClipSource) -> np.ndarray:
    """float64 (N, K)."""
    return np.array([clip.labels for clip in source.clips], np.float64).reshape(
        len(source.clips), len(source.label_names)
    )


def _with_labels(source: ClipSource, labels: np.ndarray) -> ClipSource:
    """The source with labels (N, K)."""
    if not source.label_names:
        return source
    rows = labels.tolist()
    return replace(source, clips=[replace(c, labels=tuple(row)) for c, row in zip(source.clips, rows, strict=True)])


def _narrow_notes(source: ClipSource, scale: LabelScale) -> list[str]:
    """A note about labels that all lie in [0, 1] although the given range is wider: they may be on another scale."""
    labels, notes = _array(source), []
    for k, (name, ends) in enumerate(scale.ranges.items()):
        known = labels[~np.isnan(labels[:, k]), k]
        fractional = ((known > 0) & (known < 1)).any()
        if ends[0] <= 0 and ends[1] > 1 and fractional and known.min() >= 0 and known.max() <= 1:
            notes.append(
                f"all labels of {name} lie in [0, 1], though label_range says {ends[0]:g} to {ends[1]:g}: if they are "
                f"on another scale, give a range per dimension, such as {{{name}: [0, 1]}}"
            )
    return notes


def _no_labels_advice(source: ClipSource, outside: OutsideLabels) -> str:
    """What to do if a column was read as labels because it contains numbers, but has no labels."""
    if not any(note.startswith(GUESSED) for note in source.notes):
        return ""
    bad = {part.name for part in outside.dimensions}
    rest = ", ".join(name for name in source.label_names if name not in bad) or "NAMES"
    return f"; if {', '.join(bad)} has no labels, name the columns that do: --layout_options '{{labels: [{rest}]}}'"


# --- the labels of single items --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelReader:
    """Converts the labels of single items from sources of pairs to fractions."""

    scale: LabelScale
    codes: list[float]
    """Numbers that mean "not labeled"."""

    @classmethod
    def of(cls, options: LabelOptions, names: Sequence[str]) -> "LabelReader":
        """UserError for a dimension of `label_range` that does not exist."""
        return cls(LabelScale.from_options(options, names), options.codes())

    def outside(self, labels: ArrayLike, ids: Sequence[str]) -> OutsideLabels | None:
        """The labels (N, K) of items that lie outside their range."""
        known = _without(np.asarray(labels, np.float64).reshape(len(ids), -1), self.codes)
        return find_outside(known, ids, self.scale.ranges)

    def fractions(self, labels: Sequence[float], where: str) -> np.ndarray:
        """Labels (K,) to float32 (K,) in [0, 1], NaN = not labeled. UserError, beginning with `where`, for a label
        outside its range."""
        outside = self.outside([labels], [where]) if len(labels) else None
        if outside:
            part = outside.dimensions[0]
            raise UserError(
                f"{where}: {part.name} {part.values[0]:g} lies outside [{part.range[0]:g}, {part.range[1]:g}]"
            )
        known = _without(np.asarray(labels, np.float64), self.codes)
        return np.clip(self.scale.fractions(known), 0, 1).astype(np.float32)


def require_fractions(labels: np.ndarray, names: Sequence[str], ids: Sequence[str], where: str) -> None:
    """UserError if labels (N, K) of a dataset are not fractions of their range: an older version wrote them."""
    outside = find_outside(labels, ids, dict.fromkeys(names, UNIT))
    if outside:
        raise UserError(f"{where}: {outside} to `emit prepare`, and rebuild everything made from it")
