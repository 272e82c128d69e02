"""Statistics of a sequence over its real steps.

Shapes: B rows, T steps, C or d channels. Masks are bool (B, T), True = real. A row without steps gives zeros.
"""

import torch
from torch import Tensor, nn

from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import masked_mean

SMALLEST_VARIANCE = 1e-12
"""Added before the root, whose gradient at 0 is infinite."""
TEMPERATURE = 1.5
"""Divisor of the attention scores, as in the source of quality_gated."""


def masked_statistics(x: Tensor, mask: Tensor) -> Tensor:
    """Mean, standard deviation, minimum and maximum of each channel: (B, T, C), (B, T) -> (B, 4 C)."""
    real = mask[..., None]  # (B, T, 1)
    mean = masked_mean(x, mask)  # (B, C)
    variance = masked_mean((x - mean[:, None]).square(), mask)  # (B, C)
    lowest = x.masked_fill(~real, torch.inf).amin(dim=1)  # (B, C)
    highest = x.masked_fill(~real, -torch.inf).amax(dim=1)  # (B, C)
    statistics = torch.cat([mean, _root(variance), lowest, highest], dim=1)  # (B, 4 C)
    return torch.where(mask.any(dim=1, keepdim=True), statistics, 0.0)


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018): mean and standard deviation, weighted by attention over time.

    forward(x (B, T, d), mask (B, T), bias (B, T) or None, added to the attention before the softmax) -> (B, 2 d).
    """

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = self.attention(x).squeeze(-1).float() / TEMPERATURE  # (B, T)
        if bias is not None:
            logits = logits + bias.float()
        present = mask.any(dim=1, keepdim=True)  # (B, 1)
        weights = logits.masked_fill(~mask & present, -torch.inf).softmax(dim=1)[..., None]  # (B, T, 1)
        mean = (weights * x).sum(dim=1)  # (B, d)
        variance = (weights * (x - mean[:, None]).square()).sum(dim=1)  # (B, d)
        return torch.cat([mean, _root(variance)], dim=1) * present


def _root(variance: Tensor) -> Tensor:
    return (variance + SMALLEST_VARIANCE).sqrt()
