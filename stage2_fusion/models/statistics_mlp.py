"""The system of arXiv 2503.10399 (HSEmotion, third at ABAW8): statistics over time, a small MLP for each modality.

Source: mean, standard deviation, minimum and maximum of frame features over time; Linear(64), ReLU, Linear, Sigmoid;
a loss of 1 - PCC over batches of 512; each modality is trained on its own, and the predictions are added with weights
per dimension, found on the validation clips in a grid with steps of 0.05. Differences here: all modalities have all
four statistics and the hidden layer (the source tries variants for each, and ends with the mean and no hidden layer for
voices); a missing modality is left out of the sum (source: it predicts from zeros). With one modality the model is that
modality's MLP, as in the source: `emit run statistics_mlp` trains three and finds the weights on validation clips
(`emit ensemble --method grid`). With several, the weights are parameters: a softmax per dimension over the modalities
present.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.options.ranges import Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import (
    FeatureSpec,
    FusionModel,
    FusionOptions,
    Output,
    set_bias,
    spread_over_modalities,
)
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.gate import softmax_over_present
from stage2_fusion.models.layers.statistics import masked_statistics


@dataclass
class StatisticsMLPOptions(FusionOptions):
    width: Width = 64
    """Channels of the hidden layer of each modality, as published."""


class StatisticsMLP(FusionModel):
    """B clips, M modalities of `options.modalities`, K dimensions. Output.branches: the prediction from each alone."""

    Options = StatisticsMLPOptions
    encoder_parts = ("mlps",)
    encoder_parts_predict = True

    def __init__(self, options: StatisticsMLPOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        self.used = [name for name in MODALITIES if name in options.modalities]
        self.mlps = nn.ModuleDict(
            {
                name: nn.Sequential(
                    Dropout(options.dropout),
                    nn.Linear(4 * spec.widths[name], options.width),
                    nn.ReLU(),
                    Dropout(options.dropout),
                    nn.Linear(options.width, self.dimensions),
                )
                for name in self.used
            }
        )
        if len(self.used) > 1:
            self.scores = nn.Parameter(torch.zeros(len(self.used), self.dimensions))

    def no_weight_decay(self) -> set[str]:
        return {"scores"}

    def init_output_bias(self, mean_label: Tensor) -> None:
        for mlp in self.mlps.values():
            *_, output_layer = mlp.children()
            set_bias(output_layer, mean_label.logit())

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        alone = [self.mlps[name](masked_statistics(inputs[name].x, inputs[name].mask)) for name in self.used]
        branches = torch.stack(alone, dim=1).float().sigmoid()  # (B, M, K)
        present = torch.stack([inputs[name].present for name in self.used], dim=1)  # (B, M)
        scores = self.scores.expand_as(branches) if len(self.used) > 1 else torch.zeros_like(branches)  # (B, M, K)
        weights = softmax_over_present(scores, present)  # (B, M, K), 1 for a single modality
        prediction = (weights * branches).sum(dim=1)  # (B, K)
        return Output(prediction, **spread_over_modalities(self.used, branches, weights, present))
