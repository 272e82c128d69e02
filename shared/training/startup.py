"""The start of a training run, the same in both stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shared.terminal.messages import note
from shared.training.distributed import start_accelerator
from shared.training.run_folder import RunFolder
from shared.training.sampling import local_rows

if TYPE_CHECKING:
    from accelerate import Accelerator


class TrainerConfig(Protocol):
    """What the configuration of a trainer has."""

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
    """Start an Accelerator and reserve the run folder.

    mutable, made_from: as in RunFolder.claim. UserError, before anything is written, when the Accelerator does not
    start as the options say, or when the processes cannot share a batch evenly; and when the folder belongs to another
    run."""
    options = config.train
    accelerator = start_accelerator(options.mixed_precision, options.trackers, config.run, timeout_minutes)
    _say_clipping(accelerator, options.max_grad_norm)
    local_rows(options.batch_size, accelerator.process_index, accelerator.num_processes)
    run = RunFolder(config.run, accelerator, keep_last)
    run.claim(config, mutable, **made_from)
    return run


def _say_clipping(accelerator: "Accelerator", max_grad_norm: float) -> None:
    """Say it if DeepSpeed, which clips gradients itself, clips them to something other than the option."""
    plugin = accelerator.state.deepspeed_plugin
    clipping = plugin.deepspeed_config.get("gradient_clipping") if plugin else None
    if clipping not in (None, "auto", max_grad_norm):
        note(
            f"note: DeepSpeed clips gradients to {clipping}, as the launcher's configuration says; "
            f"--train.max_grad_norm {max_grad_norm} has no effect"
        )
