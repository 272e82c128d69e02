"""Quality-gated late fusion, the system with the highest public validation score (0.5596).

Source (github.com/DanielTsarof/ABAW-8-EMI-challenge): each modality has a predictor, trained on its own, text and
audio with their encoders. Text: CLS state of GTE, Dropout, Linear(512), GELU, Dropout, Linear. Audio: Linear(192),
LayerNorm, Dropout; a TCN (6 levels, kernel 3); mean and standard deviation weighted by attention; Linear, GELU,
Dropout, Linear. Vision, in the notebook that reaches 0.5596 (multimodal_fusion_emi_face_v1): mean, standard deviation,
minimum and maximum over time, Linear, Sigmoid. In the one before it (multimodal_fusion_complex_methods_v1): as audio,
with 128 channels and 4 levels, where the attention adds the logarithm of how sure and how large the face is. A gate
then reads each modality's prediction for a clip, its quality and whether it is present, and gives each prediction a
weight for each dimension; the weighted sum has a bias. The gate learns from predictions of the clips that the
predictors were trained on.

Differences here: the text vector is the mean of the tokens; the TCN is that of this package (source: two convolutions
a level); steps are those of the features (source: five a second); the attention of vision reads all quality signals of
a face (sharpness, brightness, ...); each modality has a gate of its own for its own signals (source: one gate, one
number of each). In one model, predictions are not calibrated before they are gated.

With one modality the model is its predictor. `emit run quality_gated` trains three and gates their out-of-fold
predictions (`emit ensemble --method gate`). With several in one model, the gate trains together with them, in sample,
as in the source.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.options.ranges import ProperFraction, TcnLayers, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import (
    FeatureSpec,
    FusionModel,
    FusionOptions,
    ModalityInput,
    Output,
    set_bias,
    spread_over_modalities,
)
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.gate import PredictionGate
from stage2_fusion.models.layers.statistics import AttentiveStatistics, masked_statistics
from stage2_fusion.models.layers.temporal import TCN, masked_mean

ATTENTION_WIDTH = 128
"""Hidden channels of the attention over time, as published."""


@dataclass
class QualityGatedOptions(FusionOptions):
    faces: Literal["tcn", "statistics"] = "tcn"
    """The predictor of vision: a TCN, or a linear layer on statistics over time, as in the source's best system."""
    width: Width = 192
    """Channels of the predictors with a TCN; published are 192 for audio and 128 for vision."""
    tcn_layers: TcnLayers = 6
    """Levels of their TCNs; published are 6 for audio and 4 for vision."""
    text_width: Width = 512
    """Hidden channels of the predictor of text, as published."""
    gate_width: Width = 32
    """Hidden channels of the gate, as published."""
    dropout: ProperFraction = 0.3
    """Published are 0.2 for text, 0.3 for audio, 0.4 for vision."""


class SequencePredictor(nn.Module):
    """Predicts from audio or vision alone: forward(part) -> (B, K), the output for a zero vector if it is missing."""

    def __init__(self, channels: int, quality: int, options: QualityGatedOptions, dimensions: int):
        """quality: how many quality signals the attention reads; 0 for none."""
        super().__init__()
        width, dropout = options.width, options.dropout
        self.project = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), Dropout(dropout))
        self.tcn = TCN(width, options.tcn_layers, 3, dropout)
        self.quality = nn.Linear(quality, 1, bias=False) if quality else None
        self.pool = AttentiveStatistics(width, ATTENTION_WIDTH, dropout)
        self.head = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), Dropout(dropout), nn.Linear(2 * width, dimensions)
        )

    def forward(self, part: ModalityInput) -> Tensor:
        x = self.tcn(self.project(part.x), part.mask)  # (B, T, d)
        bias = None if self.quality is None else self.quality(part.quality).squeeze(-1)  # (B, T)
        return self.head(self.pool(x, part.mask, bias))


class StatisticsPredictor(nn.Module):
    """What vision predicts of B clips alone, from statistics over time: forward(part) -> (B, K) between 0 and 1."""

    def __init__(self, channels: int, dimensions: int):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(4 * channels, dimensions))

    def forward(self, part: ModalityInput) -> Tensor:
        return self.head(masked_statistics(part.x, part.mask)).sigmoid()


class TextPredictor(nn.Module):
    """Predicts from text alone: forward(part) -> (B, K), the output for a zero vector if it is missing."""

    def __init__(self, channels: int, options: QualityGatedOptions, dimensions: int):
        super().__init__()
        self.head = nn.Sequential(
            Dropout(options.dropout),
            nn.Linear(channels, options.text_width),
            nn.GELU(),
            Dropout(options.dropout),
            nn.Linear(options.text_width, dimensions),
        )

    def forward(self, part: ModalityInput) -> Tensor:
        return self.head(masked_mean(part.x, part.mask))


class QualityGated(FusionModel):
    """B clips, M modalities of `options.modalities`, K dimensions. Output.branches: the prediction from each alone."""

    Options = QualityGatedOptions
    encoder_parts = ("predictors",)
    encoder_parts_predict = True

    def __init__(self, options: QualityGatedOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        self.used = [name for name in MODALITIES if name in options.modalities]
        self.predictors = nn.ModuleDict()
        for name in self.used:
            if name == "text":
                self.predictors[name] = TextPredictor(spec.widths[name], options, self.dimensions)
            elif name == "vision" and options.faces == "statistics":
                self.predictors[name] = StatisticsPredictor(spec.widths[name], self.dimensions)
            else:
                signals = len(spec.quality[name]) if name == "vision" else 0
                self.predictors[name] = SequencePredictor(spec.widths[name], signals, options, self.dimensions)
        if len(self.used) > 1:
            counts = [len(spec.quality[name]) for name in self.used]
            self.gate = PredictionGate(self.dimensions, counts, options.gate_width)

    def init_output_bias(self, mean_label: Tensor) -> None:
        for predictor in self.predictors.values():
            *_, output_layer = predictor.get_submodule("head").children()
            set_bias(output_layer, mean_label.logit() if isinstance(predictor, StatisticsPredictor) else mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        alone = [predictor(inputs[name]) for name, predictor in self.predictors.items()]  # (B, K) each
        branches = torch.stack(alone, dim=1).float()  # (B, M, K)
        present = torch.stack([inputs[name].present for name in self.used], dim=1)  # (B, M)
        prediction, weights = branches[:, 0], torch.ones_like(branches)  # (B, K), (B, M, K)
        if len(self.used) > 1:
            quality = [masked_mean(inputs[name].quality, inputs[name].mask) for name in self.used]  # (B, Q) each
            prediction, weights = self.gate(branches, quality, present)  # (B, K), (B, M, K)
        prediction = self.linear_prediction(prediction)
        return Output(prediction, **spread_over_modalities(self.used, branches, weights, present))
