"""Plain concatenation: the simplest thing that uses all modalities, and the score every other model must beat."""

import torch
from torch import Tensor, nn

from shared.clips import MODALITIES
from stage2_fusion.config import ConcatConfig
from stage2_fusion.models.base import FusionModel, Output, Spec


class Concat(FusionModel):
    """Mean over the real steps of each sequence, beside its pooled embedding, concatenated, then two linear layers."""

    Config = ConcatConfig

    def __init__(self, config: ConcatConfig, spec: Spec):
        super().__init__(config, spec)
        width = sum(spec.widths[name] + spec.widths["embed"] for name in MODALITIES)
        self.mlp = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(width, config.width),
            nn.LayerNorm(config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, self.dimensions),
        )

    def start_from(self, mean_label: Tensor) -> None:
        self.mlp[-1].bias.data.copy_(mean_label.logit())

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        parts = []
        for name in MODALITIES:
            part = inputs[name]
            count = part["mask"].sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
            parts += [part["x"].sum(dim=1) / count, part["pooled"]]  # (B, C), (B, D)
        present = torch.stack([inputs[name]["present"] for name in MODALITIES], dim=1)  # (B, 3)
        weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 3)
        prediction = self.mlp(torch.cat(parts, dim=1)).float().sigmoid()  # (B, K)
        return Output(prediction, weights[:, None], present.any(dim=1, keepdim=True))
