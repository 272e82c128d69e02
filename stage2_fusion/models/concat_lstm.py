"""The system of arXiv 2504.11460 (winner of ABAW8): an LSTM over vision, an LSTM over audio, a text vector, an MLP.

Source: the last states of two LSTMs with two layers each and the CLS vector of the text encoder are concatenated; then
Linear, Tanh, Linear, and the output is clipped to [0, 1] afterwards. Differences here: the vision LSTM is as wide as
its features, like the audio LSTM (the source reduces 1,280 channels to 768); dropout is an option (the source has
none); a missing modality is zero (the source draws noise for vision); the text encoder is frozen (fine-tuned in the
source), and the text vector is the mean of its token features, because not every text tower has a CLS state.
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
class ConcatLSTMOptions(FusionOptions):
    lstm_layers: Layers = 2
    """Layers of each LSTM."""
    width: Width = 1027
    """Channels of the hidden layer of the MLP, as published."""


class ConcatLSTM(FusionModel):
    """[last vision state (B, C_v), last audio state (B, C_a), mean token (B, C_t)] -> Linear, Tanh, Linear -> (B, K).
    A missing modality is zero, the mean of its normalized channels."""

    Options = ConcatLSTMOptions

    def __init__(self, options: ConcatLSTMOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        self.last_states = nn.ModuleDict(
            {name: LastState(spec.widths[name], options.lstm_layers, options.dropout) for name in ("vision", "audio")}
        )
        self.head = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(sum(spec.widths[name] for name in ("vision", "audio", "text")), options.width),
            nn.Tanh(),
            nn.Dropout(options.dropout),
            nn.Linear(options.width, self.dimensions),
        )

    def init_output_bias(self, mean_label: Tensor) -> None:
        set_bias(self.head[-1], mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        parts = [
            last_state(inputs[name].x, inputs[name].mask) for name, last_state in self.last_states.items()
        ]  # (B, C) each
        parts.append(masked_mean(inputs["text"].x, inputs["text"].mask))  # (B, C_t)
        return Output(self.linear_prediction(self.head(torch.cat(parts, dim=1))), *uniform_weights(inputs))
