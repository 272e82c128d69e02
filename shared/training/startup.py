"""The start of a training run, the same in both stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from shared.errors import UserError
from shared.files import read_object, write_json
from shared.terminal.messages import note
from shared.training.distributed import set_precision, start_accelerator
from shared.training.launcher import PRECISIONS
from shared.training.memory import keep_freed_memory
from shared.training.precision import depends_on_model, resolve_precision
from shared.training.run_folder import RunFolder
from shared.training.sampling import local_rows

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainerConfig(Protocol):
    """The common part of a trainer's configuration."""

    run: Path
    train: Any
    """With batch_size, max_grad_norm, mixed_precision and trackers."""


def start_run(
    config: TrainerConfig,
    mutable: tuple[str, ...],
    keep_last: int = 2,
    timeout_minutes: float = 30.0,
    **made_from: str,
) -> RunFolder:
    """Start an Accelerator and reserve the run folder. Freed memory stays with this process (memory.py).

    mutable, made_from: as in RunFolder.claim. UserError, before anything is written, if the Accelerator cannot start
    with these options, or if the processes cannot share a batch evenly; also if the folder belongs to another run."""
    keep_freed_memory()
    options = config.train
    accelerator = start_accelerator(options.mixed_precision, options.trackers, config.run, timeout_minutes)
    _say_clipping(accelerator, options.max_grad_norm)
    local_rows(options.batch_size, accelerator.process_index, accelerator.num_processes)
    run = RunFolder(config.run, accelerator, keep_last)
    run.claim(config, mutable, **made_from)
    return run


def settle_precision(run: RunFolder, value: str, model: nn.Module) -> None:
    """Resolve `--train.mixed_precision auto` for this run and write it to its made_from.json, so that a resumed run
    keeps it on any processor. Every process must call this before accelerator.prepare.

    value: the option; any value except auto is final. model: the model to train. UserError if the run cannot continue
    as it was started. DeepSpeed keeps the precision that it was launched with.
    """
    from accelerate.utils import broadcast_object_list

    accelerator = run.accelerator
    if value != "auto" or accelerator.state.deepspeed_plugin:
        return
    chosen = [_recorded_precision(run, model)] if run.is_main else [""]
    if accelerator.num_processes > 1:  # if processors differ, the main process decides
        broadcast_object_list(chosen)
    precision, launched = chosen[0], accelerator.mixed_precision
    if precision == launched:
        return
    if "fp16" in (precision, launched):
        raise UserError(
            f"{run.path}: this run was started with mixed precision {precision}, and is launched with {launched}; "
            f"launch it with {precision}, or choose another --run"
        )
    set_precision(accelerator, precision)


def _recorded_precision(run: RunFolder, model: nn.Module) -> str:
    """The precision in made_from.json; for a new run, it is decided here and written there."""
    path = run.path / "made_from.json"
    recorded = read_object(path, "run", "choose another --run")
    launched = run.accelerator.mixed_precision
    precision = recorded.get("precision")
    if precision is None:
        new = run.latest() is None  # a checkpoint without it is of an earlier version, which did not look at the model
        decide = new and depends_on_model("auto")
        precision = resolve_precision("--train.mixed_precision", "auto", model=model) if decide else launched
        write_json(path, recorded | {"precision": precision})
    elif precision not in PRECISIONS:
        raise UserError(f"{path}: precision is {precision!r:.40}, not one of {', '.join(PRECISIONS)}")
    elif precision != launched and not depends_on_model("auto"):
        note(f"note: {run.path} was started with mixed precision {precision}, and continues with it")
    return precision


def _say_clipping(accelerator: "Accelerator", max_grad_norm: float) -> None:
    """Print a note if DeepSpeed, which clips gradients itself, uses another norm than the option."""
    plugin = accelerator.state.deepspeed_plugin
    clipping = plugin.deepspeed_config.get("gradient_clipping") if plugin else None
    if clipping not in (None, "auto", max_grad_norm):
        note(
            f"note: DeepSpeed clips gradients to {clipping}, as the launcher's configuration says; "
            f"--train.max_grad_norm {max_grad_norm} has no effect"
        )
