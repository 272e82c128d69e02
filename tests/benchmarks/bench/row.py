"""What a row of the benchmark is."""

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from benchmarks.bench.sizes import Size

from shared.errors import UserError
from stage2_fusion.report.speed_file import Timing


@dataclass(frozen=True)
class Bench:
    """What a measurement is told."""

    size: Size
    folder: Path
    """Material that rows share (material.py), and room for what they write."""
    threads: int


@dataclass
class Measured:
    """What one side of a row did. `limit`: what bounds it, measured right after it in the same process."""

    timing: Timing
    limit: Timing | None = None
    check: list[float] = field(default_factory=list)
    """What it computed: both sides must agree on it to AGREEMENT, relatively."""


AGREEMENT = 1e-2
"""bf16 rounds to 4e-3."""

Side = Callable[[Bench], Measured]


@dataclass(frozen=True)
class Row:
    """One figure. Each side runs in a process of its own; the sides take turns."""

    figure: str
    unit: str
    """`samples/s`; or `s` for the seconds of one unit."""
    ours: Side
    baseline: Side | None = None
    baseline_is: str = ""
    limit_is: str = ""
    prepare: Callable[[Bench], object] | None = None
    """Makes what both sides read, before the first turn."""

    def sides(self) -> dict[str, Side]:
        return {"ours": self.ours} | ({"baseline": self.baseline} if self.baseline else {})


@dataclass
class Watch:
    """Wall and CPU seconds of this process and of children that have ended."""

    wall: float = 0.0
    cpu: float = 0.0
    _began: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def start(self) -> None:
        self._began = _clocks()

    def stop(self) -> None:
        wall, cpu = _clocks()
        self.wall, self.cpu = self.wall + wall - self._began[0], self.cpu + cpu - self._began[1]

    def timing(self, amount: float, note: str = "") -> Timing:
        import torch

        gpu = torch.cuda.is_available()
        memory = torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_mib()
        return Timing(amount, self.wall, 0.0 if gpu else self.cpu, memory, note)


@contextmanager
def watch() -> Iterator[Watch]:
    """A Watch that runs inside the block."""
    running = Watch()
    running.start()
    yield running
    running.stop()


def with_limit(timing: Timing, limit: Timing, check: Sequence[float] = ()) -> Measured:
    """`limit` may be of another amount: it is brought to that of `timing`."""
    factor = timing.amount / limit.amount
    same_amount = replace(limit, amount=timing.amount, wall=limit.wall * factor, cpu=limit.cpu * factor)
    return Measured(timing, same_amount, list(check))


def check_agreement(name: str, measured: Mapping[str, Measured | None]) -> None:
    """UserError when two sides of a turn have not computed the same: their comparison would mean nothing."""
    checks = [each.check for each in measured.values() if each is not None and each.check]
    for one in checks[1:]:
        if not np.allclose(one, checks[0], rtol=AGREEMENT, atol=0):
            raise UserError(f"{name}: the sides have not computed the same: {checks[0]} and {one}")


def _clocks() -> tuple[float, float]:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in usage)


def peak_mib() -> float:
    """Of this process, or of the largest of its children. The kernel counts what a process had before it became another
    program in `ru_maxrss`, but not in VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
