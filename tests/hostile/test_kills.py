"""kill -9 at random moments of every long command: the same command then ends as if nothing had happened."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers.trainers import FORK
from hostile import sandbox
from hostile.long_commands import COMMANDS, contents


def _work(words: list[str], folder: Path) -> None:
    os.chdir(folder)
    os._exit(sandbox.emit(words, folder / ".output"))


def run(words: list[object], folder: Path, kill_after: float | None = None) -> int | None:
    """The exit code; the main process gets SIGKILL after this many seconds."""
    folder.mkdir(exist_ok=True)
    process = FORK.Process(target=_work, args=([str(word) for word in words], folder))
    process.start()
    process.join(kill_after if kill_after is not None else 300)
    if process.is_alive():
        assert kill_after is not None, f"hangs: {(folder / '.output').read_text()}"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_command_ends_like_an_uninterrupted_one(base: Path, name: str, tmp_path: Path):
    words, rng = COMMANDS[name](base), random.Random(name)
    for folder in (tmp_path / "again", tmp_path / "whole"):  # the first one may wait for the fork server
        started = time.monotonic()
        assert run(words, folder) == 0, (folder / ".output").read_text()
        duration = time.monotonic() - started
    killed, folder = 0, tmp_path / "killed"
    for _ in range(4):
        killed += run(words, folder, rng.uniform(0.1, 0.9) * duration) == -signal.SIGKILL
    assert killed
    assert run(words, folder) == 0, (folder / ".output").read_text()
    output = (folder / ".output").read_text()
    assert "Traceback" not in output and "error" not in output
    assert contents(folder / "out") == contents(tmp_path / "whole" / "out")
