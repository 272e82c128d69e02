"""The fusion of arXiv 2503.10603: temporal enhancement, quality-aware weights, Transformer decoder.

The paper fixes: a TCN over vision, a gated BiLSTM over audio, text as it is; a quality module whose weights multiply
the three features; concatenation; a Transformer decoder; a classifier. Open there and ours: depths and widths, the
gate, how weights are formed, the common time grid, one query per dimension, missing-modality tokens, the loss. Added by
us, each an option: the embeddings in the shared space (pooled), and a linear way around the decoder (shortcut).

vision --projection--> TCN ----------\\          + pooled        x weight
audio  --projection--> gated BiLSTM --+--> common time grid --> (missing: token) --> concatenate --> decoder --> (B, K)
text   --projection--> mean ---------/
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec
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
    width: int = 64
    """Channels of everything after the projections. Data of a few thousand clips overfits wider models."""
    steps: int = 32
    """Steps of the common time grid: a clip of seven seconds gets about four a second."""
    reach: float = 1.0
    """Seconds. A grid step further than this from every real step of a modality lacks it (a track that ends early)."""
    tcn_layers: int = 4
    """Dilations 1, 2, 4, 8: with kernel 3 a view of 31 frames, a whole clip at a few frames a second. 0: no TCN."""
    tcn_kernel: int = 3
    """Odd, so that the convolution is centred."""
    lstm_layers: int = 1
    """Layers of the gated BiLSTM over audio. 0: none."""
    weighting: Literal["learned", "uniform"] = "learned"
    """learned, or uniform: the same for every modality present (the ablation; 1/2 each with sigmoid)."""
    weight_per: Literal["step", "clip"] = "step"
    """step, or clip: one score per modality for the whole clip, normalised over what is there at each step. Damage
    comes and goes, so step."""
    normaliser: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: weights of a step sum to one; sigmoid: each modality is judged alone."""
    queries: Literal["learned", "fused", "text"] = "fused"
    """The decoder's queries are one learned vector a dimension, and added to it nothing (learned), a projection of the
    mean of the fused steps (fused), or of the words (text)."""
    decoder_layers: int = 2
    """Layers of the decoder whose queries are the dimensions. 0: no attention, the queries alone are classified; they
    must be fused and hold the mean over time (the ablation)."""
    heads: int = 4
    """Attention heads; must divide width."""
    pooled: bool = True
    """Add each modality's embedding in the shared space to its steps."""
    shortcut: bool = True
    """Let the classifier also read mean and peak over time of the weighted features, linearly: what needs no decoder is
    then learned at once, and the decoder adds to it."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UserError(f"width {self.width} must be a multiple of 2 x heads = {2 * self.heads}")
        if self.tcn_kernel % 2 == 0:
            raise UserError(f"tcn_kernel {self.tcn_kernel} must be odd")
        if self.queries != "fused" and not self.decoder_layers:
            raise UserError("decoder_layers 0 reads the clip through the queries: set queries to fused")


class DualStage(FusionModel):
    """B clips, T steps of a modality, S steps of the grid, d width, K dimensions.

    The enhancers run at each modality's own rate; only then do features come onto the grid, here rather than in the
    collation, because enhancement has to see the steps before they are averaged.
    """

    Options = DualStageOptions

    def __init__(self, options: DualStageOptions, spec: Spec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        # No norm behind these: the inputs are normalised, and how far a step is from the mean is the intensity itself.
        self.projections = nn.ModuleDict({name: nn.Linear(spec.widths[name], width) for name in MODALITIES})
        self.tcn = TCN(width, options.tcn_layers, options.tcn_kernel, dropout)
        self.bilstm = GatedBiLSTM(width, options.lstm_layers, dropout) if options.lstm_layers else None
        if options.pooled:
            self.pooled = nn.ModuleDict({name: nn.Linear(spec.widths["embed"], width) for name in MODALITIES})
        self.quality = QualityWeights(
            width,
            [len(spec.quality[name]) for name in MODALITIES],
            options.weighting,
            options.weight_per,
            options.normaliser,
        )
        self.missing = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.fuse = nn.Sequential(nn.Linear(len(MODALITIES) * width, width), nn.GELU(), nn.Linear(width, width))
        self.dropout = Dropout(dropout)
        self.decoder = DimensionDecoder(
            width, self.dimensions, options.decoder_layers, options.heads, dropout, options.queries != "learned"
        )
        if options.shortcut:
            self.shortcut = nn.Linear(2 * len(MODALITIES) * width, self.dimensions)
            nn.init.zeros_(self.shortcut.weight)
            nn.init.zeros_(self.shortcut.bias)

    def start_from(self, mean_label: Tensor) -> None:
        self.decoder.head_bias.data.copy_(mean_label.logit())

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        grid = grid_times(batch["duration"], self.options.steps)  # (B, S)
        features, quality, masks = zip(
            *(self._on_grid(name, inputs[name], grid, batch["duration"]) for name in MODALITIES), strict=True
        )
        mask = torch.stack(masks, dim=2)  # (B, S, 3)
        weights = self.quality(features, quality, mask)  # (B, S, 3)
        slots = [
            torch.where(mask[..., m, None], features[m] * weights[..., m, None], self.missing[m])  # (B, S, d)
            for m in range(len(MODALITIES))
        ]
        joined = self.dropout(torch.cat(slots, dim=-1))  # (B, S, 3 d)
        memory = self.fuse(joined)  # (B, S, d)
        memory = memory + positions_in_time(grid, self.options.width)
        step_mask = mask.any(dim=2)  # (B, S)
        hint = slots[MODALITIES.index("text")].mean(dim=1) if self.options.queries == "text" else None  # (B, d)
        logits, attention = self.decoder(memory, step_mask, hint)  # (B, K), (B, K, S)
        if self.options.shortcut:
            peak = joined.masked_fill(~step_mask[..., None], -torch.inf).amax(dim=1)  # (B, 3 d)
            summary = torch.cat([masked_mean(joined, step_mask), peak.nan_to_num(neginf=0.0)], dim=-1)  # (B, 6 d)
            logits = logits + self.shortcut(summary).float()
        return Output(logits.sigmoid(), weights, step_mask, attention, times=grid)

    def _on_grid(self, name: str, part: dict, grid: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enhanced features (B, S, d), quality signals (B, S, Q) and mask (B, S) of one modality on the grid."""
        x, mask = self.dropout(self.projections[name](part["x"])), part["mask"]  # (B, T, d)
        if name == "text":  # words have no times: the same at every step
            near = part["present"][:, None].expand_as(grid)  # (B, S)
            x = masked_mean(x, mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, d)
            quality = masked_mean(part["quality"], mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, Q)
        else:
            enhance = self.tcn if name == "vision" else self.bilstm
            x = enhance(x, mask) if enhance is not None else x  # (B, T, d)
            weights, near = grid_weights(part["times"], mask, grid, duration, self.options.reach)  # (B, S, T)
            x, quality = weights @ x, weights @ part["quality"]  # (B, S, d), (B, S, Q)
        if self.options.pooled:
            x = x + self.dropout(self.pooled[name](part["pooled"]))[:, None]  # (B, S, d)
        return x, quality, near
