"""The start of a training run, the same in both stages."""

from pathlib import Path
from typing import Any, Protocol

from shared.training.distributed import start_accelerator
from shared.training.run_folder import RunFolder
from shared.training.sampling import local_rows


class TrainerConfig(Protocol):
    """What the configuration of a trainer has."""

    run: Path
    train: Any
    """With batch_size, mixed_precision and trackers."""


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
    local_rows(options.batch_size, accelerator.process_index, accelerator.num_processes)
    run = RunFolder(config.run, accelerator, keep_last)
    run.claim(config, mutable, **made_from)
    return run
