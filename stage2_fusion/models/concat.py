"""Plain concatenation: the simplest model that uses all modalities, and the one to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.options.ranges import ProperFraction, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FeatureSpec, FusionModel, FusionOptions, Output, set_bias, uniform_weights
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import masked_mean


@dataclass
class ConcatOptions(FusionOptions):
    width: Width = 256
    """Channels of the hidden layer."""
    dropout: ProperFraction = 0.3
    """There is no other regularization."""


class Concat(FusionModel):
    """Mean over the real steps of each sequence and its pooled embedding, concatenated, then two linear layers."""

    Options = ConcatOptions

    def __init__(self, options: ConcatOptions, spec: FeatureSpec):
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

    def init_output_bias(self, mean_label: Tensor) -> None:
        set_bias(self.mlp[-1], mean_label.logit())

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        parts = []
        for part in inputs.values():
            parts += [masked_mean(part.x, part.mask), part.pooled]  # (B, C), (B, D)
        prediction = self.mlp(torch.cat(parts, dim=1)).float().sigmoid()  # (B, K)
        return Output(prediction, *uniform_weights(inputs))
