"""Whatever interrupts a run, the same command continues from the last checkpoint and ends like an uninterrupted run."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pickled_code import plant
from helpers.trainers import (
    ROOT,
    SpoilLosses,
    Trainers,
    checkpoints,
    digests,
    kill_in_third_save,
    limit_file_size,
    losses,
    records,
    run,
    wait_for_step,
    write_settings,
)

from shared.cli import emit_command
from stage1_align.config import PairConfig
from stage1_align.data.pairs import PairData


@pytest.fixture(scope="module")
def command(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six epochs of three steps each."""
    folder = tmp_path_factory.mktemp("settings")
    settings = write_settings(folder / "tiny.yaml", epochs=6, checkpoint_every=1)
    return ["--config", str(settings), "--data", str(clips)]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    run([*command, "--run", folder / "run"], folder / "output")
    return folder / "run"


def assert_equal_runs(folder: Path, whole: Path) -> None:
    assert records(folder) == records(whole)
    assert digests(folder) == digests(whole)
    assert [name for name in checkpoints(folder) if not name.startswith(".")] == checkpoints(whole)


def test_sigterm_to_trainer_and_workers_saves_a_checkpoint(command: list[str], whole: Path, tmp_path: Path):
    """A scheduler sends it to every process of the job."""
    arguments = [*command, "--run", str(tmp_path / "run"), "--train.workers", "2", "--train.checkpoint_every", "0"]
    process = subprocess.Popen(
        emit_command("align", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for_step(tmp_path / "run", 1)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, output
    stopped = max(losses(tmp_path / "run"))
    assert 1 <= stopped < 18 and f"stopped after step {stopped}; the same command continues from here" in output
    assert checkpoints(tmp_path / "run")[-1] == f"{stopped:08d}"
    (output,) = run(arguments, tmp_path / "output")
    assert f"after step {stopped}" in output
    assert records(tmp_path / "run") == records(whole) and digests(tmp_path / "run") == digests(whole)


def test_kill_during_a_checkpoint_leaves_the_previous_one(command: list[str], whole: Path, tmp_path: Path):
    arguments = [*command, "--run", tmp_path / "run"]
    assert Trainers(arguments, tmp_path / "output", before=kill_in_third_save).wait() == [-signal.SIGKILL]
    assert checkpoints(tmp_path / "run") == [".00000003.partial", "00000001", "00000002"]
    (output,) = run(arguments, tmp_path / "output")
    assert "after step 2" in output
    assert_equal_runs(tmp_path / "run", whole)


def test_run_folder_of_somebody_else_executes_nothing(command: list[str], whole: Path, tmp_path: Path):
    arguments = [*command, "--run", tmp_path / "run"]
    run([*arguments, "--max_optimizer_steps", 2], tmp_path / "output")
    checkpoint = tmp_path / "run" / "checkpoints" / "00000002"
    assert {path.suffix for path in checkpoint.rglob("*")} == {".safetensors", ".json"}
    plant(checkpoint, tmp_path / "executed")
    (checkpoint.parent / "00000003").mkdir()
    (checkpoint.parent / "00000003" / "progress.json").write_text('{"step": 3}')  # an earlier version's
    plant(checkpoint.parent / "00000003", tmp_path / "executed")
    trainer = Trainers(arguments, tmp_path / "output")
    assert trainer.wait() == [1]
    (line,) = (line for line in trainer.outputs()[0].splitlines() if line.startswith("error"))
    assert (
        "00000003: a checkpoint of an earlier version, which holds pickles" in line and "choose another --run" in line
    )
    assert "Traceback" not in trainer.outputs()[0]
    shutil.rmtree(checkpoint.parent / "00000003")
    run(arguments, tmp_path / "output")
    assert_equal_runs(tmp_path / "run", whole)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "checkpoint_every, message", [(1, "the checkpoint could not be written"), (0, "File too large")]
)
def test_full_disk_is_one_line_and_breaks_nothing(
    command: list[str], whole: Path, tmp_path: Path, checkpoint_every: int, message: str
):
    """While a checkpoint is written, and while the encoders are written after an epoch."""
    arguments = [*command, "--run", tmp_path / "run"]
    run([*arguments, "--max_optimizer_steps", 1], tmp_path / "output")
    before = (tmp_path / "run" / "checkpoints" / "00000001" / "model.safetensors").read_bytes()
    trainer = Trainers(
        [*arguments, "--train.checkpoint_every", checkpoint_every], tmp_path / "output", before=limit_file_size
    )
    assert trainer.wait() == [1]
    lines = trainer.outputs()[0].splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert "make room and run the same command" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert checkpoints(tmp_path / "run") == ["00000001"]
    assert not list((tmp_path / "run").glob(".*.partial"))
    assert (tmp_path / "run" / "checkpoints" / "00000001" / "model.safetensors").read_bytes() == before
    run(arguments, tmp_path / "output")
    assert_equal_runs(tmp_path / "run", whole)


def test_loss_that_is_not_finite_is_one_line_in_every_process(command: list[str], tmp_path: Path):
    arguments = [*command, "--run", tmp_path / "run"]
    trainers = Trainers(arguments, tmp_path / "output", world=2, before=SpoilLosses(0))
    assert all(trainers.wait())
    for output in trainers.outputs():
        (error,) = (line for line in output.splitlines() if line.startswith("error"))
        assert re.search("the loss is (nan|inf) at step 0", error) and "lower --train.lr" in error
        assert "Traceback" not in output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_loss_that_is_not_finite_leaves_earlier_checkpoints(command: list[str], tmp_path: Path):
    trainer = Trainers([*command, "--run", tmp_path / "run"], tmp_path / "output", before=SpoilLosses(2))
    assert trainer.wait() == [1] and "the loss is nan at step 2" in trainer.outputs()[0]
    assert list(losses(tmp_path / "run")) == [1, 2] and checkpoints(tmp_path / "run")[-1] == "00000002"


def test_batch_that_cannot_be_shared_is_refused_before_anything_starts(command: list[str], tmp_path: Path):
    arguments = [*command, "--run", tmp_path / "run", "--train.batch_size", 9]
    trainers = Trainers(arguments, tmp_path / "output", world=2)
    assert all(trainers.wait())
    for output in trainers.outputs():
        (error,) = (line for line in output.splitlines() if line.startswith("error"))
        assert error == "error: a batch of 9 cannot be shared by 2 processes: make it a multiple of 2"
    assert not (tmp_path / "run").exists()


def sample_indices(clips: Path, batch_size: int, step: int) -> list[list[int]]:
    """The global batch of a step of the first epoch."""
    data = PairData(PairConfig(frames=2), batch_size, 0, clips)
    return [list(index) for index in next(data.mixture.sample_indices(0, step, 0, 1, print))]


class RecordFirstBatch:
    """Makes each process write the sample indices of its first batch to a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self) -> None:
        from stage1_align.data.mixture import Mixture

        original = Mixture.sample_indices

        def recorded(mixture: Mixture, epoch: int, first_step: int, rank: int, *rest: Any) -> Iterator[Any]:
            batches = list(original(mixture, epoch, first_step, rank, *rest))
            self.path(rank).write_text(json.dumps(batches[0]))
            return iter(batches)

        Mixture.sample_indices = recorded

    def path(self, rank: int) -> Path:
        return self.folder / f"first_batch.{rank}.json"

    def read(self, rank: int) -> list[list[int]]:
        return json.loads(self.path(rank).read_text())


def test_run_continues_at_the_same_sample_with_another_batch_size_and_world(
    command: list[str], clips: Path, tmp_path: Path
):
    arguments, first_batch = [*command, "--run", tmp_path / "run"], RecordFirstBatch(tmp_path)
    run([*arguments, "--max_optimizer_steps", 1], tmp_path / "output")
    smaller = [*arguments, "--train.batch_size", 4, "--max_optimizer_steps", 3]
    (output,) = run(smaller, tmp_path / "output", before=first_batch)
    assert "warning: the batch size was 8 and is 4 now: the run continues at the nearest sample" in output
    assert "number of processes" not in output
    assert first_batch.read(0) == sample_indices(clips, 8, step=1)[:4]  # from sample 8 of the epoch on

    more = [*arguments, "--max_optimizer_steps", 4]
    main, other = run(more, tmp_path / "output", world=2, before=first_batch)
    assert "warning: the batch size was 4 and is 8 now" in main and "warning" not in other
    assert "warning: the number of processes was 1 and is 2 now" in main
    for rank in range(2):  # one batch of 8 and two of 4 are done: the third of 8, in halves
        assert first_batch.read(rank) == sample_indices(clips, 8, step=2)[4 * rank :][:4]
    run(arguments, tmp_path / "output")
    assert (tmp_path / "run" / "metrics.json").exists() and len(digests(tmp_path / "run")) == 2


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(command: list[str], whole: Path, tmp_path: Path):
    arguments, rng = [*command, "--run", tmp_path / "run"], np.random.default_rng(0)
    started = time.monotonic()
    run([*command, "--run", tmp_path / "timed"], tmp_path / "output")
    duration = time.monotonic() - started
    killed = 0
    for _ in range(10):
        trainer = Trainers(arguments, tmp_path / "output")
        trainer.processes[0].join(float(rng.uniform(0.1, 0.5)) * duration)
        trainer.send(signal.SIGKILL)
        (exit_code,) = trainer.wait()
        assert exit_code in (0, -signal.SIGKILL), trainer.outputs()
        killed += exit_code != 0
    assert killed >= 5
    run(arguments, tmp_path / "output")
    assert_equal_runs(tmp_path / "run", whole)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_saves_a_checkpoint(command: list[str], whole: Path, tmp_path: Path):
    pair = [*command, "--train.chunk_size", 2]
    run([*pair, "--run", tmp_path / "whole"], tmp_path / "output", world=2)
    arguments = [*pair, "--run", tmp_path / "run"]
    trainers = Trainers(arguments, tmp_path / "output", world=2)
    wait_for_step(tmp_path / "run", 2)
    os.kill(trainers.processes[1].pid, signal.SIGTERM)
    assert trainers.wait() == [128 + signal.SIGTERM] * 2, trainers.outputs()
    stopped = max(losses(tmp_path / "run"))
    assert stopped < 18 and f"stopped after step {stopped}" in trainers.outputs()[0]
    run(arguments, tmp_path / "output", world=2)
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")
    for one, two in zip(records(whole), records(tmp_path / "run"), strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-3)
