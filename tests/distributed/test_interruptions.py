"""Whatever ends a run, the same command goes on from the last checkpoint, and ends where an uninterrupted run does."""

import json
import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers.trainers import (
    ROOT,
    Trainers,
    checkpoints,
    digests,
    killed_in_third_save,
    losses,
    records,
    run,
    small_disk,
    wait_for_step,
    write_settings,
)

from shared.cli import emit_command
from stage1_align.config import PairConfig
from stage1_align.data.pairs import PairData


@pytest.fixture(scope="module")
def command(clips, tmp_path_factory):
    """Six epochs of three steps each."""
    folder = tmp_path_factory.mktemp("settings")
    settings = write_settings(folder / "tiny.yaml", epochs=6, checkpoint_every=1)
    return ["--config", str(settings), "--data", str(clips)]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    run([*command, "--run", folder / "run"], folder / "said")
    return folder / "run"


def same(folder, whole) -> None:
    assert records(folder) == records(whole)
    assert digests(folder) == digests(whole)
    assert [name for name in checkpoints(folder) if not name.startswith(".")] == checkpoints(whole)


def test_sigterm_to_every_process_saves_and_the_same_command_goes_on(command, whole, tmp_path):
    """To the trainer and its loader's workers alike, as a scheduler sends it."""
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
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    stopped = max(losses(tmp_path / "run"))
    assert 1 <= stopped < 18 and f"stopped after step {stopped}; the same command continues from here" in said
    assert checkpoints(tmp_path / "run")[-1] == f"{stopped:08d}"
    (said,) = run(arguments, tmp_path / "said")
    assert f"after step {stopped}" in said
    assert records(tmp_path / "run") == records(whole) and digests(tmp_path / "run") == digests(whole)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(command, whole, tmp_path):
    arguments = [*command, "--run", tmp_path / "run"]
    assert Trainers(arguments, tmp_path / "said", before=killed_in_third_save).wait() == [-signal.SIGKILL]
    assert checkpoints(tmp_path / "run") == [".00000003.partial", "00000001", "00000002"]
    (said,) = run(arguments, tmp_path / "said")
    assert "after step 2" in said
    same(tmp_path / "run", whole)


@pytest.mark.parametrize("every, what", [(1, "the checkpoint could not be written"), (0, "File too large")])
def test_a_full_disk_is_one_line_and_leaves_nothing_broken(command, whole, tmp_path, every, what):
    """Met in a checkpoint, and in the encoders after an epoch."""
    arguments = [*command, "--run", tmp_path / "run"]
    run([*arguments, "--max_optimizer_steps", 1], tmp_path / "said")
    before = (tmp_path / "run" / "checkpoints" / "00000001" / "model.safetensors").read_bytes()
    trainer = Trainers([*arguments, "--train.checkpoint_every", every], tmp_path / "said", before=small_disk)
    assert trainer.wait() == [1]
    told = trainer.said()[0].splitlines()
    assert told[-1].startswith("error: ") and what in told[-1] and "make room and run the same command" in told[-1]
    assert not any("Traceback" in line for line in told)
    assert checkpoints(tmp_path / "run") == ["00000001"]
    assert not list((tmp_path / "run").glob(".*"))
    assert (tmp_path / "run" / "checkpoints" / "00000001" / "model.safetensors").read_bytes() == before
    run(arguments, tmp_path / "said")
    same(tmp_path / "run", whole)


def test_a_loss_that_is_no_number_is_one_line_on_every_process(command, tmp_path):
    arguments = [*command, "--run", tmp_path / "run"]
    spoilt = ["--loss.kind", "sigmoid", "--loss.initial_bias", "1e39"]  # more than a float holds
    trainers = Trainers([*arguments, *spoilt], tmp_path / "said", world=2)
    assert all(trainers.wait())
    for said in trainers.said():
        (error,) = (line for line in said.splitlines() if line.startswith("error"))
        assert re.search("the loss is (nan|inf) at step 0", error) and "lower --train.lr" in error
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_is_no_number_leaves_the_checkpoints_before_it(command, tmp_path):
    """The learning rate that spoils the weights is reached in the second step."""
    arguments = [*command, "--run", tmp_path / "run", "--train.lr", "1e38", "--train.max_grad_norm", "1e9"]
    trainer = Trainers(arguments, tmp_path / "said")
    assert trainer.wait() == [1] and "the loss is nan at step" in trainer.said()[0]
    steps = len(losses(tmp_path / "run"))
    assert steps >= 1 and checkpoints(tmp_path / "run")[-1] == f"{steps:08d}"


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(command, tmp_path):
    arguments = [*command, "--run", tmp_path / "run", "--train.batch_size", 9]
    trainers = Trainers(arguments, tmp_path / "said", world=2)
    assert all(trainers.wait())
    for said in trainers.said():
        (error,) = (line for line in said.splitlines() if line.startswith("error"))
        assert error == "error: a batch of 9 cannot be shared by 2 processes: make it a multiple of 2"
    assert not (tmp_path / "run").exists()


