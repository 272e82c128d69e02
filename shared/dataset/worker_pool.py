"""A pool of processes for jobs that may crash or hang: only the affected item is lost.

`concurrent.futures` aborts all work when one process dies, and cannot end a process that hangs.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import connection
from typing import Any, NamedTuple

from shared.errors import UserError
from shared.text import one_line

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""One thread per process: processes already share the cores, and sums do not depend on the number of threads."""
START_SECONDS = 60.0
"""Seconds for a new process to start, in addition to the time limit of its first item."""
END_SECONDS = 5.0
"""Seconds for an idle process to end by itself."""


class JobResult(NamedTuple):
    row: int
    """Index of the item."""
    value: Any
    """What the job returned or yielded; None if it failed."""
    error: str
    """Why the job failed, in one line; "" if it did not."""


class _Message(NamedTuple):
    """A message from a process. kind: ready (started), part (one of several values), end (no more values), done (the
    only value, or an error)."""

    kind: str
    value: Any = None
    error: str = ""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(job: Callable[[Any], Any], items: list, workers: int, seconds: float) -> Iterator[JobResult]:
    """Call `job(item)` in `workers` processes (0: one per core) and yield results as they finish.

    If the process of an item dies, or the item takes more than `seconds`, the result is an error, and a new process
    takes over. An exception in `job` is an error too. If `job` returns an iterator, each of its values is a result with
    its own time limit; the process waits until the value is consumed. `job` and items are pickled.
    """
    with WorkerPool(job, min(workers or cores(), len(items)), seconds) as pool:
        yield from pool.run(items)


class WorkerPool:
    """Processes that stay alive for further items, for a server that cannot wait for new ones. Only one thread at a
    time may call `run`; another one may call `close`."""

    def __init__(self, job: Callable[[Any], Any], workers: int, seconds: float):
        """As `run_jobs`. Processes start when they are needed."""
        self._job, self._count, self._seconds = job, max(1, workers or cores()), seconds
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def begin(self, items: list) -> None:
        """Let the processes start on the first items before `run` is called with the same ones."""
        for entry in islice(enumerate(items), self._count):
            self._start(*entry)

    def run(self, items: list) -> Iterator[JobResult]:
        """As `run_jobs`."""
        queue = islice(enumerate(items), len(self._busy), None)
        try:
            for entry in islice(queue, self._count - len(self._busy)):
                self._start(*entry)
            while self._busy:
                deadline = min(worker.deadline(self._seconds) for worker in self._busy)
                pipes = [worker.pipe for worker in self._busy]
                connection.wait(pipes, timeout=max(0.0, deadline - time.monotonic()))
                for worker in list(self._busy):
                    message = worker.receive(self._seconds)
                    if message is None:
                        continue
                    index = worker.index
                    if message.kind != "part":
                        self._busy.remove(worker)
                        if worker.alive:
                            self._idle.append(worker)
                        following = next(queue, None)
                        if following is not None:
                            self._start(*following)
                    if message.kind != "end":
                        yield JobResult(index, message.value, message.error)
        finally:
            while self._busy:  # from a caller that left
                self._busy.pop().stop()

    def close(self) -> None:
        """End the processes: idle ones end themselves and release their libraries' resources."""
        idle, end = list(self._idle), time.monotonic() + END_SECONDS
        for worker in idle:
            worker.dismiss()
        for worker in idle:
            worker.process.join(max(0.0, end - time.monotonic()))
        for worker in [*idle, *self._busy]:
            worker.stop()
        self._idle.clear()

    def _start(self, index: int, item: Any) -> None:
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                worker.assign(index, item)
                self._busy.append(worker)
                return
            worker.stop()
        new = _Worker()
        new.send(self._job)
        new.assign(index, item)
        self._busy.append(new)


class _Worker:
    """One process and its current item. The first message to send is its job."""

    index: int
    start_time: float

    def __init__(self) -> None:
        # Spawned, because forking a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        self.pipe, child_pipe = context.Pipe()
        self.process = context.Process(target=_work, args=(child_pipe,), daemon=True)
        with _environment(ONE_THREAD):
            self.process.start()
        child_pipe.close()
        self.ready, self.alive = False, True

    def assign(self, index: int, item: Any) -> None:
        self.index, self.start_time = index, time.monotonic()
        self.send(item)

    def send(self, value: Any) -> None:
        # If the process has died, `receive` will notice.
        with contextlib.suppress(OSError):
            self.pipe.send(value)

    def deadline(self, seconds: float) -> float:
        return self.start_time + seconds + (0 if self.ready else START_SECONDS)

    def receive(self, seconds: float) -> _Message | None:
        """The next message other than "ready"; None if there is none yet."""
        try:
            while self.pipe.poll():
                message: _Message = self.pipe.recv()
                self.ready, self.start_time = True, time.monotonic()
                if message.kind != "ready":
                    return message
        except (EOFError, OSError):
            self.process.join(5)
            if not self.ready:
                raise UserError("a worker process could not start; its error is above") from None
            self.stop()
            return _Message("done", error=f"the process that read it died ({_exit_reason(self.process.exitcode)})")
        if time.monotonic() < self.deadline(seconds):
            return None
        self.stop()
        return _Message("done", error=f"took longer than {seconds:g} s")

    def dismiss(self) -> None:
        """Let the process end by itself when idle. `stop` must follow."""
        self.pipe.close()

    def stop(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: connection.Connection) -> None:
    """The main function of a process: receive a job, then work on one item after the other until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):  # the parent was killed
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        _serve(pipe, job)


def _serve(pipe: connection.Connection, job: Callable[[Any], Any]) -> None:
    pipe.send(_Message("ready"))
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = job(item)
            message = _Message("done", result)
            if isinstance(result, Iterator):
                for part in result:
                    pipe.send(_Message("part", part))
                message = _Message("end")
        except Exception as error:  # a file may cause any error in a library
            message = _Message("done", error=f"{type(error).__name__}: {one_line(error)}"[:300])
        pipe.send(message)


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
    return f"status {code}"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started inside this block."""
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
