"""Gradient cache (Gao et al. 2021, arXiv 2101.06983): the gradient of a whole batch with the activations of one chunk.

    for batch in loader:
        chunks = split_into_chunks(batch, 4)
        loss, outputs = cached_backward(accelerator, model, chunks, loss_fn)
        optimizer.step()

For encoders f with parameters w, and a loss L of the embeddings of all clips of the batch:

    1. embed     e_c = f(chunk_c), without a graph; the random state of each chunk is saved
    2. cache     g_c = dL / de_c, from one evaluation of L on all embeddings
    3. backward  f(chunk_c) again, with a graph and the same random state; the surrogate <f(chunk_c), g_c> has the
                 gradient g_c df(chunk_c)/dw, and their sum over the chunks is dL/dw

Temperatures and biases are scalars that every chunk returns; only the last chunk's surrogate includes them.

Anything that a tower computes across the rows of a batch (batch norm in training mode) is computed across a chunk
instead; the trainer warns about it.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shared.errors import UserError
from stage1_align.data.pairs import PairBatch

if TYPE_CHECKING:
    from accelerate import Accelerator


def split_into_chunks(batch: PairBatch, count: int) -> list[PairBatch]:
    """Split a collated batch of b clips into `count` near-equal batches of consecutive clips, at most b.

    Every input has k * b rows in dim 0, b rows for each of k kinds (texts: k = n); each chunk keeps the order of the
    batch. UserError for an input with any other number of rows."""
    clips = batch.text_id.shape[1]

    def take(value: Tensor, part: slice, name: str) -> Tensor:
        if len(value) % clips:
            raise UserError(
                f"batch.{name} has {len(value)} rows, which is not a multiple of {clips} clips: it cannot be split"
            )
        return value.unflatten(0, (-1, clips))[:, part].flatten(0, 1)  # (k * c, ...)

    parts = [slice(int(rows[0]), int(rows[-1]) + 1) for rows in torch.arange(clips).tensor_split(min(count, clips))]
    return [
        PairBatch(
            {
                modality: {name: take(value, part, f"{modality}.{name}") for name, value in inputs.items()}
                for modality, inputs in batch.inputs.items()
            },
            batch.text_id[:, part],  # (n, c)
            None if batch.labels is None else batch.labels[part],  # (c, K)
        )
        for part in parts
    ]


def cached_backward(
    accelerator: "Accelerator",
    model: nn.Module,
    chunks: list[PairBatch],
    loss_fn: Callable[[dict[str, Tensor]], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Accumulate the same gradient in the parameters as `accelerator.backward(loss_fn(model(batch)))`, averaged over
    processes once, and with loss scaling (fp16).

    model: as returned by accelerator.prepare. model(chunk) is a dictionary of tensors: scalars (temperature, bias) are
    the same for every chunk, all others have the clips in dim 1: (k, c, ...). loss_fn: receives such a dictionary for
    the whole batch; it may use collectives. Every process must have the same number of chunks. Returns the loss () and
    the dictionary, both detached.
    """
    random_states, embedded = [], []
    for chunk in chunks:
        random_states.append(_get_random_state(accelerator.device))
        with torch.no_grad():
            embedded.append(model(chunk))

    outputs = {name: _concatenate([part[name].detach() for part in embedded]) for name in embedded[0]}
    del embedded
    leaves = {name: value.requires_grad_() for name, value in outputs.items() if value.is_floating_point()}
    loss = loss_fn(outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    cache = {name: gradient for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}

    first = 0
    for index, (chunk, state) in enumerate(zip(chunks, random_states, strict=True)):
        is_last = index == len(chunks) - 1
        clips = slice(first, first := first + chunk.text_id.shape[1])
        _set_random_state(accelerator.device, state)
        with nullcontext() if is_last else accelerator.no_sync(model):  # gradients are averaged with the last chunk
            output = model(chunk)
            surrogate = torch.zeros((), device=accelerator.device)  # ()
            for name, gradient in cache.items():
                if gradient.ndim:
                    surrogate = surrogate + (output[name] * gradient[:, clips]).sum()
                elif is_last:
                    surrogate = surrogate + output[name] * gradient
            accelerator.backward(surrogate)
    return loss.detach(), {name: value.detach() for name, value in outputs.items()}


def _concatenate(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1) if parts[0].ndim else parts[0].clone()


def _get_random_state(device: torch.device) -> list[Tensor]:
    """The random state of the CPU and, if there is one, of this process's accelerator."""
    accelerator = [] if device.type == "cpu" else [torch.get_device_module(device).get_rng_state()]
    return [torch.get_rng_state(), *accelerator]


def _set_random_state(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1])
