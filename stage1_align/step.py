"""One step of contrastive training: the gradient of the global batch, clipped and applied."""

import math
from typing import Any

import torch
from torch import Tensor

from stage1_align.config import TrainConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.gradient_cache import cached_backward, split
from stage1_align.model import ContrastiveModel


def train_step(
    accelerator: Any,
    model: torch.nn.Module,
    bare: ContrastiveModel,
    optimizer: torch.optim.Optimizer,
    batch: PairBatch,
    options: TrainConfig,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Update the parameters by this process's share of a global batch, collated and on its device; the gradients are
    zero again afterwards.

    model, optimizer: as accelerator.prepare returned them, of `bare`. Above `options.chunk_size` clips the batch goes
    through the gradient cache. Returns, detached, the losses of the pairs {pair: ()}, whose mean over processes is that
    of the global batch; the inverse temperatures and biases {"scale_<pair>": ()} the losses were computed with; and the
    norm of the gradient before clipping.
    """
    parts: dict[str, Tensor] = {}

    def loss_of(out: dict[str, Tensor]) -> Tensor:
        parts.update(bare.losses(out, batch.text_id, batch.labels))
        return bare.total(parts)

    chunks = math.ceil(batch.text_id.shape[1] / options.chunk_size) if options.chunk_size else 1
    if chunks > 1:
        _, out = cached_backward(accelerator, model, split(batch, chunks), loss_of)
    else:
        out = model(batch)
        accelerator.backward(loss_of(out))
    # Copies: a bias is the parameter itself, which the step moves.
    temperatures = {n: value.detach().clone() for n, value in out.items() if n.startswith(("scale_", "bias_"))}
    norm = accelerator.clip_grad_norm_(model.parameters(), options.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    bare.clamp_scale()
    return {pair: value.detach() for pair, value in parts.items()}, temperatures, norm
