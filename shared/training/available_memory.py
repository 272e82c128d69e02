"""How much memory is available to this process, and an error for anything that needs more."""

from collections.abc import Callable, Iterator
from pathlib import Path

from shared.errors import UserError

MEMINFO = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
GIB = 2**30


def available_bytes() -> int | None:
    """Free memory of the machine and the container without swapping; None if the system does not say."""
    return min((*_of_machine(), *_of_container()), default=None)


def check_memory(need: float, what: str, remedy: Callable[[int], str]) -> None:
    """UserError if `need` bytes are not available. what: what needs them, in the plural; remedy: what to do instead,
    given the available bytes."""
    free = available_bytes()
    if free is not None and need > free:
        raise UserError(
            f"{what} take {need / GIB:,.1f} GiB of memory, and {free / GIB:.1f} GiB are free: {remedy(free)}"
        )


def _of_machine() -> Iterator[int]:
    for line in _text(MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_container() -> Iterator[int]:
    """From version 2 and 1 of control groups. Page cache can be reclaimed."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _text(CONTROL_GROUP / limit).strip(), _text(CONTROL_GROUP / used).strip()
        if most.isdecimal() and now.isdecimal():
            statistics = dict(
                line.split(maxsplit=1) for line in _text((CONTROL_GROUP / limit).with_name("memory.stat")).splitlines()
            )
            yield max(0, int(most) - int(now) + int(statistics.get(cached, 0)))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
