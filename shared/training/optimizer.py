"""Parameter groups of AdamW: their learning rates and weight decay."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    lr_factor: Callable[[str], float],
    no_weight_decay: Collection[str] = (),
) -> list[dict[str, Any]]:
    """One group per learning rate and weight decay, for the parameters that require a gradient.

    lr_factor: maps a parameter name to its factor on `lr`. Matrices have weight decay; biases, norms and other
    parameters with fewer than two dimensions do not, nor do parameters in `no_weight_decay`. "peak_lr" is the learning
    rate that `set_learning_rates` scales.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in no_weight_decay
            groups.setdefault((lr * lr_factor(name), decays), []).append(parameter)
    return [
        {"params": parameters, "lr": peak_lr, "peak_lr": peak_lr, "weight_decay": weight_decay if decays else 0.0}
        for (peak_lr, decays), parameters in groups.items()
    ]


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
