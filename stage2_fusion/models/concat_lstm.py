"""The system of arXiv 2504.11460 (winner of ABAW8): LSTM over vision, LSTM over audio, the text's vector, an MLP.

The source fixes: two layers in each LSTM, whose last states and the text encoder's CLS vector are concatenated, then
Linear, Tanh, Linear, whose output is clipped to [0, 1] afterwards. Departures: vision's LSTM is as wide as its
features, as audio's is, where the source goes from 1,280 channels to 768; the hidden layer's width is an option, 1,027
in the source; dropout. Its text encoder is fine-tuned; ours is frozen, and the text's vector is the mean of the words'
features: not every text tower has a CLS state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec, clipped, even_weights
from stage2_fusion.models.layers.temporal import LastState, masked_mean


@dataclass
class ConcatLSTMOptions(FusionOptions):
    lstm_layers: int = 2
    """Of each LSTM."""
    width: int = 256
    """Channels of the MLP's hidden layer."""


class ConcatLSTM(FusionModel):
    """[vision's last state (B, C_v), audio's (B, C_a), mean of the words (B, C_t)] -> Linear, Tanh, Linear -> (B, K).
    A missing modality is zero, which is where its channels have their mean."""

    Options = ConcatLSTMOptions

    def __init__(self, options: ConcatLSTMOptions, spec: Spec):
        super().__init__(options, spec)
        self.last = nn.ModuleDict(
            {name: LastState(spec.widths[name], options.lstm_layers, options.dropout) for name in ("vision", "audio")}
        )
        self.head = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(sum(spec.widths[name] for name in ("vision", "audio", "text")), options.width),
            nn.Tanh(),
            nn.Dropout(options.dropout),
            nn.Linear(options.width, self.dimensions),
        )

    def start_from(self, mean_label: Tensor) -> None:
        self.head[-1].bias.data.copy_(mean_label)

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        parts = [last(inputs[name]["x"], inputs[name]["mask"]) for name, last in self.last.items()]  # (B, C) each
        parts.append(masked_mean(inputs["text"]["x"], inputs["text"]["mask"]))  # (B, C_t)
        return Output(clipped(self.head(torch.cat(parts, dim=1))), *even_weights(inputs))
