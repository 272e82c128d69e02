"""The file of `make bench`: the speed of each part, with its baseline and a physical limit measured in the same run.

It stores times, not ratios: {"rows": [{"name", "figure", "unit", "baseline", "limit", "sides": {"ours": [...], ...}}]}.
A side has one measurement per turn, {"amount", "wall", "cpu"}, or null if it failed. `tests/benchmarks/bench` writes
it.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shared.errors import UserError
from shared.files import read_object
from shared.saved.typed import read_typed

FORMAT = "emit-bench/1"
REMEDY = "run `make bench` again"

BUSY = 0.5
"""A machine with a higher load average counts as busy."""

Clock = Literal["wall", "cpu"]


class Spread(NamedTuple):
    """Median, lowest and highest of the turns."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self) -> str:
        middle, low, high = map(number, self)
        return middle if low == high else f"{middle} ({low} to {high})"

    def __truediv__(self, other: "Spread") -> "Spread":
        """The spread of the quotients of any value of this by any of the other."""
        return Spread(self.median / other.median, self.low / other.high, self.high / other.low)


def number(value: float) -> str:
    """Three digits: 0.0123, 1.23, 12.3, 1,234."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


@dataclass
class Timing:
    """One measurement."""

    amount: float
    """Units of work done: clips, samples, seconds of video."""
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all threads and processes; 0 on a GPU."""
    mib: float = 0.0
    """Peak memory."""
    note: str = ""

    def __post_init__(self) -> None:
        if min(self.amount, self.wall) <= 0:
            raise ValueError(f"{self.amount:g} units in {self.wall:g} seconds: both must be above 0")

    def per_second(self, clock: Clock = "wall") -> float:
        """Units per second."""
        return self.amount / getattr(self, clock)


@dataclass
class SpeedRow:
    """One figure."""

    name: str
    figure: str
    """What is measured, in words."""
    unit: str
    """`samples/s`; or `s`, if the figure is the seconds of one unit."""
    baseline: str
    """What ours is compared with; "" for nothing."""
    limit: str
    """What bounds it; "" for nothing."""
    sides: dict[str, list[Timing | None]]
    """ours, baseline, limit: one measurement per turn, taken one after another within a turn."""

    def __post_init__(self) -> None:
        if "ours" not in self.sides:
            raise ValueError(f"{self.name} has no measurement of ours")

    def value(self, side: str = "ours") -> Spread | None:
        """The figure of a side, in the unit."""
        rates = [timing.per_second() for timing in self.sides.get(side, []) if timing is not None]
        return Spread.of([1 / rate if self.unit == "s" else rate for rate in rates])

    def ratio(self, side: str, clock: Clock = "wall") -> Spread | None:
        """Speed of ours divided by that of another side, turn by turn. None without both."""
        pairs = zip(self.sides["ours"], self.sides.get(side, []), strict=False)
        both = [(ours, other) for ours, other in pairs if ours is not None and other is not None]
        if any(not getattr(timing, clock) for pair in both for timing in pair):
            return None
        return Spread.of([ours.per_second(clock) / other.per_second(clock) for ours, other in both])

    def mib(self, side: str = "ours") -> float | None:
        """The highest peak memory of a side."""
        return max((timing.mib for timing in self.sides.get(side, []) if timing is not None), default=0) or None


@dataclass
class SpeedFile:
    """All rows of a run of `make bench`."""

    format: str
    size: str
    """standard, gpu, or tiny; figures of tiny mean nothing."""
    processor: str
    threads: int
    versions: dict[str, str]
    """Of EMIT, Python and PyTorch."""
    turns: int
    rows: list[SpeedRow]
    load: float = 0.0
    """Load average of the machine at the start of the run, from other work."""

    @property
    def where(self) -> str:
        """The machine in words."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        tiny = "; TINY: these figures mean nothing" if self.size == "tiny" else ""
        busy = f"; busy with other work (load {self.load:.1f})" if self.load > BUSY else ""
        return f"{self.processor}, {threads}, PyTorch {self.versions.get('torch', '?')}{busy}{tiny}"


def read_speed(path: Path) -> SpeedFile:
    """UserError when the file is damaged or of another kind."""
    content: dict[str, Any] = read_object(path, "file of make bench", REMEDY)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: not a file of make bench (its format is not {FORMAT}); {REMEDY}")
    return read_typed(SpeedFile, content, str(path))


HEADER = (
    "figure",
    "ours",
    "baseline",
    "times as fast",
    "by CPU time",
    "share of the limit",
    "MiB",
    "baseline is",
    "limit is",
)


def table(rows: Sequence[SpeedRow]) -> list[tuple[str, ...]]:
    """A line for each row, in the order of HEADER."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        lines.append(
            (
                f"{row.figure} ({row.unit})",
                _shown(row.value()) if row.value() else "failed",
                _shown(row.value("baseline")),
                _shown(row.ratio("baseline")),
                _shown(row.ratio("baseline", "cpu")),
                _shown(row.ratio("limit")),
                ", ".join(f"{mib:,.0f}" for side in ("ours", "baseline") if (mib := row.mib(side))),
                row.baseline,
                row.limit,
            )
        )
    return lines


COMPARED = ("figure", "before", "after", "after / before", "ratio before", "ratio after", "ratio of ratios")


def compare(before: SpeedFile, after: SpeedFile) -> list[tuple[str, ...]]:
    """A line for each row in both files, in the order of COMPARED. Ratios are to the baseline of the same run, so their
    quotient does not depend on how busy or fast the machine was; both quotients are above 1 if after is faster."""
    lines: list[tuple[str, ...]] = []
    earlier = {row.name: row for row in before.rows}
    for new in after.rows:
        old = earlier.get(new.name)
        if old is None or new.unit != old.unit:
            continue
        values, ratios = (old.value(), new.value()), (old.ratio("baseline"), new.ratio("baseline"))
        faster = _quotient(*values) if new.unit == "s" else _quotient(*values[::-1])
        lines.append(
            (
                f"{new.figure} ({new.unit})",
                *map(_shown, values),
                _shown(faster),
                *map(_shown, ratios),
                _shown(_quotient(*ratios[::-1])),
            )
        )
    return lines


def _quotient(one: Spread | None, other: Spread | None) -> Spread | None:
    return one / other if one and other else None


def _shown(spread: Spread | None) -> str:
    return "" if spread is None else str(spread)
