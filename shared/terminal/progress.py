"""Progress of a long step, with the time left.

    with progress("encode", total=len(shards), unit="shards") as bar:
        for shard in shards:
            ...
            bar.update()
    for clip in track(clips, "check", unit="clips"): ...

Output goes to stderr. On a terminal, one line updates and disappears at the end. A log file or a pipe gets a plain
line after 10 seconds, then at each 10 %, at least 30 seconds and at most 5 minutes apart. Steps shorter than 2
seconds show nothing. Only the outermost of nested steps is shown.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from shared.terminal.modes import modes
from shared.terminal.processes import is_main_process

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

BAR_AFTER = 2.0
"""Seconds after which a terminal shows a step."""
LINE_AFTER = 10.0
"""Seconds after which a log file shows a step."""
LINES_APART = (30.0, 300.0)
"""Least and most seconds between two lines of a log file."""
SHARE_APART = 0.1
"""Share of the step between two lines of a log file."""
TICK = 0.5
"""Seconds between refreshes, so that the clock advances while one item takes long."""

_lock = threading.RLock()
_shown: list["Progress"] = []
"""The step that is shown."""


class Progress:
    """A step of `total` items and the number done. Created by `progress`."""

    def __init__(self, what: str, total: int | None, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.first = self.done = done
        self.began = time.monotonic()
        self._view: _Bar | _Lines | None = None
        self._ended = threading.Event()
        self._process = os.getpid()

    def update(self, count: int = 1) -> None:
        """`count` more items are done."""
        with _lock:
            self.done += count
        self._draw()

    def describe(self, what: str) -> None:
        """Change the description, such as "epoch 3 of 20"."""
        self.what = what

    def rate(self) -> float | None:
        """Items per second."""
        passed = time.monotonic() - self.began
        return (self.done - self.first) / passed if self.done > self.first and passed > 0 else None

    def _draw(self) -> None:
        if self._view is None or os.getpid() != self._process:  # a forked worker
            return
        with _lock:
            self._view.draw(self)

    def _tick(self) -> None:
        while not self._ended.wait(TICK):
            self._draw()

    def __enter__(self) -> "Progress":
        self.began = time.monotonic()
        if sys.stderr is None or modes().quiet or not is_main_process() or _shown:
            return self
        stream = _Stream(sys.stderr)
        self._view = _Bar(stream) if is_terminal(sys.stderr) else _Lines(stream)
        _shown.append(self)
        threading.Thread(target=self._tick, daemon=True, name="progress").start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._view is not None:
            with _lock:
                self._view.close(self)
                self._view = None
                _shown.remove(self)


def progress(what: str, total: int | None, unit: str, done: int = 0) -> Progress:
    """A step to use in a `with` statement.

    total: number of items, None if unknown. unit: what an item is, in the plural. done: items that an
    earlier run has finished, which do not count for the rate.
    """
    return Progress(what, total, unit, done)


def track(items: Iterable[T], what: str, unit: str, total: int | None = None, done: int = 0) -> Iterator[T]:
    """The items, with their progress. total: as for `progress`, by default the length of `items` plus `done`."""
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    with progress(what, total, unit, done) as step:
        for item in items:
            yield item
            step.update()


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Take the progress line off the terminal while something else is printed."""
    with _lock:
        views = [step._view for step in _shown if isinstance(step._view, _Bar) and step._process == os.getpid()]
        for view in views:
            view.clear()
        yield


def is_terminal(stream: TextIO) -> bool:
    """Whether a line can be overwritten."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


class _Bar:
    """One line that updates, drawn by tqdm."""

    def __init__(self, stream: "_Stream") -> None:
        self.stream = stream
        self.bar: tqdm | None = None

    def draw(self, step: Progress) -> None:
        if self.bar is None:
            if time.monotonic() - step.began < BAR_AFTER:
                return
            self.bar = self._make(step)
        self.bar.set_description_str(step.what, refresh=False)
        if not self.bar.update(step.done - self.bar.n) and time.time() - self.bar.last_print_t > TICK:
            self.bar.refresh()

    def _make(self, step: Progress) -> "tqdm":
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # our own thread refreshes the line
        tqdm.set_lock(_lock)
        known = "{desc}: {percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}, {rate_fmt}, {remaining} left]"
        unknown = "{desc}: {n_fmt}{unit} [{elapsed}, {rate_fmt}]"
        bar: tqdm = tqdm(
            total=step.total,
            initial=step.first,
            desc=step.what,
            unit=f" {step.unit}",
            file=self.stream,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.2,
            miniters=1,
            smoothing=0.1,
            bar_format=known if step.total else unknown,
        )
        bar.start_t -= time.monotonic() - step.began
        return bar

    def clear(self) -> None:
        if self.bar is not None:
            self.bar.clear()

    def close(self, step: Progress) -> None:
        if self.bar is not None:
            self.bar.close()


class _Lines:
    """Plain lines from time to time."""

    def __init__(self, stream: "_Stream") -> None:
        self.stream = stream
        self.last: tuple[float, int] | None = None
        """Time of the last line, and the count then."""

    def draw(self, step: Progress) -> None:
        if self._due(step):
            self._write(step, _log_line(step))

    def _due(self, step: Progress) -> bool:
        now = time.monotonic()
        if self.last is None:
            return now - step.began >= LINE_AFTER
        apart = now - self.last[0]
        share = (step.done - self.last[1]) / step.total if step.total else 0.0
        return apart >= LINES_APART[1] or (apart >= LINES_APART[0] and share >= SHARE_APART)

    def _write(self, step: Progress, line: str) -> None:
        self.last = (time.monotonic(), step.done)
        self.stream.write(line + "\n")
        self.stream.flush()

    def close(self, step: Progress) -> None:
        if self.last is not None and step.done != self.last[1]:
            self._write(step, _log_line(step))


def _log_line(step: Progress) -> str:
    """`encode: 640 of 2000 clips (32 %), 12.3 clips/s, 01:50 left`."""
    from tqdm import tqdm

    passed, rate = time.monotonic() - step.began, step.rate()
    if step.total is None:
        parts = [f"{step.done} {step.unit}"]
    else:
        parts = [f"{step.done} of {step.total} {step.unit} ({step.done / max(step.total, 1):.0%})".replace("%", " %")]
    if rate is not None:
        slow = rate < 1
        parts.append(f"{1 / rate:.1f} s per item" if slow else f"{rate:.1f} {step.unit}/s")
    if step.total is not None and step.done >= step.total:
        parts.append(f"done in {tqdm.format_interval(passed)}")
    elif step.total is not None and rate is not None:
        parts.append(f"{tqdm.format_interval((step.total - step.done) / rate)} left")
    else:
        parts.append(f"running for {tqdm.format_interval(passed)}")
    return f"{step.what}: {', '.join(parts)}"


class _Stream:
    """A stream whose writes never fail: the reader of stderr may be gone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
