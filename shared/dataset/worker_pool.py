"""A pool of processes for jobs that may crash or hang: whatever an item does, only that item is lost.

`concurrent.futures` gives up on everything when one process dies, and cannot end one that hangs.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

from shared.errors import UserError
from shared.text import one_line

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Processes share the cores already, and sums come out the same however many threads a machine has."""


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(job: Callable, items: list, workers: int, seconds: float) -> Iterator[tuple[int, Any, str]]:
    """Call `job(item)` in `workers` processes (0: one a core); yield (index, result, "") as they finish.

    An item whose process dies, or that takes more than `seconds`, gives (index, None, reason in one line), and a new
    process takes over. `job` and items are pickled; an exception in `job` is such a reason too. Where `job` returns an
    iterator, each of its values is a result, for which it has `seconds`; it waits while nobody takes them.
    """
    workers = max(1, min(workers or cores(), len(items)))
    todo = iter(enumerate(items))
    team: list[_Worker] = []
    try:
        for entry in _first(todo, workers):
            team.append(_Worker(job, entry))
        while team:
            soonest = min(worker.deadline(seconds) for worker in team)
            connection.wait([worker.pipe for worker in team], timeout=max(0.0, soonest - time.monotonic()))
            for place, worker in enumerate(team):
                answer = worker.answer(seconds)
                if answer is None:
                    continue
                index, (kind, *given) = worker.entry[0], answer
                if kind == "part":
                    yield index, *given
                    continue
                following = next(todo, None)
                if following is not None and worker.alive:
                    worker.give(following)
                elif following is not None:
                    team[place] = _Worker(job, following)
                else:
                    worker.end()
                    team[place] = None
                if kind != "end":
                    yield index, *given
            team = [worker for worker in team if worker is not None]
    finally:
        for worker in team:
            if worker is not None:
                worker.end()


def _first(entries: Iterator, count: int) -> Iterator:
    for _ in range(count):
        entry = next(entries, None)
        if entry is None:
            return
        yield entry


class _Worker:
    """One process and the item it is at."""

    def __init__(self, job: Callable, entry: tuple[int, Any]):
        # Spawned: a fork of a process that runs threads may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, job), daemon=True)
        with _environment(ONE_THREAD):
            self.process.start()
        theirs.close()
        self.ready, self.alive = False, True
        self.give(entry)

    def give(self, entry: tuple[int, Any]) -> None:
        self.entry, self.since = entry, time.monotonic()
        # A process that died at once is noticed when its answer is read.
        with contextlib.suppress(OSError):
            self.pipe.send(entry[1])

    def deadline(self, seconds: float) -> float:
        return self.since + seconds + (0 if self.ready else 60)

    def answer(self, seconds: float) -> tuple[str, Any, str] | None:
        """(kind, result, reason) when there is news, else None. Kinds: done, or part (others follow) and their end."""
        try:
            while self.pipe.poll():
                kind, result, reason = self.pipe.recv()
                self.ready, self.since = True, time.monotonic()
                if kind != "ready":
                    return kind, result, reason
        except (EOFError, OSError):
            self.process.join(5)
            if not self.ready:
                raise UserError("a worker process could not start; its own words are above") from None
            self.end()
            return "done", None, f"the process that read it died ({_cause(self.process.exitcode)})"
        if time.monotonic() < self.deadline(seconds):
            return None
        self.end()
        return "done", None, f"took longer than {seconds:g} s"

    def end(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe, job: Callable) -> None:
    """What a process does: one item after the other, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(("ready", None, ""))
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = job(item)
            answer = ("done", result, "")
            if isinstance(result, Iterator):
                for part in result:
                    pipe.send(("part", part, ""))
                answer = ("end", None, "")
        except Exception as error:  # whatever a file does to a library, the run goes on
            answer = ("done", None, f"{type(error).__name__}: {one_line(error)}"[:300])
        pipe.send(answer)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
    return f"status {code}"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that processes started inside inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
