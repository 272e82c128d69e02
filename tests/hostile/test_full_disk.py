"""A disk that fills up during any long command: one line, nothing half-written, and the same command completes when
there is room."""

import ctypes
import multiprocessing.connection
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.trainers import FORK
from hostile import sandbox
from hostile.long_commands import COMMANDS, contents

CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_REMOUNT = 0x00020000, 0x4000, 0x40000, 0x20


@dataclass
class Attempts:
    """A command on a disk that is too small, then on one with room."""

    first: int
    """Exit codes."""
    second: int
    output: str
    """Of the first."""
    left: list[str]
    """Partial files that the first left."""
    contents: dict
    """Of the folder that the second completed."""


def _mount(folder: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(folder), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")


def _run(words: list[str], output: Path) -> int:
    child = os.fork()
    if child == 0:
        os._exit(sandbox.emit(words, output))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _work(words: list[str], folder: Path, size: int, result: multiprocessing.connection.Connection) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    disk = folder / "disk"
    try:
        if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
            raise OSError(ctypes.get_errno(), "unshare")
        _mount(disk, 0, f"size={size}")
    except OSError as error:
        result.send(str(error))
        return
    os.chdir(disk)
    first = _run(words, folder / "first")
    left = [str(path) for path in Path().rglob("*") if "partial" in path.name or "replaced" in path.name]
    _mount(disk, MS_REMOUNT, "size=500m")
    second = _run(words, folder / "second")
    output = (folder / "first").read_text(), (folder / "second").read_text()
    result.send(Attempts(first, second, "\n".join(output), left, contents(disk / "out")))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk_is_one_line_and_the_same_command_completes(base: Path, name: str, share: float, tmp_path: Path):
    words = [str(word) for word in COMMANDS[name](base)]
    whole = tmp_path / "whole"
    whole.mkdir()
    process = FORK.Process(target=_whole, args=(words, whole))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "output").read_text()
    size = sum(path.stat().st_blocks * 512 for path in whole.rglob("*"))
    (tmp_path / "disk").mkdir()
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_work, args=(words, tmp_path, max(4096, int(share * size)), send))
    process.start()
    attempts = receive.recv()
    process.join()
    if isinstance(attempts, str):
        pytest.skip(f"mounting a small disk needs privileges: {attempts}")
    assert "Traceback" not in attempts.output
    if attempts.first:
        errors = [line for line in attempts.output.splitlines() if line.startswith("error: ")]
        assert attempts.first == 1 and len(errors) == 1, attempts.output
        assert "room" in errors[0] or "No space" in errors[0]
        resumes_from_partial = name in ("prepare", "encode", "synth")
        assert resumes_from_partial or not attempts.left, attempts.left
    assert attempts.second == 0, attempts.output
    assert attempts.contents == contents(whole / "out")


def _whole(words: list[str], folder: Path) -> None:
    os.chdir(folder)
    os._exit(_run(words, folder.parent / "output"))
