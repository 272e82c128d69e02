"""One optimizer step of a fusion model, with the gradient of the global batch.

Every process computes the loss on the rows of all processes, with a gradient through its own rows only, and multiplies
it by the number of processes W. The mean over processes that DistributedDataParallel takes is then exactly the gradient
of one process that holds the whole batch (except that dropout is drawn per process).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stage2_fusion.data.batches import Batch
from stage2_fusion.losses import FusionLoss, LossInputs

if TYPE_CHECKING:
    from accelerate import Accelerator


def train_step(
    accelerator: "Accelerator",
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: FusionLoss,
    batch: Batch,
    *,
    paired: bool,
    epoch: float,
    max_grad_norm: float,
) -> dict[str, Tensor]:
    """Update the parameters with this process's rows of a global batch. Gradients are zero before and after.

    model, optimizer: as accelerator.prepare returned them. paired, epoch: as in FusionLoss. Returns the loss and its
    terms, and grad_norm, the norm of the gradient before clipping: ().
    """
    output = model(batch)
    local = LossInputs(
        output.prediction,
        batch.labels,
        output.clip_weights(batch.damage_spans),
        batch.damaged,
        output.branches,
        output.penalty,
    )
    gathered = LossInputs._make(None if rows is None else all_gather_rows(accelerator, rows) for rows in local)
    terms = criterion(gathered, paired=paired, epoch=epoch)
    accelerator.backward(terms["loss"] * accelerator.num_processes)
    grad_norm = accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return {**terms, "grad_norm": grad_norm}


def all_gather_rows(accelerator: "Accelerator", local_rows: Tensor) -> Tensor:
    """(n, ...) of this process to (W n, ...) of all processes, in rank order, with a gradient through this process's
    rows."""
    if accelerator.num_processes == 1:
        return local_rows
    rank = accelerator.process_index
    rows = list(accelerator.gather(local_rows.detach().contiguous()).split(len(local_rows)))  # W of (n, ...)
    return torch.cat([*rows[:rank], local_rows, *rows[rank + 1 :]])
