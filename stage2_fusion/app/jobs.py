"""A bounded queue: one thread processes the requests in turn, because there is one model."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any


class QueueFull(Exception):
    """No room for another request: one line for whoever sent it."""


class Cancelled(Exception):
    """Nobody is waiting for the result."""


@dataclass(frozen=True)
class Progress:
    """The progress of a request."""

    ahead: int = 0
    """Requests ahead in the queue; 0 while this one runs."""
    clips: int = 0
    """Finished clips, of `total`."""
    total: int = 0
    seconds: float = 0.0
    """Seconds of media scored so far."""


class Job:
    """One request. `future` holds its result."""

    def __init__(self, queue: "JobQueue", work: Callable[["Job"], Any]):
        self.future: Future[Any] = Future()
        self._queue, self._work = queue, work
        self._cancelled = False
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return Progress(ahead=self._queue.ahead(self)) if not self.future.running() else self._progress

    def report(self, clips: int, total: int, seconds: float) -> None:
        """Report progress. Raises Cancelled if nobody is waiting."""
        if self._cancelled:
            raise Cancelled
        self._progress = Progress(0, clips, total, seconds)

    def cancel(self) -> None:
        """Remove it from the queue, or end it at its next report."""
        self._cancelled = True
        self.future.cancel()

    def run(self) -> None:
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self._work(self))
            except BaseException as error:
                self.future.set_exception(error)


class JobQueue:
    """Requests, processed by one thread in order of arrival."""

    def __init__(self, limit: int):
        """limit: requests that may wait, in addition to the running one."""
        self.limit = limit
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="emit-serve-queue", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""
        return len(self._waiting)

    def ahead(self, job: Job) -> int:
        """The number of requests before a waiting one."""
        with self._changed:
            place = self._waiting.index(job) if job in self._waiting else -1
            return place + (self._current is not None) if place >= 0 else 0

    def check(self) -> None:
        """QueueFull if there is no room."""
        if self._closed:
            raise QueueFull("the server is stopping; try again later")
        if self._current is not None and self.waiting >= self.limit:
            raise QueueFull(f"queue is full: {self.waiting} waiting; try again")

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Add a request: `work(job)` runs in the thread of the queue. QueueFull if there is no room."""
        job = Job(self, work)
        with self._changed:
            self.check()
            self._waiting.append(job)
            job.future.add_done_callback(lambda _: self._forget(job))
            self._changed.notify()
        return job

    def close(self, seconds: float = 10.0) -> None:
        """Cancel all waiting and running requests, and wait for the thread, at most `seconds`."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *filter(None, [self._current])]
            self._changed.notify()
        for job in jobs:
            job.cancel()
        self._thread.join(seconds)

    def _forget(self, job: Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._current = self._waiting.popleft()
            try:
                job.run()
            finally:
                with self._changed:
                    self._current = None
