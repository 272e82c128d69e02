"""`emit encode` in real processes writes the same bytes, however many there are and whenever they are killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import tool_files
from helpers.stage1_tiny import encoders
from helpers.trainers import Trainers, run

from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.training_clips import fingerprints
from stage2_fusion.commands import encode
from stage2_fusion.data import features


@pytest.fixture(scope="module")
def arguments(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoders"
    encoders().save_pretrained(folder)
    return ["--encoders", folder, "--data", clips, "--damaged_views", "1"]


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The files of one uninterrupted process."""
    out = tmp_path_factory.mktemp("whole") / "features"
    run([*arguments, "--out", out], out.with_name("output"), before=use_small_shards, command="encode")
    return files(out)


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def use_small_shards() -> None:
    """Seven shards for forty clips."""
    encode.SHARD_SIZE = 6


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def die_in_third_shard() -> None:
    """kill -9 when the third shard is written but does not have its name yet."""
    use_small_shards()
    write, done = features.write_samples, []

    def write_and_die(path, samples, info):
        if len(done) == 2:
            write(path.with_suffix(".half"), samples, info)
            print("loaders", *(child.pid for child in psutil.Process().children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, samples, info)
        done.append(path)

    features.write_samples = write_and_die


def test_two_processes_write_the_same_files_as_one(arguments, whole, tmp_path):
    run([*arguments, "--out", tmp_path / "two"], tmp_path / "output", 2, use_small_shards, "encode")
    assert files(tmp_path / "two") == whole
    assert_fingerprints(tmp_path / "two", arguments[3])


def assert_fingerprints(encoded: Path, clips: Path) -> None:
    """Every view of a clip has those of the clip."""
    own = ClipDataset.open(clips)
    expected = dict(zip(own.column("id"), fingerprints(own), strict=True))
    for sample in features.FeatureDataset.open(encoded).samples:
        np.testing.assert_array_equal(sample.fingerprints, expected[sample.id])
    assert np.stack(list(expected.values())).any(axis=1).all()


def test_killed_run_continues_with_the_missing_shards_only(arguments, whole, tmp_path):
    out = tmp_path / "features"
    killed = Trainers([*arguments, "--out", out, "--workers", 1], tmp_path / "first", 1, die_in_third_shard, "encode")
    assert killed.wait() == [-signal.SIGKILL]
    kept = {path: path.stat().st_mtime_ns for path in (out / ".partial").glob("[0-9]*.arrow")}
    assert len(kept) == 2 and not (out / "features.json").exists()
    (loader,) = [int(pid) for pid in re.search("^loaders(.*)$", killed.outputs()[0], re.M)[1].split()]
    until = time.monotonic() + 300
    while is_alive(loader) and time.monotonic() < until:  # it dies with its parent
        time.sleep(0.1)
    assert not is_alive(loader)

    other_seed = Trainers([*arguments, "--out", out, "--seed", 5], tmp_path / "other", 1, use_small_shards, "encode")
    assert other_seed.wait() == [1]
    assert "unfinished feature dataset made with other seed 0 (now 5)" in other_seed.outputs()[0]

    again = Trainers([*arguments, "--out", out], tmp_path / "second", 2, print_written_shards, "encode")
    assert again.wait() == [0, 0], again.outputs()
    assert "12 of 40 clips are done" in again.outputs()[0]
    written = sorted(line for output in again.outputs() for line in output.splitlines() if line.startswith("shard "))
    assert written == [f"shard {number:06d}" for number in range(2, 7)]  # each once, by one of them
    assert files(out) == whole


def test_features_of_a_tool_are_continued_by_two_processes(clips, tmp_path):
    rng = np.random.default_rng(0)
    for row, name in enumerate(ClipDataset.open(clips).column("id")):
        if row % 10:
            tool_files.openface(tmp_path / "openface" / f"{name}.csv", 3 + row % 4, rng)
    (tmp_path / "openface" / "stranger.csv").write_text("frame, timestamp, confidence, success\n")
    words = ["--external", f"vision={tmp_path / 'openface'}", "--data", clips, "--damaged_views", 1]
    run([*words, "--out", tmp_path / "one"], tmp_path / "output", before=use_small_shards, command="encode")
    killed = Trainers([*words, "--out", tmp_path / "two"], tmp_path / "killed", 1, die_in_third_shard, "encode")
    assert killed.wait() == [-signal.SIGKILL]
    again = Trainers([*words, "--out", tmp_path / "two"], tmp_path / "again", 2, use_small_shards, "encode")
    assert again.wait() == [0, 0], again.outputs()
    assert "12 of 40 clips are done" in again.outputs()[0]
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert_fingerprints(tmp_path / "two", clips)
    assert "stranger.csv" in (tmp_path / "two" / "external.csv").read_text()


def test_damaged_shards_are_encoded_again(arguments, whole, tmp_path):
    out = tmp_path / "features"
    killed = Trainers([*arguments, "--out", out], tmp_path / "first", 1, die_in_third_shard, "encode")
    assert killed.wait() == [-signal.SIGKILL]
    _, second = sorted((out / ".partial").glob("[0-9]*.arrow"))
    second.write_bytes(second.read_bytes()[:-100])
    (out / f".features.json.{7:032x}.partial").write_text("half")

    again = Trainers([*arguments, "--out", out], tmp_path / "second", 2, print_written_shards, "encode")
    assert again.wait() == [0, 0], again.outputs()
    assert "the shards of 6 of 40 clips are damaged and written again" in again.outputs()[0]
    assert "6 of 40 clips are done" in again.outputs()[0]
    written = sorted(line for output in again.outputs() for line in output.splitlines() if line.startswith("shard "))
    assert written == [f"shard {number:06d}" for number in range(1, 7)]
    assert files(out) == whole


def print_written_shards() -> None:
    """Prints the number of each shard it writes."""
    use_small_shards()
    write = features.write_samples

    def print_and_write(path, samples, info):
        print(f"shard {path.stem}", flush=True)
        write(path, samples, info)

    features.write_samples = print_and_write


WRONG_RATE = "encoding.waveform_rate = lambda encoders, stored: 12345"  # an error in the worker process
WRITE_FAILS = """
def fail(path, samples, info):
    next(samples)
    raise RuntimeError("schema mismatch")
encode.SHARD_SIZE, features.write_samples = 2, fail
"""  # an error in the main process while the worker reads


@pytest.mark.parametrize(
    ("change", "message", "status"),
    [(WRONG_RATE, "not at 12345", 1), (WRITE_FAILS, "schema mismatch", 70)],
    ids=["in the worker", "in the main process"],
)
def test_an_error_ends_the_workers(change, message, status, arguments, tmp_path):
    words = ["encode", *(str(word) for word in arguments), "--out", str(tmp_path / "features"), "--workers", "1"]
    program = "\n".join(
        [
            "from functools import partial",
            "from shared.cli import call, run_main",
            "from stage2_fusion.commands import encode",
            "from stage2_fusion.data import encoding, features",
            change,
            f"run_main(partial(call, {words!r}))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == status and message in done.stderr
    if change is WRONG_RATE:
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert message in line and "Traceback" not in done.stderr
