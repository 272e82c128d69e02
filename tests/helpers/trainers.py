"""Commands as real processes that start quickly: a server has imported everything, and each process is a fork of it."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from helpers.stage1_tiny import TOWERS

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "accelerate",
        "datasets",
        "librosa.core.audio",
        "librosa.filters",
        "open_clip",
        "torch.utils.tensorboard",
        "stage1_align.trainer",
        "stage1_align.towers.vision_open_clip",
        "stage1_align.towers.htsat",
        "stage1_align.towers.text_transformer",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torchlibrosa",
        "transformers.models.bert.modeling_bert",
    ]
)


def write_settings(path: Path, **train: Any) -> Path:
    """A configuration of tiny towers without dropout and stochastic depth, which are drawn per process."""
    towers = json.loads(json.dumps(TOWERS))
    towers["audio"]["options"]["drop_path"] = 0.0
    towers["text"]["options"]["model_cfg"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    values = {"towers": {**towers, "embed_dim": 8}, "pairs": {"frames": 2}}
    values["train"] = {"epochs": 2, "batch_size": 8, "mixed_precision": "no", "trackers": [], **train}
    path.write_text(yaml.safe_dump(values))
    return path


class Trainers:
    """`emit COMMAND ARGUMENTS` in `world` processes of one group."""

    def __init__(
        self,
        arguments: Iterable[Any],
        output: Path,
        world: int = 1,
        before: Callable[[], None] | None = None,
        command: str = "align",
    ):
        """output: where process r writes its stdout and stderr, with the suffix .r. before: runs first in each process;
        it is pickled."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [command, *(str(argument) for argument in arguments)]
        self.paths = [output.with_suffix(f".{rank}") for rank in range(world)]
        self.processes = [
            FORK.Process(target=_work, args=(words, path, rank, world, port, before))
            for rank, path in enumerate(self.paths)
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = 600) -> list[int | None]:
        """Exit codes; that of a process killed by a signal is negative."""
        for process in self.processes:
            process.join(seconds)
            if process.is_alive():
                self.send(signal.SIGKILL)
                raise AssertionError(f"still running after {seconds} s: {self.outputs()}")
        return [process.exitcode for process in self.processes]

    def send(self, number: int) -> None:
        """Send a signal to the processes that are alive."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def outputs(self) -> list[str]:
        """What each process has written so far."""
        return [path.read_text() if path.exists() else "" for path in self.paths]


def run(
    arguments: Iterable[Any],
    output: Path,
    world: int = 1,
    before: Callable[[], None] | None = None,
    command: str = "align",
) -> list[str]:
    """Run to the end; every process must succeed. Returns the output of each."""
    trainers = Trainers(arguments, output, world, before, command)
    exit_codes = trainers.wait()
    assert exit_codes == [0] * world, trainers.outputs()
    return trainers.outputs()


def wait_for_step(folder: Path, step: int, seconds: float = 600) -> None:
    """Wait until the run has logged this step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        log = folder / "log.jsonl"
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{folder}: no step {step} within {seconds} s")


def limit_file_size() -> None:
    """No file can grow beyond 20 kB, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def kill_in_third_save() -> None:
    """SIGKILL when the checkpoint of step 3 is written but does not have its final name."""
    from shared.training import checkpoint

    write = checkpoint.write

    def write_and_die(folder: Path, state: checkpoint.TrainState) -> None:
        write(folder, state)
        if "00000003" in folder.name:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.write = write_and_die


class SpoilLosses:
    """Makes all losses NaN from the given optimizer step of the process on."""

    def __init__(self, step: int):
        self.step = step

    def __call__(self) -> None:
        from stage1_align.model import ContrastiveModel

        original, calls = ContrastiveModel.losses, []

        def losses(model: ContrastiveModel, *arguments: Any) -> dict[str, Any]:
            calls.append(1)
            spoil = float("nan") if len(calls) > self.step else 1.0
            return {name: value * spoil for name, value in original(model, *arguments).items()}

        ContrastiveModel.losses = losses


def records(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl without measurements of time and memory."""
    measured = ("time", "samples_per_second", "samples_per_second_per_process", "data_wait_seconds", "memory_mib")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]


def losses(folder: Path) -> dict[int, float]:
    """Step to loss."""
    return {record["step"]: record["loss"] for record in records(folder) if "loss" in record}


def digests(folder: Path) -> list[str]:
    """Of the best and the last encoders of a run."""
    return [json.loads((folder / name / "config.json").read_text())["digest"] for name in ("best", "last")]


def checkpoints(folder: Path) -> list[str]:
    """Names of all files among the checkpoints, partial ones included."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def _work(words: list[str], output: Path, rank: int, world: int, port: int, before: Callable[[], None] | None) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, as outside of a fork server
    if before:
        before()
    from shared.cli import main

    sys.argv = ["emit", *words]
    main()
