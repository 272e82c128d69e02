"""Trainers as real processes, started in no time: a server holds the imports, and each process is a fork of it."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

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
        "stage1_align.data.pairs",
        "stage1_align.evaluation.retrieval",
        "stage1_align.setup",
        "stage1_align.towers.vision_open_clip",
        "stage1_align.towers.htsat",
        "stage1_align.towers.text_transformer",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torchlibrosa",
        "transformers.models.bert.modeling_bert",
    ]
)


def write_settings(path: Path, **train) -> Path:
    """The tiny towers without dropout and random depth, which differ between processes by design."""
    towers = json.loads(json.dumps(TOWERS))
    towers["audio"]["options"]["drop_path"] = 0.0
    towers["text"]["options"]["model_cfg"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    values = {"towers": {**towers, "embed_dim": 8}, "pairs": {"frames": 2}}
    values["train"] = {"epochs": 2, "batch_size": 8, "mixed_precision": "no", "trackers": [], **train}
    path.write_text(yaml.safe_dump(values))
    return path


class Trainers:
    """`emit align ARGUMENTS`, or another command, in `world` processes."""

    def __init__(self, arguments, output: Path, world: int = 1, before=None, command: str = "align"):
        """before: what each process does first, a function that can be pickled."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [command, *(str(argument) for argument in arguments)]
        self.outputs = [output.with_suffix(f".{rank}") for rank in range(world)]
        self.processes = [
            FORK.Process(target=_work, args=(arguments, path, rank, world, port, before))
            for rank, path in enumerate(self.outputs)
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = 600) -> list[int]:
        """Exit statuses, those of signals negative."""
        for process in self.processes:
            process.join(seconds)
            if process.is_alive():
                self.send(signal.SIGKILL)
                raise AssertionError(f"still running after {seconds} s: {self.said()}")
        return [process.exitcode for process in self.processes]

    def send(self, number: int) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def said(self) -> list[str]:
        return [path.read_text() if path.exists() else "" for path in self.outputs]


def run(arguments, output: Path, world: int = 1, before=None, command: str = "align") -> list[str]:
    """To its end, without error; what each process said."""
    trainers = Trainers(arguments, output, world, before, command)
    statuses = trainers.wait()
    assert statuses == [0] * world, trainers.said()
    return trainers.said()


def wait_for_step(folder: Path, step: int, seconds: float = 600) -> None:
    """Until the run has logged this step."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with_step = (folder / "log.jsonl").exists() and f'"step": {step},' in (folder / "log.jsonl").read_text()
        if with_step:
            return
        time.sleep(0.01)
    raise AssertionError(f"{folder}: no step {step} within {seconds} s")


def small_disk() -> None:
    """No file grows beyond 20 kB: a full disk, as a process sees it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def killed_in_third_save() -> None:
    """kill -9 when everything of the checkpoint of step 3 is written but its name."""
    from accelerate import Accelerator

    save = Accelerator.save_state

    def save_and_die(self, folder, *args, **kwargs):
        save(self, folder, *args, **kwargs)
        if "00000003" in folder:
            os.kill(os.getpid(), signal.SIGKILL)

    Accelerator.save_state = save_and_die


def records(folder: Path) -> list[dict]:
    """log.jsonl, without what time and memory do to it."""
    measured = ("time", "samples_per_second", "samples_per_second_per_process", "data_wait_seconds", "memory_mib")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]


def losses(folder: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in records(folder) if "loss" in record}


def digests(folder: Path) -> list[str]:
    return [json.loads((folder / name / "config.json").read_text())["digest"] for name in ("best", "last")]


def checkpoints(folder: Path) -> list[str]:
    """Names of what lies among the checkpoints, hidden partial ones included."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def _work(arguments: list[str], output: Path, rank: int, world: int, port: int, before) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    multiprocessing.set_start_method("fork", force=True)  # of a loader's workers, as where no server is
    if before:
        before()
    from shared.cli import main

    sys.argv = ["emit", *arguments]
    main()
