"""One optimizer step of contrastive training, with the gradient of the global batch."""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from stage1_align.config import TrainConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.gradient_cache import cached_backward, split_into_chunks
from stage1_align.model import ContrastiveModel

if TYPE_CHECKING:
    from accelerate import Accelerator


class StepResult(NamedTuple):
    """The detached results of a step."""

    losses: dict[str, Tensor]
    """{pair name: its loss ()}. The mean over processes is the loss of the global batch."""
    temperatures: dict[str, Tensor]
    """The scale_<pair> and bias_<pair> used in the losses: ()."""
    grad_norm: Tensor
    """(), before clipping."""
    rows: dict[str, Tensor]
    """{pair name: number of local clips that take part in its loss ()}."""


def train_step(
    accelerator: "Accelerator",
    model: nn.Module,
    unwrapped_model: ContrastiveModel,
    optimizer: torch.optim.Optimizer,
    batch: PairBatch,
    options: TrainConfig,
) -> StepResult:
    """Update the parameters with the local rows of a global batch. Gradients are zero before and after.

    model, optimizer: as returned by accelerator.prepare. batch: collated, on the device. With more than
    `options.chunk_size` clips, it goes through the gradient cache.
    """
    losses: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}

    def loss_fn(output: dict[str, Tensor]) -> Tensor:
        losses.update(unwrapped_model.losses(output, batch.text_id, batch.labels))
        rows.update(unwrapped_model.contrasted_rows(output))
        return unwrapped_model.total(losses)

    clips = batch.text_id.shape[1]
    chunks = math.ceil(clips / options.chunk_size) if options.chunk_size else 1
    if chunks > 1:
        _, output = cached_backward(accelerator, model, split_into_chunks(batch, chunks), loss_fn)
    else:
        output = model(batch)
        accelerator.backward(loss_fn(output))
    # Copies, because a bias is a view of its parameter, which the optimizer changes in place.
    temperatures = {n: value.detach().clone() for n, value in output.items() if n.startswith(("scale_", "bias_"))}
    grad_norm = accelerator.clip_grad_norm_(model.parameters(), options.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    unwrapped_model.clamp_scale()
    return StepResult({pair: loss.detach() for pair, loss in losses.items()}, temperatures, grad_norm, rows)
