"""`emit encode` in real processes: however many there are, whenever they are killed, the same bytes."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers.stage1_tiny import encoders
from helpers.trainers import Trainers, run

from stage2_fusion.data import encoding as encode


@pytest.fixture(scope="module")
def arguments(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoders"
    encoders().save_pretrained(folder)
    return ["--encoders", folder, "--data", clips, "--damaged_views", "1"]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """What one process writes that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "features"
    run([*arguments, "--out", out], out.with_name("said"), before=small_shards, command="encode")
    return files(out)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def small_shards() -> None:
    """Seven of them for forty clips."""
    encode.SHARD = 6


def alive(pid: int) -> bool:
    """Running, rather than ended and not yet reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def killed_while_writing_the_third() -> None:
    """With one loader, kill -9 when everything of the third shard is written but its name."""
    from stage2_fusion.data import features

    small_shards()
    write, done = features.write_samples, []

    def write_and_die(path, samples, info):
        if len(done) == 2:
            write(path.with_suffix(".half"), samples, info)
            print("loaders", *(child.pid for child in psutil.Process().children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, samples, info)
        done.append(path)

    features.write_samples = write_and_die


def test_two_processes_write_what_one_writes(arguments, whole, tmp_path):
    run([*arguments, "--out", tmp_path / "two"], tmp_path / "said", 2, small_shards, "encode")
    assert files(tmp_path / "two") == whole


def test_a_killed_run_goes_on_with_what_is_missing_and_with_nothing_else(arguments, whole, tmp_path):
    out = tmp_path / "features"
    killed = Trainers(
        [*arguments, "--out", out, "--workers", 1], tmp_path / "first", 1, killed_while_writing_the_third, "encode"
    )
    assert killed.wait() == [-signal.SIGKILL]
    kept = {path: path.stat().st_mtime_ns for path in (out / ".partial").glob("[0-9]*.arrow")}
    assert len(kept) == 2 and not (out / "features.json").exists()
    (loader,) = [int(pid) for pid in re.search("^loaders(.*)$", killed.said()[0], re.M)[1].split()]
    until = time.monotonic() + 300
    while alive(loader) and time.monotonic() < until:  # it dies with the process it read for
        time.sleep(0.1)
    assert not alive(loader)

    other = Trainers([*arguments, "--out", out, "--seed", 5], tmp_path / "other", 1, small_shards, "encode")
    assert other.wait() == [1] and "unfinished feature dataset made with other seed 0 (now 5)" in other.said()[0]

    again = Trainers([*arguments, "--out", out], tmp_path / "second", 2, watched, "encode")
    assert again.wait() == [0, 0], again.said()
    assert "12 of 40 clips are done" in again.said()[0]
    written = sorted(line for said in again.said() for line in said.splitlines() if line.startswith("wrote "))
    assert written == [f"wrote {number:06d}" for number in range(2, 7)]  # each once, by one of them
    assert files(out) == whole


def test_damaged_parts_are_noticed_and_encoded_again_by_two(arguments, whole, tmp_path):
    out = tmp_path / "features"
    killed = Trainers([*arguments, "--out", out], tmp_path / "first", 1, killed_while_writing_the_third, "encode")
    assert killed.wait() == [-signal.SIGKILL]
    _, second = sorted((out / ".partial").glob("[0-9]*.arrow"))
    second.write_bytes(second.read_bytes()[:-100])
    (out / f".features.json.{7:032x}.partial").write_text("half")

    again = Trainers([*arguments, "--out", out], tmp_path / "second", 2, watched, "encode")
    assert again.wait() == [0, 0], again.said()
    assert "the shards of 6 of 40 clips are damaged and written again" in again.said()[0]
    assert "6 of 40 clips are done" in again.said()[0]
    written = sorted(line for said in again.said() for line in said.splitlines() if line.startswith("wrote "))
    assert written == [f"wrote {number:06d}" for number in range(1, 7)]
    assert files(out) == whole


def watched() -> None:
    """Says which shards it writes."""
    from stage2_fusion.data import features

    small_shards()
    write = features.write_samples

    def say_and_write(path, samples, info):
        print(f"wrote {path.stem}", flush=True)
        write(path, samples, info)

    features.write_samples = say_and_write


WRONG_RATE = "encode.sound_rate = lambda encoders, stored: 12345"  # an error inside the loader's process
BREAKS_OFF = """
def fail(path, samples, info):
    next(samples)
    raise RuntimeError("schema mismatch")
encode.SHARD, features.write_samples = 2, fail
"""  # one outside, while it reads on


@pytest.mark.parametrize("change, said", [(WRONG_RATE, "not at 12345"), (BREAKS_OFF, "schema mismatch")])
def test_an_error_ends_the_loaders_too(change, said, arguments, tmp_path):
    words = ["encode", *(str(word) for word in arguments), "--out", str(tmp_path / "features"), "--workers", "1"]
    program = "\n".join(
        [
            "from functools import partial",
            "from shared.cli import call, run_main",
            "from stage2_fusion.data import encoding as encode, features",
            change,
            f"run_main(partial(call, {words!r}))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and said in done.stderr
    if change is WRONG_RATE:
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert said in line and "Traceback" not in done.stderr
