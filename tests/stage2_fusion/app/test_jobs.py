"""The queue of the page: its limit, its order, and requests that nobody waits for."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stage2_fusion.app import service
from stage2_fusion.app.jobs import Cancelled, JobQueue, Progress, QueueFull


@pytest.fixture
def queue():
    queue = JobQueue(limit=2)
    yield queue
    queue.close()


def test_requests_wait_in_order_and_the_one_beyond_the_limit_is_refused_with_the_number(queue):
    go, done = threading.Event(), []
    first = queue.submit(lambda job: go.wait(10))
    while not first.future.running():
        pass
    second, third = (queue.submit(lambda job, n=n: done.append(n)) for n in (2, 3))
    assert (second.progress.ahead, third.progress.ahead) == (1, 2)
    with pytest.raises(QueueFull, match="queue is full: 2 waiting; try again"):
        queue.submit(lambda job: None)
    go.set()
    third.future.result(10)
    assert done == [2, 3]


def test_cancelled_request_leaves_the_queue_or_ends_at_its_next_report(queue):
    go = threading.Event()

    def work(job):
        go.wait(10)
        job.report(1, 2, 0.5)

    running, waiting = queue.submit(work), queue.submit(lambda job: 1 / 0)
    while not running.future.running():
        pass
    waiting.cancel()
    running.cancel()
    assert queue.waiting == 0
    go.set()
    with pytest.raises(Cancelled):
        running.future.result(10)
    assert queue.submit(lambda job: "next").future.result(10) == "next"


def test_request_that_fails_does_not_end_the_queue(queue):
    with pytest.raises(ZeroDivisionError):
        queue.submit(lambda job: 1 / 0).future.result(10)
    assert queue.submit(lambda job: "next").future.result(10) == "next"


def test_end_of_a_request_is_told_at_once(queue, monkeypatch):
    """Not at the next look at its progress."""
    monkeypatch.setattr(service, "POLL_SECONDS", 3600.0)
    go = threading.Event()

    async def follow():
        seen = []
        async for progress in service.Service.follow(None, queue.submit(lambda job: go.wait(60))):
            seen.append(progress)
            go.set()
        return seen

    with ThreadPoolExecutor(1) as thread:  # where no browser test has left a running loop
        assert thread.submit(asyncio.run, asyncio.wait_for(follow(), 60)).result() == [Progress()]
