"""The audio system of arXiv 2403.11879 (second at ABAW6): the mean of the frames and the last state of an LSTM.

Source: frames of audeering's wav2vec 2.0, fine-tuned with the system: 1,024 channels and arousal, dominance and
valence; linear output, predictions clipped to [0, 1] afterwards. Differences here: frames of the frozen audio encoder,
of any width (the audeering tower with `append_emotion` gives the same 1,027); dropout is an option (the source has
none).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.options.ranges import Layers, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import (
    FeatureSpec,
    FusionModel,
    FusionOptions,
    Output,
    set_bias,
    uniform_weights,
)
from stage2_fusion.models.layers.temporal import LastState, masked_mean


@dataclass
class LSTMVADOptions(FusionOptions):
    lstm_layers: Layers = 2
    """Layers of the LSTM, as published."""
    width: Width | None = None
    """Channels of the hidden layer of the MLP; by default as many as in its input, as published."""


class LSTMVAD(FusionModel):
    """B clips of C audio channels: [mean (B, C), last state (B, C)] -> Linear, Tanh, Linear -> (B, K)."""

    Options = LSTMVADOptions
    reads = ("audio",)

    def __init__(self, options: LSTMVADOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        channels = spec.widths["audio"]
        width = options.width or 2 * channels
        self.last_state = LastState(channels, options.lstm_layers, options.dropout)
        self.head = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(2 * channels, width),
            nn.Tanh(),
            nn.Linear(width, self.dimensions),
        )

    def init_output_bias(self, mean_label: Tensor) -> None:
        set_bias(self.head[-1], mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        x, mask = inputs["audio"].x, inputs["audio"].mask  # (B, T, C), (B, T)
        vector = torch.cat([masked_mean(x, mask), self.last_state(x, mask)], dim=1)  # (B, 2 C)
        return Output(self.linear_prediction(self.head(vector)), *uniform_weights(inputs))
