"""The system of arXiv 2403.11757 (ABAW6): vision and audio predict separately, and the predictions are averaged.

Source: vision (face features and action units) -> TCN (5 levels, kernel 3, 128 channels), positions, dropout, pre-norm
Transformer (4 heads, 256 hidden, 2 layers), softmax-weighted mean, linear, sigmoid; audio -> TCN, positions, dropout,
mean, two linear layers with a ReLU, sigmoid; plain average. Text is not used. Differences here: all steps, up to the
1,024 of late_fusion.yaml, with a mask (source: sampled or repeated to 300); the TCN of this package: a projection
first, then one centered convolution and one linear layer a level, normalized over channels, not scaled by the root of
the width (source: two causal convolutions a level, weight-normalized); positions in seconds, so that the frame rate
does not matter, and none for audio, where they would only shift the mean; one dropout after them (source: two in a
row); biases in the weighting and the output of vision; PyTorch's initial weights (source: Xavier's); a branch without
its modality is left out of the average (source: it gets noise); action units are MediaPipe blendshapes instead of
OpenFace's, if the features have them (`emit encode --blendshapes`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import Layers, TcnLayers, Width
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
from stage2_fusion.models.layers.temporal import TCN, masked_mean, positions_in_time


@dataclass
class LateFusionOptions(FusionOptions):
    width: Width = 128
    """Channels of both branches, as published."""
    tcn_layers: TcnLayers = 5
    """Levels of both TCNs, with kernel 3, as published."""
    layers: Layers = 2
    """Layers of the Transformer over vision, as published."""
    heads: Width = 4
    """Attention heads of the Transformer, as published; must divide width."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % 2 or self.width % self.heads:
            raise UserError(f"width {self.width} must be even and a multiple of heads = {self.heads}")


class LateFusion(FusionModel):
    """B clips, T steps of a modality, d width, K dimensions. Output.branches holds the prediction of each branch."""

    Options = LateFusionOptions
    reads = ("vision", "audio")  # the first two of MODALITIES, as `forward` requires

    def __init__(self, options: LateFusionOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        self.projections = nn.ModuleDict({name: nn.Linear(spec.widths[name], width) for name in self.reads})
        self.tcn = nn.ModuleDict({name: TCN(width, options.tcn_layers, 3, dropout) for name in self.reads})
        layer = nn.TransformerEncoderLayer(width, options.heads, 2 * width, dropout, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, options.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(width, 1)
        self.hidden = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU())
        self.heads = nn.ModuleDict(
            {"vision": nn.Linear(width, self.dimensions), "audio": nn.Linear(width // 2, self.dimensions)}
        )

    def init_output_bias(self, mean_label: Tensor) -> None:
        for head in self.heads.values():
            set_bias(head, mean_label.logit())

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        vectors = {"vision": self._vision(inputs["vision"]), "audio": self._audio(inputs["audio"])}
        logits = [self.heads[name](vectors[name]) for name in self.reads]  # (B, K) each
        branches = torch.stack(logits, dim=1).float().sigmoid()  # (B, 2, K)
        present = torch.stack([inputs[name].present for name in self.reads], dim=1)[..., None]  # (B, 2, 1)
        # With neither, both vectors are zero: the clip gets the average of both biases, about the mean label.
        counted = present | ~present.any(dim=1, keepdim=True)  # (B, 2, 1)
        prediction = (branches * counted).sum(dim=1) / counted.sum(dim=1)  # (B, K)
        branches = branches.masked_fill(~present, torch.nan)  # (B, 2, K)
        branches = nn.functional.pad(branches, (0, 0, 0, 1), value=torch.nan)  # (B, 3, K): no text branch
        return Output(prediction, *uniform_weights(inputs), branches=branches)

    def _vision(self, part: ModalityInput) -> Tensor:
        """(B, d), zero if vision is absent."""
        x, mask = self.projections["vision"](part.x), part.mask  # (B, T, d), (B, T)
        x = self.tcn["vision"](x, mask) + positions_in_time(part.times, self.options.width)  # (B, T, d)
        padding = ~mask & part.present[:, None]  # (B, T); all False for a row without steps, which is zeroed below
        x = self.transformer(self.dropout(x), src_key_padding_mask=padding)  # (B, T, d)
        scores = self.score(x).float().masked_fill(padding[..., None], -torch.inf)  # (B, T, 1)
        return (scores.softmax(dim=1) * x).sum(dim=1) * part.present[:, None]

    def _audio(self, part: ModalityInput) -> Tensor:
        """(B, d / 2), zero if audio is absent."""
        x = self.tcn["audio"](self.projections["audio"](part.x), part.mask)  # (B, T, d)
        return self.hidden(masked_mean(self.dropout(x), part.mask)) * part.present[:, None]
