"""The allowed range of an option, declared once, in the type of its field: `lr: LearningRate = 1e-3`.

To a type checker and to jsonargparse, `Annotated[float, Range(...)]` is float. Options from a YAML file, the command
line, a model folder or Python pass the same check: the base class `CheckedOptions` runs it for each instance, and
`shared.config` runs it first, because it knows the full name of an option.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Union

from shared.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end is excluded. No range contains NaN or infinity."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below)

    def __repr__(self) -> str:
        low, high = (f"{end:.12g}" if isinstance(end, float) else str(end) for end in (self.low, self.high))
        return f"{'above' if self.open_low else 'from'} {low} to {'below ' if self.open_high else ''}{high}"


# --- whole numbers ---------------------------------------------------------------------------------------------------

Seed = Annotated[int, Range(0, 2**63 - 1)]
PositiveInt = Annotated[int, Range(1, 10**9)]
NonNegativeInt = Annotated[int, Range(0, 10**9)]
BatchSize = Annotated[int, Range(1, 2**20)]
MemoryRows = Annotated[int, Range(0, 2**20)]
"""Rows that a loss remembers; 0: none."""
Processes = Annotated[int, Range(0, 1024)]
"""Each option says what 0 means."""
Workers = Annotated[int, Range(1, 1024)]
Trials = Annotated[int, Range(1, 10**6)]
Views = Annotated[int, Range(0, 100)]
ClipsShown = Annotated[int, Range(0, 100)]
Folds = Annotated[int, Range(2, 10**6)]
Orders = Annotated[int, Range(1, 10**5)]
Resamples = Annotated[int, Range(0, 10**6)]
"""Resamples of a bootstrap; 0: no interval."""
ResamplesNeeded = Annotated[int, Range(1, 10**6)]
ClipCount = Annotated[int, Range(3, 10**6)]
"""One clip for each split, at least."""

# --- sizes of what is built ------------------------------------------------------------------------------------------

Width = Annotated[int, Range(1, 2**14)]
"""Channels, units or heads."""
Steps = Annotated[int, Range(1, 2**18)]
"""Steps of a sequence or samples of a spectrum."""
Layers = Annotated[int, Range(1, 256)]
LayersOrNone = Annotated[int, Range(0, 256)]
TcnLayers = Annotated[int, Range(1, 16)]
"""Each doubles the dilation."""
TcnLayersOrNone = Annotated[int, Range(0, 16)]
Kernel = Annotated[int, Range(1, 255)]
VocabularySize = Annotated[int, Range(1, 2**22)]

# --- media -----------------------------------------------------------------------------------------------------------

FrameSize = Annotated[int, Range(8, 4096)]
"""Pixels along a side."""
FrameRate = Annotated[float, Range(0.1, 240)]
"""Frames per second."""
FrameCount = Annotated[int, Range(1, 10**4)]
FaceEvery = Annotated[int, Range(1, 1000)]
"""Frames between two detections."""
SampleRate = Annotated[int, Range(1000, 384_000)]
"""Hz."""
Hertz = Annotated[int, Range(0, 192_000)]
Seconds = Annotated[float, Range(0.1, 86_400)]
"""Length of a clip or a window; a shorter one has no frame."""
CropSeconds = Annotated[float, Range(0.01, 86_400)]
"""Seconds of sound in a training step."""
Timeout = Annotated[float, Range(0.1, 10**6)]
"""Seconds."""
Minutes = Annotated[float, Range(0, 10**6, open_low=True)]
Decibels = Annotated[float, Range(0, 100)]

# --- other numbers ---------------------------------------------------------------------------------------------------

PositiveFloat = Annotated[float, Range(0, 1e9, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0, 1e9)]
Fraction = Annotated[float, Range(0, 1)]
ProperFraction = Annotated[float, Range(0, 1, open_high=True)]
"""Below 1, such as dropout or the decay of an average."""
Coverage = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
"""Probability that an interval contains the true value."""
Share = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
LearningRate = Annotated[float, Range(0, 100, open_low=True)]
LearningRateFactor = Annotated[float, Range(0, 1000)]
LayerDecay = Annotated[float, Range(0, 1, open_low=True)]
WeightDecay = Annotated[float, Range(0, 100)]
Weight = Annotated[float, Range(0, 1e6)]
"""Weight of a loss term; 0 leaves it out."""
Scale = Annotated[float, Range(0, 1000, open_low=True)]
Bias = Annotated[float, Range(-1000, 1000)]
LabelValue = Annotated[float, Range(-1e9, 1e9)]
Deviation = Annotated[float, Range(0, 10, open_low=True)]
"""Standard deviation of pixels in [0, 1]."""


@dataclass
class CheckedOptions:
    """Base class of option dataclasses. A subclass that defines `__post_init__` calls this one first.

    UserError for a value outside its range, a boolean, text or null in place of a number, or a fraction in place of a
    whole number."""

    def __post_init__(self) -> None:
        for problem in wrong_values(type(self), self, f"{type(self).__name__}."):
            raise UserError(problem)


NEEDED: dict[Any, str] = {
    dict: "expected names with values, such as {name: value}",
    list: "expected a list, such as [a, b]",
    tuple: "expected a list, such as [a, b]",
    str: "expected a text",
    Path: "expected a path",
}
"""{type that may not be null: what to write instead}; the parser accepts null for these types."""


def require(hint: Any, value: Any, name: str) -> None:
    """UserError for an argument of a function that lies outside the range of its type."""
    for problem in _wrong(hint, value, name):
        raise UserError(problem)


def wrong_values(config_class: type, values: Any, prefix: str = "") -> Iterator[str]:
    """The problems with the values of a dataclass, a line each: the option, its value, what is expected.

    values: an instance, or a possibly nested mapping or namespace of some of its fields. prefix: goes before names."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        if isinstance(values, Mapping):
            if field.name not in values:
                continue
            value = values[field.name]
        elif not hasattr(values, field.name):
            continue
        else:
            value = getattr(values, field.name)
        yield from _wrong(hints[field.name], value, prefix + field.name)


