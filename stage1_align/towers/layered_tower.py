"""The base of the audio towers with a transformer trunk: which hidden state of a published encoder is the sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, LayersOrNone
from stage1_align.towers.audio_tower import AudioTower

MIX = "weighted"


@dataclass(kw_only=True)
class LayeredOptions(CheckedOptions):
    """Options of all towers with a choice of layer."""

    layer: LayersOrNone | str = "last"
    """The hidden state to use as the sequence: "last", the model's output; an int i, the output of block i (later
    blocks are dropped); or "weighted", a learned average of all (softmax over one weight each, as in SUPERB, Yang et
    al. 2021, arXiv 2105.01051), which also trains on a frozen trunk: the last layer is seldom the best for emotion."""


class LayeredTower(AudioTower):
    """An encoder with a choice of hidden state, numbered as in transformers: 0 is the input of the first block, i the
    output of block i, and the last one, after the final norm, the model's output.

    A subclass calls `_choose_layer` when its blocks are built, drops the blocks after the returned number, and passes
    the hidden states through `_mix` if the layer is MIX.
    """

    HEADS = (*AudioTower.HEADS, "layer_weights")
    layer_weights: nn.Parameter | None
    """Weights of the learned average before the softmax: (L + 1,). None with another layer."""

    def _choose_layer(self, count: int) -> int:
        """How many of `count` blocks to keep. UserError for a layer that does not exist."""
        layer = self.options.layer
        self.register_parameter("layer_weights", nn.Parameter(torch.zeros(count + 1)) if layer == MIX else None)
        if layer in (MIX, "last"):
            return count
        if isinstance(layer, int) and 0 <= layer <= count:
            return layer
        raise UserError(f'layer is {layer!r}: expected a number from 0 to {count}, "last" or "{MIX}"')

    def _mix(self, states: Sequence[Tensor]) -> Tensor:
        """The average of L + 1 hidden states, each (B, T, C): fp32 (B, T, C)."""
        assert self.layer_weights is not None
        shares = self.layer_weights.softmax(0)  # (L + 1,)
        mixed = shares[0] * states[0].float()  # (B, T, C)
        for share, state in zip(shares[1:], states[1:], strict=True):
            mixed = mixed + share * state.float()  # (B, T, C)
        return mixed

    def calibrate(self, items: list[np.ndarray]) -> None:
        """Nothing to set: each clip is normalized individually. UserError if no clip has sound, as in any tower."""
        if not any(len(item) for item in items):
            raise UserError("no clip has sound: an audio tower cannot be trained on this dataset")
