"""Jobs that crash, hang or raise in a pool of processes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from shared.dataset.worker_pool import WorkerPool, run_jobs


def misbehave(item: str, folder: str) -> str:
    """What a file may do to the process that reads it: crash, hang, raise."""
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "abort":
        os.abort()  # as a library that detects damaged memory
    if item == "leave":
        os._exit(3)
    if item == "hang":
        time.sleep(600)
    if item == "raise":
        raise ValueError("two\nlines")
    with open(f"{folder}/{item}", "a") as file:
        file.write("x")
    return item.upper()


def count_up(item: str):
    """A long file that gives several results."""
    yield from range(int(item[0]))
    if item[1:]:
        misbehave(item[1:], "")


def test_results_of_an_iterator_before_a_crash_are_kept():
    results = list(run_jobs(count_up, ["3", "2abort", "0", "1hang", "2raise", "1"], 2, seconds=1.0))
    given = {i: [result for index, result, _ in results if index == i] for i in range(6)}
    assert given == {0: [0, 1, 2], 1: [0, 1, None], 2: [], 3: [0, None], 4: [0, 1, None], 5: [0]}
    reasons = {index: reason for index, _, reason in results if reason}
    assert "SIGABRT" in reasons[1] and "longer than 1 s" in reasons[3] and reasons[4] == "ValueError: two lines"


@pytest.mark.parametrize("workers", [1, 2])
def test_crash_or_hang_loses_only_its_own_item(tmp_path, workers):
    items = ["a", "crash", "b", "hang", "c", "raise", "leave", "d"]
    results = {i: rest for i, *rest in run_jobs(partial(misbehave, folder=str(tmp_path)), items, workers, seconds=1.0)}
    assert [results[i][0] for i in range(8)] == ["A", None, "B", None, "C", None, None, "D"]
    assert "SIGSEGV" in results[1][1] and "longer than 1 s" in results[3][1]
    assert results[5][1] == "ValueError: two lines" and "status 3" in results[6][1]
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["x"] * 4


def test_processes_release_the_semaphores_of_their_libraries(tmp_path):
    """tqdm makes one, which Python reports as leaked if the process that made it is killed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from shared.dataset.worker_pool import run_jobs\n"
        "locks = []\n"
        "def job(item):\n"
        "    locks.append(multiprocessing.RLock())\n"
        "    return item\n"
        "if __name__ == '__main__':\n"
        "    print([result.value for result in run_jobs(job, ['a'], 1, 60.0)])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("['a']\n", "")


def test_a_pool_begins_before_its_results_are_asked_for(tmp_path):
    with WorkerPool(partial(misbehave, folder=str(tmp_path)), 2, 30.0) as pool:
        pool.begin(["a", "b", "c"])
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
        assert sorted(result.value for result in pool.run(["a", "b", "c"])) == ["A", "B", "C"]
        assert [result.value for result in pool.run(["d"])] == ["D"]
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["x"] * 4


def test_what_has_begun_ends_with_its_pool(tmp_path):
    with WorkerPool(partial(misbehave, folder=str(tmp_path)), 1, 30.0) as pool:
        pool.begin(["hang"])
        (worker,) = pool._busy
    assert not worker.process.is_alive()
