"""The folder of a training run: its identity, its log, its checkpoints."""

import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from safetensors import SafetensorError

from shared.config import defaults, dump, load_yaml, to_dict
from shared.errors import UserError
from shared.files import read_object, write_json, write_text
from shared.text import one_line
from shared.training import checkpoint
from shared.training.checkpoint import TrainState
from shared.training.distributed import hold_together, is_peer_failure


@dataclass
class Progress:
    """The progress of a run: the content of progress.json. Each trainer adds fields."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """Epochs done."""


P = TypeVar("P", bound=Progress)


class RunFolder:
    """One training run on disk.

    config.yaml                the resolved configuration; `--config` accepts it
    log.jsonl                  one line per logged step or epoch
    (trackers)                 what Accelerate's trackers write, such as TensorBoard's event files
    checkpoints/00000120/      the state after this step (checkpoint.py); the last `keep_last` of them
    made_from.json             digests of the data; with config.yaml, they protect the folder from another run. Also the
                               precision chosen for `auto` at the start (startup.py)
    metrics.json               exists when the run is finished
    .lock                      one process at a time trains here (shared/locks.py)
    """

    def __init__(self, path: Path, accelerator: Accelerator, keep_last: int = 2):
        self.path, self.accelerator, self.keep_last = Path(path), accelerator, keep_last
        self.is_main = accelerator.is_main_process
        self.finished = False
        if self.is_main:
            self.path.mkdir(parents=True, exist_ok=True)

    def claim(self, config: Any, mutable: tuple[str, ...] = (), **made_from: str) -> None:
        """Reserve the folder for a run of `config` on data with the given digests, or recognize this run; then
        `finished` says whether it is finished. UserError names the difference if the folder belongs to another run, or
        the process that is training in it.

        mutable: options, such as "train.workers", that may change on resumption."""
        if not (self.path / "metrics.json").exists():
            hold_together(self.accelerator, self.path, self.path)
        path = self.path / "made_from.json"
        started = self.latest() is not None or (self.path / "metrics.json").exists()
        if path.exists() and started:  # a run that failed before its first checkpoint left nothing to protect
            recorded = read_object(path, "run", "choose another --run")
            differing = [name for name in made_from if made_from[name] != recorded.get(name)]
            changed = self._changed_options(config, ("run", "data", *mutable))
            if differing or changed:
                what = differing[0] if differing else f"configuration ({changed})"
                raise UserError(f"{self.path}: this run was started with another {what}; choose another --run")
        elif self.is_main:
            dump(config, self.path / "config.yaml")
            write_json(path, made_from)
        self.finished = (self.path / "metrics.json").exists()
        if not self.finished and self.accelerator.log_with:
            self.accelerator.init_trackers("emit", config=_flatten(to_dict(config)))

    def _changed_options(self, config: Any, mutable: tuple[str, ...]) -> str:
        """The options that differ from config.yaml, in words. An option missing from a file of an earlier version had
        its default."""
        default, current = _flatten(defaults(type(config))), _flatten(to_dict(config))
        recorded = _flatten(load_yaml(self.path / "config.yaml", "choose another --run"))
        before = {name: recorded.get(name, default.get(name)) for name in recorded | current}
        names = [name for name in sorted(before) if before[name] != current.get(name)]
        names = [name for name in names if not any(f"{name}.".startswith(f"{prefix}.") for prefix in mutable)]
        changes = [f"{name} was {before[name]}, is {current.get(name, 'no option')}" for name in names]
        return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")

    def log(self, step: int, **values: Any) -> None:
        """Append a line to log.jsonl, and send its numbers to the trackers."""
        if not self.is_main:
            return
        record = {"step": step, "time": round(time.time(), 3), **values}
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        self.accelerator.log(numbers, step=step)

    def save(self, progress: Progress, state: TrainState) -> None:
        """Write checkpoints/<step>/ atomically and delete the oldest ones; every process must call this. UserError if
        it cannot be written; earlier checkpoints then stay unchanged."""
        target = self.path / "checkpoints" / f"{progress.step:08d}"
        partial = target.with_name(f".{target.name}.partial")
        try:
            if self.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            checkpoint.write(partial, state)
            self.accelerator.wait_for_everyone()
            if self.is_main:
                checkpoint.complete(partial, progress)
                _replace(target, partial)
        except (OSError, RuntimeError, SafetensorError) as error:  # each library reports a full disk in its own way
            if is_peer_failure(error):
                raise
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"{target}: the checkpoint could not be written ({one_line(error, 160)}); make room and run the same "
                f"command again, it continues from {self.latest() or 'the beginning'}"
            ) from None
        if self.is_main:
            for old in sorted(target.parent.glob("[0-9]*"))[: -self.keep_last]:
                shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        complete = self._complete()
        return complete[-1] if complete else None

    def _complete(self) -> list[Path]:
        """All complete checkpoints, from the oldest to the newest, including those of earlier versions."""
        return [path.parent for path in sorted((self.path / "checkpoints").glob("[0-9]*/progress.json"))]

    def resume(self, progress_class: type[P], state: TrainState) -> P:
        """Load the newest checkpoint into `state` and return its progress; without a checkpoint, the progress of a new
        run. UserError if it is damaged or from an earlier version."""
        complete = self._complete()
        if not complete:
            if self.is_main:
                self._truncate_log(-1)
            return progress_class()
        before = f"continue from {complete[-2].name}" if len(complete) > 1 else "start again"
        remedy = f"delete this checkpoint folder and run the same command again, to {before}"
        progress = checkpoint.read(complete[-1], state, progress_class, remedy)
        if self.is_main:
            self._truncate_log(progress.step)
        return progress

    def _truncate_log(self, step: int) -> None:
        """Remove the lines after `step` from log.jsonl: a killed run logged them after its last checkpoint, and the
        resumed run will log them again."""
        log = self.path / "log.jsonl"
        if log.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(log, "".join(f"{line}\n" for line in lines if _step(line) <= step))

    def close(self) -> None:
        """Finish the trackers. (`accelerator.end_training` would also destroy the process group, which the caller may
        still need.)"""
        for tracker in self.accelerator.trackers if self.is_main else ():
            tracker.finish()


def _replace(target: Path, written: Path) -> None:
    """Give a complete checkpoint its name. An existing one, from a run that stopped during validation, is deleted last,
    so that a complete checkpoint exists at any moment."""
    name = target
    while name.exists():
        name = name.with_name(f"{name.name}_")  # sorts after the old one
    written.rename(name)
    if name != target:
        for old in target.parent.glob(f"{target.name}*"):
            if old != name:
                shutil.rmtree(old)
        name.rename(target)


def _step(line: str) -> float:
    """The step in a line of log.jsonl; infinity for a damaged line, such as the last one of a killed run."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int | float) else math.inf


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as dotted names, with values of types that trackers accept."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
