"""Plain concatenation: the simplest thing that uses all modalities, and the score every other model must beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec, even_weights
from stage2_fusion.models.layers.dropout import Dropout


@dataclass
class ConcatOptions(FusionOptions):
    width: int = 256
    """Channels of the hidden layer."""
    dropout: float = 0.3
    """There is no other regularisation."""


class Concat(FusionModel):
    """Mean over the real steps of each sequence, beside its pooled embedding, concatenated, then two linear layers."""

    Options = ConcatOptions

    def __init__(self, options: ConcatOptions, spec: Spec):
        super().__init__(options, spec)
        width = sum(spec.widths[name] + spec.widths["embed"] for name in MODALITIES)
        self.mlp = nn.Sequential(
            Dropout(options.dropout),
            nn.Linear(width, options.width),
            nn.LayerNorm(options.width),
            nn.GELU(),
            Dropout(options.dropout),
            nn.Linear(options.width, self.dimensions),
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
        prediction = self.mlp(torch.cat(parts, dim=1)).float().sigmoid()  # (B, K)
        return Output(prediction, *even_weights(inputs))
