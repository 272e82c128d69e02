"""Gradients of every normalization layer of a model, in the layouts that reach it, against finite differences."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

DIRECTIONS = 2
TOLERANCE = 0.02
"""Of the norm of a gradient. Float32 and the curvature of the norms take less than half of it; a gradient of shuffled
values is about 1.4 times its own norm off."""

CURVED = nn.modules.batchnorm._BatchNorm
"""Layers whose output, for few values, bends too much for the steps that float32 needs."""


@dataclass
class Call:
    """One forward pass of a layer."""

    twin: nn.Module
    """The layer before the call, with its running statistics."""
    x: Tensor
    rest: tuple[Any, ...]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    """Of "x" and "output"."""


def norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of `model` that normalize, whoever wrote them."""
    for name, module in model.named_modules():
        if "norm" in type(module).__name__.lower() and isinstance(getattr(module, "weight", None), Tensor):
            yield name, module


def assert_right_gradients(model: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Run `loss` forward and backward, then compare. Returns the names of the layers that were compared."""
    calls: dict[str, list[Call]] = {}
    hooks = []
    for name, module in norms(model):
        calls[name] = []
        hooks += _record(module, calls[name])
    model.zero_grad()
    loss().backward()
    for hook in hooks:
        hook.remove()
    generator = torch.Generator().manual_seed(0)
    compared = []
    for name, module in norms(model):
        made = [call for call in calls[name] if "output" in call.gradients]
        for direction in range(DIRECTIONS * bool(made)):
            for call in made:
                if "x" in call.gradients:
                    _compare(f"{name}.x, {direction}", [call], "x", call.gradients["x"], generator)
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.grad is not None:
                    _compare(f"{name}.{key}, {direction}", made, key, parameter.grad, generator)
        compared += [name] * bool(made)
    return compared


def _record(module: nn.Module, calls: list[Call]) -> list[Any]:
    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        twin = copy.deepcopy(module)
        twin._forward_pre_hooks.clear()
        twin._forward_hooks.clear()
        if isinstance(twin, CURVED):
            twin.double()
        x = torch.ops.aten.alias(inputs[0])  # the gradient through this layer alone; view_as would change strides
        call = Call(twin, x.detach().to(twin.weight.dtype, copy=True), inputs[1:])
        calls.append(call)
        if x.requires_grad:
            x.register_hook(lambda gradient: call.gradients.__setitem__("x", gradient.clone()))
        return (x, *inputs[1:])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        call = calls[-1]
        if output.requires_grad:
            output.register_hook(lambda gradient: call.gradients.__setitem__("output", gradient.clone()))

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _compare(what: str, calls: list[Call], key: str, gradient: Tensor, generator: torch.Generator) -> None:
    """One directional derivative of sum(gradient of the output * output), summed over calls."""
    value = calls[0].x if key == "x" else getattr(calls[0].twin, key)
    direction = torch.randn(value.shape, generator=generator)
    step = (3e-3 if value.dtype == torch.float32 else 1e-6) * (float(value.detach().std()) if key == "x" else 1.0)
    measured = 0.0
    for call in calls:
        outputs = [_output(call, key, sign * step * direction) for sign in (1, -1)]
        slope = (outputs[0].double() - outputs[1].double()) / (2 * step)
        measured += float((slope * call.gradients["output"].double()).sum())
    expected, size = float((gradient.double() * direction).sum()), float(gradient.double().norm())
    noise = 1e-4 * sum(float(call.gradients["output"].double().norm()) for call in calls)
    assert abs(measured - expected) <= TOLERANCE * size + noise, f"{what}: {expected} is {measured}, norm {size}"


@torch.no_grad()
def _output(call: Call, key: str, change: Tensor) -> Tensor:
    """The output after `change` to the input or to a parameter."""
    twin = copy.deepcopy(call.twin)  # a call may change it: its statistics, the lengths it was given
    if key != "x":
        getattr(twin, key).add_(change)
    return twin(call.x + change if key == "x" else call.x, *call.rest)
