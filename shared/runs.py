"""What both trainers share: starting Accelerate, the run folder, atomic writes, checkpoints, schedules, averages."""

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.config import dump, to_dict
from shared.errors import UserError
from shared.files import digest, read_json, write_json, write_text
from shared.order import derive_seed

# --- randomness ----------------------------------------------------------------------------------------------------


def seed_everything(*parts: int | str) -> None:
    """Set every generator from `parts`. Called at each step with (seed, epoch, step), so a resumed run needs no saved
    generator state."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# --- Accelerate ----------------------------------------------------------------------------------------------------


def start(mixed_precision: str):
    """An Accelerator on the GPUs there are, or else on the CPU. Refuses to run as one process when the launcher was
    asked for several (`accelerate launch --cpu --num_processes 2` starts one, silently)."""
    from accelerate import Accelerator

    if mixed_precision == "auto":  # the launcher's word, where it gives one; else what the hardware is good at
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        mixed_precision = launcher if launcher in ("bf16", "fp16") else "bf16" if fast_bf16() else "no"
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=mixed_precision,
    )
    asked = _processes_asked_for()
    if accelerator.num_processes == 1 and asked > 1:
        raise UserError(
            f"{asked} processes were asked for but one was started: on a CPU use "
            "`accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml ...`"
        )
    return accelerator


def fast_bf16() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


def _processes_asked_for() -> int:
    """The process count in the command line of the `accelerate launch` that is our parent; 1 when there is none."""
    import psutil
    import yaml

    with contextlib.suppress(psutil.Error, OSError):
        words = psutil.Process().parent().cmdline()
        script = "launch" in words and any(Path(word).name == "accelerate" for word in words)
        if not script and "accelerate.commands.launch" not in words:
            return 1
        for name, following in zip(words, [*words[1:], ""], strict=True):
            key, _, value = name.partition("=")
            value = value or following
            if key in ("--num_processes", "--num-processes") and value.isdigit():
                return int(value)
            if key in ("--config_file", "--config-file") and Path(value).is_file():
                return int((yaml.safe_load(Path(value).read_text()) or {}).get("num_processes") or 1)
    return 1


# --- the run folder ------------------------------------------------------------------------------------------------


class RunFolder:
    """One training run on disk.

    config.yaml                the resolved configuration; `--config` takes it
    log.jsonl                  one line per logged step or epoch
    tensorboard/               the same, as curves
    checkpoints/000120/        whatever `accelerator.save_state` writes, plus progress.json; the newest `keep` of them
    made_from.json             digests of configuration and data; another run is kept out of the folder by them
    metrics.json               there when the run is finished
    """

    def __init__(self, path: Path, is_main: bool, keep: int = 2):
        self.path, self.is_main, self.keep = Path(path), is_main, keep
        self._board = None
        if is_main:
            self.path.mkdir(parents=True, exist_ok=True)

    def claim(self, config: Any, **made_from: str) -> bool:
        """Take the folder for a run of `config` on data of the given digests, or recognise it; UserError when it is
        another run's. Returns whether that run is finished."""
        values = {name: value for name, value in to_dict(config).items() if name not in ("run", "data", "max_steps")}
        mine = {"configuration": digest(values), **made_from}
        path = self.path / "made_from.json"
        if path.exists():
            theirs = read_json(path, "run", "choose another --run")
            for what in mine:
                if mine[what] != theirs.get(what):
                    raise UserError(f"{self.path}: this run was started with another {what}; choose another --run")
        elif self.is_main:
            dump(config, self.path / "config.yaml")
            write_json(path, mine)
        return (self.path / "metrics.json").exists()

    def log(self, step: int, **values: Any) -> None:
        """Append to log.jsonl and TensorBoard; numbers only reach TensorBoard."""
        if not self.is_main:
            return
        record = {"step": step, "time": round(time.time(), 3), **values}
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self.path / "tensorboard")
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._board.add_scalar(name, value, step)

    def save(self, accelerator, progress: dict) -> None:
        """Write checkpoints/<step>/ atomically (every process calls this) and drop the oldest ones."""
        target = self.path / "checkpoints" / f"{progress['step']:08d}"
        partial = target.with_name(f".{target.name}.partial")
        if self.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if not self.is_main:
            return
        write_json(partial / "progress.json", progress)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for old in sorted(target.parent.glob("[0-9]*"))[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        found = sorted((self.path / "checkpoints").glob("[0-9]*/progress.json"))
        return found[-1].parent if found else None

    def resume(self, accelerator) -> dict | None:
        """Load the newest checkpoint into what was prepared; its progress, or None when there is nothing to resume."""
        latest = self.latest()
        if latest is None:
            return None
        progress = read_json(latest / "progress.json", "checkpoint", "delete this checkpoint folder and start again")
        accelerator.load_state(str(latest))
        if self.is_main:
            self._forget_after(progress["step"])
        return progress

    def _forget_after(self, step: int) -> None:
        """Drop from log.jsonl what a killed run logged after its last checkpoint: it will be logged again."""
        log = self.path / "log.jsonl"
        if log.exists():
            complete = [line for line in log.read_text().splitlines() if line.endswith("}")]
            write_text(log, "".join(f"{line}\n" for line in complete if json.loads(line)["step"] <= step))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


# --- schedules and averages ----------------------------------------------------------------------------------------


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """The factor of the learning rate at `step`: linear from 0 to 1 over `warmup` steps, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / max(1, warmup)
    done = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


class Ema(torch.nn.Module):
    """An exponential moving average of a model's floating-point state (Polyak averaging), bias-corrected by a decay
    that grows with the step: min(decay, (1 + step) / (10 + step))."""

    def __init__(self, model: torch.nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def state_dict(self, *args, **kwargs) -> dict:
        return dict(self.values)

    def load_state_dict(self, state: dict, *args, **kwargs) -> None:
        for name, value in state.items():
            self.values[name].copy_(value)

    @contextlib.contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[None]:
        """The averaged values stand in for the model's own inside the block."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.values)
        try:
            yield
        finally:
            model.load_state_dict(own)
