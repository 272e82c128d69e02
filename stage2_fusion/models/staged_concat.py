"""The system of arXiv 2605.21869 (MimicMetrics, third at ABAW10): encoders trained one by one, then concatenated.

Source: audio and vision are pooled by attention over time, text is a sentence vector; each then goes through
LayerNorm, Linear(384), GELU, Dropout, LayerNorm, and a head of Dropout and Linear, which is trained with it and
removed; the vectors are concatenated, modalities dropped with probability 0.3, then LayerNorm, Dropout, Linear(384),
GELU, Dropout, Linear. In this last stage the encoders continue to train at a twentieth of the learning rate.
Differences
here: the sentence vector is the mean of the tokens (source: of GTE, at length 1); a missing modality is a vector of
zeros (source: missing text is encoded from zeros, clips without a face or a voice are left out); after modality
dropout, the rest is not scaled up, since the next LayerNorm would undo it; the optional fourth branch, action units and
head pose, is part of vision, if the features have it (`emit encode --blendshapes`).

With one modality the model is its encoder and head: the first stages. With several it is the last stage, with encoders
initialized from other models by `emit fuse --init`, as in `emit run staged_concat`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.options.ranges import ProperFraction, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import (
    FeatureSpec,
    FusionModel,
    FusionOptions,
    ModalityInput,
    Output,
    set_bias,
    uniform_weights,
)
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import masked_mean


@dataclass
class StagedConcatOptions(FusionOptions):
    width: Width = 384
    """Channels of each modality's vector and of the hidden layer after them, as published."""
    dropout: ProperFraction = 0.45
    """As published."""


class ModalityEncoder(nn.Module):
    """The vector of one modality of B clips: forward(part) -> (B, d), zero if it is missing."""

    def __init__(self, channels: int, width: int, dropout: float, attends: bool):
        """attends: weight steps by attention instead of equally."""
        super().__init__()
        self.attention = nn.Linear(channels, 1) if attends else None
        self.layers = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, width), nn.GELU(), Dropout(dropout), nn.LayerNorm(width)
        )

    def forward(self, part: ModalityInput) -> Tensor:
        if self.attention is None:
            pooled = masked_mean(part.x, part.mask)  # (B, C)
        else:
            padding = ~part.mask & part.present[:, None]  # (B, T); all False for a row without steps
            scores = self.attention(part.x).float().masked_fill(padding[..., None], -torch.inf)  # (B, T, 1)
            pooled = (scores.softmax(dim=1) * part.x).sum(dim=1)  # (B, C)
        return self.layers(pooled) * part.present[:, None]


class StagedConcat(FusionModel):
    """B clips, M modalities of `options.modalities`, d width, K dimensions."""

    Options = StagedConcatOptions
    encoder_parts = ("encoders",)

    def __init__(self, options: StagedConcatOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        self.encoders = nn.ModuleDict(
            {
                name: ModalityEncoder(spec.widths[name], width, dropout, attends=name != "text")
                for name in MODALITIES
                if name in options.modalities
            }
        )
        if len(self.encoders) == 1:
            self.head = nn.Sequential(Dropout(dropout), nn.Linear(width, self.dimensions))
        else:
            self.head = nn.Sequential(
                nn.LayerNorm(len(self.encoders) * width),
                Dropout(dropout),
                nn.Linear(len(self.encoders) * width, width),
                nn.GELU(),
                Dropout(dropout),
                nn.Linear(width, self.dimensions),
            )

    def init_output_bias(self, mean_label: Tensor) -> None:
        *_, output_layer = self.head.children()
        set_bias(output_layer, mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        vectors = [encoder(inputs[name]) for name, encoder in self.encoders.items()]  # (B, d) each
        return Output(self.linear_prediction(self.head(torch.cat(vectors, dim=1))), *uniform_weights(inputs))