def _wrong(hint: Any, value: Any, name: str) -> Iterator[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if value is None and (origin or hint) in NEEDED:
        yield f"{name} is null: {NEEDED[origin or hint]}; leave the option out for its default"
    elif origin in (Union, types.UnionType):
        yield from _wrong_in_union(parts, value, name)
    elif origin is Annotated:
        limits = [limit for limit in parts[1:] if isinstance(limit, Range)]
        yield from _wrong_number(parts[0], limits, value, name) if limits else _wrong(parts[0], value, name)
    elif origin is typing.Literal:
        if value not in parts:
            yield f"{name} is {value!r}: expected one of {', '.join(map(str, parts))}"
    elif hint is bool:
        if not isinstance(value, bool):
            yield f"{name} is {value!r}: expected true or false"
    elif hint is float:
        if isinstance(value, Real) and not math.isfinite(value):
            yield f"{name} is {value}: expected a finite number"
    elif origin in (list, tuple, Sequence) and parts and isinstance(value, list | tuple):
        for place, item in enumerate(value):
            if origin is list and typing.get_origin(parts[0]) is typing.Literal and item in value[:place]:
                yield f"{name}[{place}] is {item!r}: listed twice; list it once"
            part = parts[min(place, len(parts) - 1)]
            yield from _wrong(parts[0] if part is Ellipsis else part, item, f"{name}[{place}]")
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _wrong(parts[1], item, f"{name}.{key}")
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if value is None:
            yield f"{name} is None: expected options, such as {{{dataclasses.fields(hint)[0].name}: ...}}"
        yield from wrong_values(hint, value, f"{name}.")


def _wrong_in_union(parts: Sequence[Any], value: Any, name: str) -> Iterator[str]:
    """Nothing if the value fits one of the types; otherwise its problems with the first one."""
    if (value is None and type(None) in parts) or (isinstance(value, str) and str in parts):
        return
    problems = [list(_wrong(part, value, name)) for part in parts if part not in (str, type(None))]
    if all(problems):
        yield from problems[0] if problems else ()


def _wrong_number(base: type, limits: list[Range], value: Any, name: str) -> Iterator[str]:
    whole = base is int
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or any(value not in limit for limit in limits):
        yield f"{name} is {value!r}: expected a {'whole ' if whole else ''}number {limits[0]!r}"
