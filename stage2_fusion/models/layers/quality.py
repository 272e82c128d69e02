"""Weights of the modalities at each step: the quality-aware weighting of arXiv 2503.10603.

The paper leaves open how the weights are computed. Here a small network per modality scores the enhanced features and
the observable quality signals of a step; scores are normalized over the modalities present.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class QualityWeights(nn.Module):
    """Weights over M modalities.

    forward(features: M of (B, S, d), quality: M of (B, S, Q_m), mask (B, S, M)) -> weights (B, S, M), exactly 0 where
    the mask is False. With softmax the weights of a step sum to 1 (0 if no modality is present); with sigmoid each lies
    in (0, 1). `uniform` gives all modalities present the same weight.
    """

    def __init__(self, width: int, signals: list[int], weighting: str, per: str, normalizer: str):
        super().__init__()
        self.weighting, self.per, self.normalizer = weighting, per, normalizer
        if weighting == "learned":
            self.scorers = nn.ModuleList(
                nn.Sequential(nn.Linear(width + count, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
                for count in signals
            )

    def forward(self, features: Sequence[Tensor], quality: Sequence[Tensor], mask: Tensor) -> Tensor:
        if self.weighting == "uniform":
            scores = torch.zeros(mask.shape, device=mask.device)  # (B, S, M)
        else:
            inputs = zip(self.scorers, features, quality, strict=True)
            scores = torch.cat([scorer(torch.cat([x, q], dim=-1)) for scorer, x, q in inputs], dim=-1).float()
        if self.per == "clip":
            mean = (scores * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, M)
            scores = mean.expand_as(scores)  # (B, S, M)
        if self.normalizer == "sigmoid":
            return scores.sigmoid() * mask
        floor = torch.finfo(scores.dtype).min  # finite: a step without any modality must not give NaN
        return scores.masked_fill(~mask, floor).softmax(dim=-1) * mask
