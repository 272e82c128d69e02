"""Weights for the predictions of single modalities, or single systems, for the same clips.

Shapes: B clips, M predictions per clip, K dimensions. present: bool (B, M), False = this prediction does not count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def softmax_over_present(scores: Tensor, present: Tensor) -> Tensor:
    """Weights (B, M, K) from scores (B, M, K): 0 if absent, with sum 1. If all are absent, all count: the output then
    comes from the biases."""
    counted = present | ~present.any(dim=1, keepdim=True)  # (B, M)
    return scores.float().masked_fill(~counted[..., None], -torch.inf).softmax(dim=1)


class PredictionGate(nn.Module):
    """A weight for each prediction and dimension, from the prediction and the quality of its input.

    The source (see models/quality_gated.py) has one MLP for all modalities, which reads the K predictions, one quality
    value and whether the modality is present. Here each modality has its own MLP, because each has its own quality
    signals, and an absent modality has no weight anyway.

    forward(predictions (B, M, K), quality: M of (B, Q), present) -> the weighted sum and a bias (B, K), weights
    (B, M, K).
    """

    def __init__(self, dimensions: int, quality: Sequence[int], width: int):
        """quality: the number of signals of each of the M predictions."""
        super().__init__()
        self.scorers = nn.ModuleList(
            nn.Sequential(nn.Linear(dimensions + signals, width), nn.GELU(), nn.Linear(width, dimensions))
            for signals in quality
        )
        self.bias = nn.Parameter(torch.zeros(dimensions))

    def forward(self, predictions: Tensor, quality: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        scores = [
            scorer(torch.cat([predictions[:, m], quality[m]], dim=1)) for m, scorer in enumerate(self.scorers)
        ]  # (B, K) each
        weights = softmax_over_present(torch.stack(scores, dim=1), present)  # (B, M, K)
        return (weights * predictions).sum(dim=1) + self.bias, weights