def addresses(clips, batch_size, rank=0, world=1, first=0):
    data = PairData(PairConfig(frames=2), batch_size, 0, clips)
    return next(data.mixture.sample_indices(0, first, rank, world, print))


SEEN = "addresses.json"


def noting_first_batches() -> None:
    """Each process writes down the addresses of its first batch."""
    from stage1_align.data.mixture import Mixture

    draw = Mixture.sample_indices

    def noted(self, epoch, first_step, rank, world, report):
        found = list(draw(self, epoch, first_step, rank, world, report))
        folder = os.environ.get("EMIT_TEST_SEEN")
        with open(f"{folder}/{SEEN}.{rank}", "w") as file:
            json.dump(found[0], file)
        return iter(found)

    Mixture.sample_indices = noted


class Noting:
    """`noting_first_batches` into a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __call__(self):
        os.environ["EMIT_TEST_SEEN"] = self.folder
        noting_first_batches()


def test_another_batch_size_or_number_of_processes_is_told_and_goes_on_at_the_same_sample(command, clips, tmp_path):
    arguments = [*command, "--run", tmp_path / "run"]
    run([*arguments, "--max_optimizer_steps", 1], tmp_path / "said")
    again = [*arguments, "--train.batch_size", 4, "--max_optimizer_steps", 3]
    (said,) = run(again, tmp_path / "said", before=Noting(tmp_path))
    assert "warning: the batch size was 8 and is 4 now: the run continues at the nearest sample" in said
    assert "number of processes" not in said
    first = json.loads((tmp_path / f"{SEEN}.0").read_text())
    assert first == [list(address) for address in addresses(clips, 8, first=1)[:4]]  # sample 8 of the epoch and on

    said, quiet = run([*arguments, "--max_optimizer_steps", 4], tmp_path / "said", world=2, before=Noting(tmp_path))
    assert "warning: the batch size was 4 and is 8 now" in said and "warning" not in quiet
    assert "warning: the number of processes was 1 and is 2 now" in said
    for rank in range(2):  # after 1 batch of 8 and 2 of 4: the third of 8, in halves
        first = json.loads((tmp_path / f"{SEEN}.{rank}").read_text())
        assert first == [list(address) for address in addresses(clips, 8, first=2)[4 * rank :][:4]]
    run(arguments, tmp_path / "said")
    assert (tmp_path / "run" / "metrics.json").exists() and len(digests(tmp_path / "run")) == 2


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_nothing(command, whole, tmp_path):
    arguments, rng = [*command, "--run", tmp_path / "run"], np.random.default_rng(0)
    began = time.monotonic()
    run([*command, "--run", tmp_path / "timed"], tmp_path / "said")
    length = time.monotonic() - began
    killed = 0
    for _ in range(10):
        trainer = Trainers(arguments, tmp_path / "said")
        trainer.processes[0].join(float(rng.uniform(0.1, 0.5)) * length)
        trainer.send(signal.SIGKILL)
        (status,) = trainer.wait()
        assert status in (0, -signal.SIGKILL), trainer.said()
        killed += status != 0
    assert killed >= 5
    run(arguments, tmp_path / "said")
    same(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_processes_survive_sigterm_and_equal_the_uninterrupted_two(command, whole, tmp_path):
    pair = [*command, "--train.chunk_size", 2]
    run([*pair, "--run", tmp_path / "whole"], tmp_path / "said", world=2)
    arguments = [*pair, "--run", tmp_path / "run"]
    trainers = Trainers(arguments, tmp_path / "said", world=2)
    wait_for_step(tmp_path / "run", 2)
    os.kill(trainers.processes[1].pid, signal.SIGTERM)  # one of them is enough
    assert trainers.wait() == [0, 0], trainers.said()
    stopped = max(losses(tmp_path / "run"))
    assert stopped < 18 and f"stopped after step {stopped}" in trainers.said()[0]
    run(arguments, tmp_path / "said", world=2)
    same(tmp_path / "run", tmp_path / "whole")
    for one, two in zip(records(whole), records(tmp_path / "run"), strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-3)
