"""How much each modality counts at each step: the quality-aware weighting of arXiv 2503.10603.

The paper leaves open how the weights are formed. Ours: a small network per modality reads the enhanced features and the
observable quality signals of a step and gives a score; scores are normalised over the modalities present.
"""

import torch
from torch import Tensor, nn


class QualityWeights(nn.Module):
    """Weights over M modalities.

    forward(features: M of (B, S, d), quality: M of (B, S, Q_m), mask (B, S, M)) -> weights (B, S, M), exactly 0 where
    the mask is False. With softmax the weights of a step sum to 1 (0 where no modality is there); with sigmoid each
    lies in (0, 1). `uniform` gives each modality present the same weight.
    """

    def __init__(self, width: int, quality: list[int], weighting: str, per: str, normaliser: str):
        super().__init__()
        self.weighting, self.per, self.normaliser = weighting, per, normaliser
        if weighting == "learned":
            self.scores = nn.ModuleList(
                nn.Sequential(nn.Linear(width + signals, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
                for signals in quality
            )

    def forward(self, features: list[Tensor], quality: list[Tensor], mask: Tensor) -> Tensor:
        if self.weighting == "uniform":
            scores = torch.zeros(mask.shape, device=mask.device)  # (B, S, M)
        else:
            pairs = zip(self.scores, features, quality, strict=True)
            scores = torch.cat([score(torch.cat([x, q], dim=-1)) for score, x, q in pairs], dim=-1).float()  # (B, S, M)
        if self.per == "clip":
            mean = (scores * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, M)
            scores = mean.expand_as(scores)
        if self.normaliser == "sigmoid":
            return scores.sigmoid() * mask
        floor = torch.finfo(scores.dtype).min  # finite, so that a step without any modality gives no NaN
        return scores.masked_fill(~mask, floor).softmax(dim=-1) * mask
