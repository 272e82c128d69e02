"""The audio system of arXiv 2403.11879 (second at ABAW6): the mean of the frames beside an LSTM's last state.

The source reads audeering's wav2vec 2.0, fine-tuned with it: 1,024 channels a frame and arousal, dominance and valence.
Here the frames are those of the frozen audio encoder, whatever its channels; the audeering tower with `append_emotion`
gives the same 1,027. The source's output is linear, its predictions clipped to [0, 1] afterwards: so here, inside the
model (see `clipped`). Dropout is ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec, clipped, even_weights
from stage2_fusion.models.layers.temporal import LastState, masked_mean


@dataclass
class LSTMVADOptions(FusionOptions):
    lstm_layers: int = 2
    """As published."""


class LSTMVAD(FusionModel):
    """B clips of C audio channels: [mean (B, C), last state (B, C)] -> Linear, Tanh, Linear -> (B, K)."""

    Options = LSTMVADOptions
    reads = ("audio",)

    def __init__(self, options: LSTMVADOptions, spec: Spec):
        super().__init__(options, spec)
        width = spec.widths["audio"]
        self.last = LastState(width, options.lstm_layers, options.dropout)
        self.head = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(2 * width, 2 * width),
            nn.Tanh(),
            nn.Linear(2 * width, self.dimensions),
        )

    def start_from(self, mean_label: Tensor) -> None:
        self.head[-1].bias.data.copy_(mean_label)

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        x, mask = inputs["audio"]["x"], inputs["audio"]["mask"]  # (B, T, C), (B, T)
        clip = torch.cat([masked_mean(x, mask), self.last(x, mask)], dim=1)  # (B, 2 C)
        return Output(clipped(self.head(clip)), *even_weights(inputs))
