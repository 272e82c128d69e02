"""What both trainers share: seeds, the run folder, checkpoints, trackers, schedules, averages."""

import contextlib
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from shared.config import defaults, dump, load_yaml, to_dict
from shared.errors import UserError
from shared.files import read_json, write_json, write_text
from shared.text import one_line
from shared.training.distributed import lost_companion
from shared.training.sampling import derive_seed

# --- randomness ----------------------------------------------------------------------------------------------------


def seed_everything(*parts: int | str) -> None:
    """Set every generator from `parts`. Called at each step with (seed, epoch, step), so a resumed run needs no saved
    generator state."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# --- the run folder ------------------------------------------------------------------------------------------------


class RunFolder:
    """One training run on disk.

    config.yaml                the resolved configuration; `--config` takes it
    log.jsonl                  one line per logged step or epoch
    (trackers)                 whatever Accelerate's trackers write, such as TensorBoard's curves
    checkpoints/00000120/      whatever `accelerator.save_state` writes, plus progress.json; the newest `keep` of them
    made_from.json             digests of the data; they and config.yaml keep another run out of the folder
    metrics.json               there when the run is finished
    """

    def __init__(self, path: Path, accelerator, keep: int = 2):
        self.path, self.accelerator, self.keep = Path(path), accelerator, keep
        self.is_main = accelerator.is_main_process
        if self.is_main:
            self.path.mkdir(parents=True, exist_ok=True)

    def claim(self, config: Any, free: tuple[str, ...] = (), **made_from: str) -> bool:
        """Take the folder for a run of `config` on data of the given digests, or recognise it; UserError when it is
        another run's, with what differs. Returns whether that run is finished.

        free: options, as in "train.workers", that may change between the parts of one run."""
        path = self.path / "made_from.json"
        started = self.latest() is not None or (self.path / "metrics.json").exists()
        if path.exists() and started:  # a run that failed before its first checkpoint left nothing to protect
            theirs = read_json(path, "run", "choose another --run")
            others = [what for what in made_from if made_from[what] != theirs.get(what)]
            changed = self._changed(config, ("run", "data", "max_steps", *free))
            if others or changed:
                what = others[0] if others else f"configuration ({changed})"
                raise UserError(f"{self.path}: this run was started with another {what}; choose another --run")
        elif self.is_main:
            dump(config, self.path / "config.yaml")
            write_json(path, made_from)
        finished = (self.path / "metrics.json").exists()
        if not finished and self.accelerator.log_with:
            self.accelerator.init_trackers("emit", config=_flat(to_dict(config)))
        return finished

    def _changed(self, config: Any, free: tuple[str, ...]) -> str:
        """Options other than those of config.yaml, in words. One that was not there yet had its default."""
        standard, mine = _flat(defaults(type(config))), _flat(to_dict(config))
        theirs = _flat(load_yaml(self.path / "config.yaml", "choose another --run"))
        before = {name: theirs.get(name, standard.get(name)) for name in theirs | mine}
        names = [name for name in sorted(before) if before[name] != mine.get(name)]
        names = [name for name in names if not any(f"{name}.".startswith(f"{one}.") for one in free)]
        said = [f"{name} was {before[name]}, is {mine.get(name, 'no option')}" for name in names]
        return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")

    def log(self, step: int, **values: Any) -> None:
        """Append to log.jsonl; numbers reach the trackers too."""
        if not self.is_main:
            return
        record = {"step": step, "time": round(time.time(), 3), **values}
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        self.accelerator.log(numbers, step=step)

    def save(self, progress: dict) -> None:
        """Write checkpoints/<step>/ atomically (every process calls this) and drop the oldest ones. UserError when it
        cannot be written; the checkpoints before it are left as they are."""
        target = self.path / "checkpoints" / f"{progress['step']:08d}"
        partial = target.with_name(f".{target.name}.partial")
        try:
            if self.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(partial))
            self.accelerator.wait_for_everyone()
            if self.is_main:
                write_json(partial / "progress.json", progress)
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
        except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own word for a full disk
            if lost_companion(error):
                raise  # not the disk
            shutil.rmtree(partial, ignore_errors=True)
            last = self.latest()
            reason = one_line(error, 160)
            raise UserError(
                f"{target}: the checkpoint could not be written ({reason}); make room and run the same command again, "
                f"it goes on from {last or 'the beginning'}"
            ) from None
        if self.is_main:
            for old in sorted(target.parent.glob("[0-9]*"))[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        found = sorted((self.path / "checkpoints").glob("[0-9]*/progress.json"))
        return found[-1].parent if found else None

    def resume(self) -> dict | None:
        """Load the newest checkpoint into what was prepared; its progress, or None when there is nothing to resume."""
        latest = self.latest()
        if latest is None:
            if self.is_main:
                self._forget_after(-1)
            return None
        progress = read_json(latest / "progress.json", "checkpoint", "delete this checkpoint folder and start again")
        self.accelerator.load_state(str(latest))
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
        """Let the trackers finish. Accelerate would end the group of processes as well; that is left to the caller."""
        for tracker in self.accelerator.trackers if self.is_main else ():
            tracker.finish()


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested options under dotted names, as plain as trackers want them."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat


# --- batches ---------------------------------------------------------------------------------------------------------


def to_device(batch: Any, device) -> Any:
    """The same batch, however nested in dictionaries, with every tensor on `device`; pinned ones reach a GPU while it
    works on."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return batch.to(device, non_blocking=batch.is_pinned()) if isinstance(batch, torch.Tensor) else batch


# --- schedules and averages ----------------------------------------------------------------------------------------


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """The factor of the learning rate at `step`: linear from 0 to 1 over `warmup` steps, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / max(1, warmup)
    done = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


class Ema(torch.nn.Module):
    """An exponential moving average of a model's floating-point state (Polyak averaging), by a decay that grows with
    the step, so that the first weights are soon forgotten: min(decay, (1 + step) / (10 + step)). Frozen parameters are
    left out. Made of a model that is on its device, and spread (FSDP), already."""

    def __init__(self, model: torch.nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        state = model.state_dict().items()
        self.values = {name: value.detach().clone() for name, value in state if name not in frozen}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        pairs = [(own, state[name]) for name, own in self.values.items()]
        whole = [pair for pair in pairs if pair[0].is_floating_point() and not _is_spread(pair[0])]
        if whole:
            torch._foreach_lerp_([own for own, _ in whole], [value for _, value in whole], weight)
        for own, value in pairs:
            if not own.is_floating_point():
                own.copy_(value)
            elif _is_spread(own):
                own.lerp_(value, weight)

    def state_dict(self, *args, **kwargs) -> dict:
        """Whole, however the model is spread: every process calls this."""
        return {name: value.full_tensor() if _is_spread(value) else value for name, value in self.values.items()}

    def load_state_dict(self, state: dict, *args, **kwargs) -> None:
        for name, own in self.values.items():
            value = state[name].to(own.device)
            if _is_spread(own):
                value = torch.distributed.tensor.distribute_tensor(value, own.device_mesh, own.placements)
            own.copy_(value)

    @contextlib.contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[None]:
        """The averaged values stand in for the model's own inside the block."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items() if name in self.values}
        model.load_state_dict(self.values, strict=False)  # strict would ask for the frozen ones
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


def _is_spread(value: torch.Tensor) -> bool:
    """Whether this process holds only a part of it (a DTensor)."""
    return hasattr(value, "full_tensor")
