"""Tensors that may be sharded over the processes (DTensors, with FSDP)."""

import torch
from torch import Tensor


def is_sharded(value: Tensor) -> bool:
    """Whether this process may hold only a part of the tensor."""
    return hasattr(value, "full_tensor")


def gather(value: Tensor) -> Tensor:
    """The full tensor; every process must call this."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]


def scatter(value: Tensor, like: Tensor) -> Tensor:
    """A full tensor on the device of `like`, sharded like it; every process must call this."""
    value = value.to(like.device)
    if not is_sharded(like):
        return value
    return torch.distributed.tensor.distribute_tensor(value, like.device_mesh, like.placements)  # type: ignore[attr-defined]
