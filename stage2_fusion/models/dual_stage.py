"""The fusion of arXiv 2503.10603: temporal enhancement, quality-aware weights, Transformer decoder.

The paper fixes: a TCN over vision, a gated BiLSTM over audio, text unchanged; a quality module whose weights multiply
the three features; concatenation; a Transformer decoder; a classifier. Our choices, which the paper leaves open: depths
and widths, the gate, how the weights are computed, the common time grid, one query per dimension, missing-modality
tokens, the loss. We added as options: the embeddings in the shared space (pooled) and a linear bypass of the decoder
(shortcut). The decoder itself is an option, off by default.

vision --projection--> TCN ----------\\          + pooled        x weight
audio  --projection--> gated BiLSTM --+--> common time grid --> (missing: token) --> concat --> [decoder] --> (B, K)
text   --projection--> mean ---------/
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.options.ranges import Kernel, LayersOrNone, NonNegativeFloat, ProperFraction, Steps, TcnLayersOrNone, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FeatureSpec, FusionModel, FusionOptions, ModalityInput, Output
from stage2_fusion.models.layers.decoder import DimensionDecoder
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.quality import QualityWeights
from stage2_fusion.models.layers.temporal import (
    TCN,
    GatedBiLSTM,
    grid_times,
    grid_weights,
    masked_mean,
    positions_in_time,
)


@dataclass
class DualStageOptions(FusionOptions):
    RENAMED: ClassVar[dict[str, str]] = {"normaliser": "normalizer", "reach": "max_gap_seconds"}

    width: Width = 64
    """Channels of everything after the projections. Wider models overfit data of a few thousand clips."""
    steps: Steps = 32
    """Steps of the common time grid: about four per second for a clip of seven seconds."""
    max_gap_seconds: NonNegativeFloat = 1.0
    """A modality is missing at grid steps further than this from all its real steps (a track that ends early)."""
    tcn_layers: TcnLayersOrNone = 4
    """Dilations 1, 2, 4, 8: with kernel 3 a receptive field of 31 frames, a few seconds. 0: no TCN."""
    tcn_kernel: Kernel = 3
    """Odd, so that the convolution is centered."""
    lstm_layers: LayersOrNone = 1
    """Layers of the gated BiLSTM over audio. 0: none."""
    weighting: Literal["learned", "uniform"] = "learned"
    """uniform: the same weight for all modalities present (the ablation; 1/2 each with sigmoid)."""
    weight_per: Literal["step", "clip"] = "step"
    """step: for damage that comes and goes. clip: one score per modality for the whole clip, normalized over the
    modalities present at each step."""
    normalizer: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: weights of a step sum to one. sigmoid: each modality is judged independently."""
    queries: Literal["learned", "fused", "text"] = "fused"
    """The decoder has one learned query per dimension (learned), plus a projection of the mean of the fused steps
    (fused) or of the text (text)."""
    decoder_layers: LayersOrNone = 0
    """Layers of the decoder; 2 to follow the paper, 0 because no certain gain was measured. With 0 there is no
    attention, and the queries, which must be fused to hold the mean over time, are classified directly."""
    heads: Width = 4
    """Attention heads; must divide width."""
    input_dropout: ProperFraction = 0.0
    """Dropout of input channels, the same ones at all steps of a clip: `dropout` draws again at each step, which
    averages out over time. Use 0.3 for a few hundred clips with hundreds of channels."""
    pooled: bool = True
    """Add each modality's embedding in the shared space to its steps."""
    shortcut: bool = True
    """The classifier also gets the mean and maximum over time of the weighted features, linearly: what needs no decoder
    is learned quickly, and the decoder adds to it."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UserError(f"width {self.width} must be a multiple of 2 x heads = {2 * self.heads}")
        if self.tcn_kernel % 2 == 0:
            raise UserError(f"tcn_kernel {self.tcn_kernel} must be odd")
        if self.queries != "fused" and not self.decoder_layers:
            raise UserError(f"queries {self.queries} are for a decoder: set decoder_layers 2, or queries fused")


class DualStage(FusionModel):
    """B clips, T steps of a modality, S steps of the grid, d width, K dimensions.

    The enhancers run at the rate of each modality. Features are resampled to the grid after them, here and not in
    collation, because enhancement needs the steps before averaging.
    """

    Options = DualStageOptions

    def __init__(self, options: DualStageOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        # No norm after these: the inputs are normalized, and the distance of a step from the mean encodes intensity.
        self.projections = nn.ModuleDict({name: nn.Linear(spec.widths[name], width) for name in MODALITIES})
        self.tcn = TCN(width, options.tcn_layers, options.tcn_kernel, dropout)
        self.bilstm = GatedBiLSTM(width, options.lstm_layers, dropout) if options.lstm_layers else None
        if options.pooled:
            self.pooled_projections = nn.ModuleDict(
                {name: nn.Linear(spec.widths["embed"], width) for name in MODALITIES}
            )
        self.quality_weights = QualityWeights(
            width,
            [len(spec.quality[name]) for name in MODALITIES],
            options.weighting,
            options.weight_per,
            options.normalizer,
        )
        self.missing = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.fuse = nn.Sequential(nn.Linear(len(MODALITIES) * width, width), nn.GELU(), nn.Linear(width, width))
        self.dropout, self.input_dropout = Dropout(dropout), Dropout(options.input_dropout)
        self.decoder = DimensionDecoder(
            width, self.dimensions, options.decoder_layers, options.heads, dropout, options.queries != "learned"
        )
        if options.shortcut:
            self.shortcut = nn.Linear(2 * len(MODALITIES) * width, self.dimensions)
            nn.init.zeros_(self.shortcut.weight)
            nn.init.zeros_(self.shortcut.bias)

    def no_weight_decay(self) -> set[str]:
        return {"missing", "decoder.queries"}

    def init_output_bias(self, mean_label: Tensor) -> None:
        self.decoder.head_bias.data.copy_(mean_label.logit())

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        grid = grid_times(batch.duration, self.options.steps)  # (B, S)
        features, quality, masks = zip(
            *(self._on_grid(name, inputs[name], grid, batch.duration) for name in MODALITIES), strict=True
        )
        mask = torch.stack(masks, dim=2)  # (B, S, 3)
        weights = self.quality_weights(features, quality, mask)  # (B, S, 3)
        slots = [
            torch.where(mask[..., m, None], features[m] * weights[..., m, None], self.missing[m])  # (B, S, d)
            for m in range(len(MODALITIES))
        ]
        joined = self.dropout(torch.cat(slots, dim=-1))  # (B, S, 3 d)
        memory = self.fuse(joined)  # (B, S, d)
        memory = memory + positions_in_time(grid, self.options.width)
        step_mask = mask.any(dim=2)  # (B, S)
        summary = slots[MODALITIES.index("text")].mean(dim=1) if self.options.queries == "text" else None  # (B, d)
        logits, attention = self.decoder(memory, step_mask, summary)  # (B, K), (B, K, S)
        if self.options.shortcut:
            maximum = joined.masked_fill(~step_mask[..., None], -torch.inf).amax(dim=1)  # (B, 3 d)
            pooled = torch.cat([masked_mean(joined, step_mask), maximum.nan_to_num(neginf=0.0)], dim=-1)  # (B, 6 d)
            logits = logits + self.shortcut(pooled).float()
        return Output(logits.sigmoid(), weights, step_mask, attention, times=grid)

    def _on_grid(self, name: str, part: ModalityInput, grid: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enhanced features (B, S, d), quality signals (B, S, Q) and mask (B, S) of one modality on the grid."""
        x, mask = part.x, part.mask  # (B, T, C), (B, T)
        if self.training and self.options.input_dropout:
            x = x * self.input_dropout(torch.ones_like(x[:, :1]))  # (B, T, C)
        x = self.dropout(self.projections[name](x))  # (B, T, d)
        if name == "text":  # text has no times: the same at every step
            near = part.present[:, None].expand_as(grid)  # (B, S)
            x = masked_mean(x, mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, d)
            quality = masked_mean(part.quality, mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, Q)
        else:
            enhance = self.tcn if name == "vision" else self.bilstm
            x = enhance(x, mask) if enhance is not None else x  # (B, T, d)
            weights, near = grid_weights(part.times, mask, grid, duration, self.options.max_gap_seconds)  # (B, S, T)
            x, quality = weights @ x, weights @ part.quality  # (B, S, d), (B, S, Q)
        if self.options.pooled:
            x = x + self.dropout(self.pooled_projections[name](part.pooled))[:, None]  # (B, S, d)
        return x, quality, near
