"""Batches beyond memory: the gradient of a whole batch with the activations of one chunk.

    for batch in loader:
        chunks = split(batch, 4)
        loss, out = cached_backward(accelerator, model, chunks, lambda out: bare.total(bare.losses(out, ...)))
        optimizer.step()

Method: gradient cache (Gao et al. 2021, arXiv 2101.06983). The chunks are encoded without gradient; the loss over all
of them gives the gradient of every embedding, and of each temperature, once; the chunks are encoded again, with the
same random state and autocast, and pass their part of that gradient on.

What a tower computes over the rows of a batch (a batch norm that trains) it computes over a chunk; the trainer warns.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import UserError
from stage1_align.data.pairs import PairBatch


def split(batch: PairBatch, chunks: int) -> list[PairBatch]:
    """A collated batch into `chunks` near-equal batches of consecutive clips; fewer when there are fewer clips.

    Every input has k * b rows in dim 0, b rows for each of k kinds (texts: k = n); each chunk keeps the order of the
    batch. UserError for an input with any other number of rows."""
    clips = batch.text_id.shape[1]

    def rows(value: Tensor, part: slice, name: str) -> Tensor:
        if len(value) % clips:
            raise UserError(
                f"batch.{name} has {len(value)} rows, which is no multiple of {clips} clips: it has no split"
            )
        return value.unflatten(0, (-1, clips))[:, part].flatten(0, 1)  # (k * c, ...)

    parts = [slice(int(at[0]), int(at[-1]) + 1) for at in torch.arange(clips).tensor_split(min(chunks, clips))]
    return [
        PairBatch(
            {
                modality: {name: rows(value, part, f"{modality}.{name}") for name, value in inputs.items()}
                for modality, inputs in batch.inputs.items()
            },
            batch.text_id[:, part],  # (n, c)
            None if batch.labels is None else batch.labels[part],  # (c, K)
        )
        for part in parts
    ]


def cached_backward(
    accelerator: Any,
    model: nn.Module,
    chunks: list[PairBatch],
    loss_of: Callable[[dict[str, Tensor]], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Leave in the parameters what `accelerator.backward(loss_of(model(batch)))` would, with gradients averaged over
    processes once and loss scaling (fp16) applied.

    model: as accelerator.prepare returned it; model(chunk) gives a dictionary in which a tensor of no dimension
    (temperature, bias) is the same for every chunk, and any other has its clips in dim 1, as (k, c, ...). loss_of gets
    one dictionary of the same names with the chunks joined, and may use collectives. Every process must have the same
    number of chunks. Returns the loss () and that dictionary, both detached.
    """
    states, encoded = [], []
    for chunk in chunks:
        states.append(_random_state(accelerator.device))
        with torch.no_grad():
            encoded.append(model(chunk))

    joined = {name: _join([out[name].detach() for out in encoded]) for name in encoded[0]}
    leaves = {name: value.requires_grad_() for name, value in joined.items() if value.is_floating_point()}
    loss = loss_of(joined)
    cached = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    del encoded

    first = 0
    for index, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        last = index == len(chunks) - 1
        clips = slice(first, first := first + chunk.text_id.shape[1])
        _set_random_state(accelerator.device, state)
        with nullcontext() if last else accelerator.no_sync(model):
            out = model(chunk)
            surrogate = 0
            for name, gradient in cached.items():
                if gradient is not None and gradient.ndim:
                    surrogate = surrogate + (out[name] * gradient[:, clips]).sum()
                elif gradient is not None and last:  # once: every chunk has the same temperature
                    surrogate = surrogate + out[name] * gradient
            accelerator.backward(surrogate)
    return loss.detach(), {name: value.detach() for name, value in joined.items()}


def _join(values: list[Tensor]) -> Tensor:
    return torch.cat(values, 1) if values[0].ndim else values[0].clone()


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the CPU and, where there is one, of the accelerator this process computes on."""
    own = [] if device.type == "cpu" else [torch.get_device_module(device).get_rng_state()]
    return [torch.get_rng_state(), *own]


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1])
