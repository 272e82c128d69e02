"""Gradients of batch and instance norms that do not depend on the memory format of tensors.

On a CPU, torch's backward pass of these norms (2.11 to 2.14) assumes that the gradient has the memory format of the
input. If a dimension has size 1, the two can differ, and the gradients of weight, bias and input are silently computed
from shuffled values: they are off by about 1.4 times their own size. This affects HTS-AT's norm over mel bands
(N, M, F, 1) and a convolutional network on a single frame (1, C, H, W).
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


def repair_gradients(model: nn.Module) -> None:
    """Give every batch and instance norm of `model` the correct gradient. State dictionary names, and forward passes
    without a gradient, are unchanged."""
    for module in model.modules():
        if isinstance(module, _BatchNorm | _InstanceNorm) and not isinstance(module, nn.SyncBatchNorm):
            forward = module.__dict__.get("forward")
            if not (isinstance(forward, functools.partial) and forward.func is _forward):
                module.forward = functools.partial(_forward, module, module.forward)  # type: ignore[method-assign]


def _forward(norm: _BatchNorm | _InstanceNorm, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(N, C, ...) to the same shape. forward: the norm's forward."""
    if not torch.is_grad_enabled():
        return forward(x)
    if isinstance(norm, _BatchNorm) and not norm.training and norm.running_var is not None:
        return _act(norm, _affine(norm, x))
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    # Instance norm folds N into C, which channels_last does not allow without a copy in another layout.
    layout = torch.channels_last if channels_last and isinstance(norm, _BatchNorm) else torch.contiguous_format
    y = forward(x.contiguous(memory_format=layout))
    if y.requires_grad:  # a hook, because an activation may change y in place
        y.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))
    return y


def _affine(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm in evaluation mode, as operations with their own gradients."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()  # (C,)
    if norm.weight is not None:
        scale = scale * norm.weight
    # Center first: in fp32, a mean far from zero would cause cancellation in the gradient of the weight.
    y = (x - norm.running_mean.view(shape)) * scale.view(shape)
    if norm.bias is not None:
        y = y + norm.bias.view(shape)
    return y.to(x.dtype)


def _act(norm: _BatchNorm, y: Tensor) -> Tensor:
    """The activation and dropout of timm's norms after normalization."""
    for name in ("drop", "act"):
        part = getattr(norm, name, None)
        y = y if part is None else part(y)
    return y
