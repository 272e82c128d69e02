"""Exponential moving average of weights."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shared.training.sharded import gather, is_sharded, scatter


class Ema(nn.Module):
    """Exponential moving average of a model's floating-point state (Polyak averaging). Frozen parameters are left out.

    The decay grows with the step, min(decay, (1 + step) / (10 + step)), so that the initial weights are quickly
    forgotten. Create it when the model is on its device and, with FSDP, already sharded.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        self.decay = decay
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        state = model.state_dict().items()
        # In half precision, a change of less than a 256th of a weight would be rounded away.
        self.averages = {
            name: value.detach().to(_precise(value), copy=True) for name, value in state if name not in frozen
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        pairs = [(average, state[name]) for name, average in self.averages.items()]
        local = [pair for pair in pairs if pair[0].is_floating_point() and not is_sharded(pair[0])]
        if local:
            values = [value.to(average.dtype) for average, value in local]
            torch._foreach_lerp_([average for average, _ in local], values, weight)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
            elif is_sharded(average):
                average.lerp_(value.to(average.dtype), weight)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Full tensors, even for a sharded model; every process must call this."""
        return {name: gather(value) for name, value in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        for name, average in self.averages.items():
            average.copy_(scatter(state[name], average))

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Temporarily swap in the averaged weights."""
        original = {name: value.detach().clone() for name, value in model.state_dict().items() if name in self.averages}
        model.load_state_dict(self.averages, strict=False)  # not strict: frozen parameters are not in the average
        try:
            yield
        finally:
            model.load_state_dict(original, strict=False)


def _precise(value: Tensor) -> torch.dtype:
    """float32 for a value in half precision, otherwise its own type."""
    return torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else value.dtype
