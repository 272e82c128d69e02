"""Weights of predictions that single modalities, or single systems, make of the same clips.

Shapes: B clips, M predictions of each, K dimensions. present: bool (B, M), False = this one does not count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def softmax_over_present(scores: Tensor, present: Tensor) -> Tensor:
    """Weights (B, M, K) from scores (B, M, K): 0 where absent, and 1 in sum. Where all are absent, all count: the
    answer is then what the biases say."""
    counted = present | ~present.any(dim=1, keepdim=True)  # (B, M)
    return scores.float().masked_fill(~counted[..., None], -torch.inf).softmax(dim=1)


class PredictionGate(nn.Module):
    """A weight of each prediction and dimension, from the prediction and from how good its input was.

    The source (the quality-gated late fusion of models/quality_gated.py) has one MLP for all modalities, which reads
    the K predictions, one number for the quality and whether the modality is there; here each has its own MLP, because
    each has its own quality signals, and what is absent has no weight anyway.

    forward(predictions (B, M, K), quality: M of (B, Q), present) -> the weighted sum and a bias (B, K), weights
    (B, M, K).
    """

    def __init__(self, dimensions: int, quality: Sequence[int], width: int):
        """quality: how many signals each of the M has."""
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
