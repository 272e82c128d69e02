"""The fusion of arXiv 2503.10603: temporal enhancement, quality-aware weights, Transformer decoder.

The paper fixes: a TCN over vision, a gated BiLSTM over audio, text as it is; a quality module whose weights multiply
the three features; concatenation; a Transformer decoder; a classifier. Open there and ours: depths and widths, the
gate, how weights are formed, the common time grid, one query per dimension, missing-modality tokens, the loss.

vision --projection--> TCN ----------\\                          x weight
audio  --projection--> gated BiLSTM --+--> common time grid --> (missing: token) --> concatenate --> decoder --> (B, K)
text   --projection--> mean ---------/
"""

import torch
from torch import Tensor, nn

from shared.clips import MODALITIES
from stage2_fusion.config import DualStageConfig
from stage2_fusion.layers.decoder import DimensionDecoder
from stage2_fusion.layers.quality import QualityWeights
from stage2_fusion.layers.temporal import TCN, GatedBiLSTM, grid_times, grid_weights, masked_mean, positions_in_time
from stage2_fusion.models.base import FusionModel, Output, Spec


class DualStage(FusionModel):
    """B clips, T steps of a modality, S steps of the grid, d width, K dimensions.

    The enhancers run at each modality's own rate; only then do features come onto the grid, here rather than in the
    collation, because enhancement has to see the steps before they are averaged.
    """

    Config = DualStageConfig

    def __init__(self, config: DualStageConfig, spec: Spec):
        super().__init__(config, spec)
        width, dropout = config.width, config.dropout
        # No norm behind these: the inputs are normalised, and how far a step is from the mean is the intensity itself.
        self.projections = nn.ModuleDict({name: nn.Linear(spec.widths[name], width) for name in MODALITIES})
        self.tcn = TCN(width, config.tcn_layers, config.tcn_kernel, dropout)
        self.bilstm = GatedBiLSTM(width, config.lstm_layers, dropout)
        if config.pooled:
            self.pooled = nn.ModuleDict({name: nn.Linear(spec.widths["embed"], width) for name in MODALITIES})
        self.quality = QualityWeights(
            width,
            [len(spec.quality[name]) for name in MODALITIES],
            config.weighting,
            config.weight_per,
            config.normaliser,
        )
        self.missing = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.fuse = nn.Sequential(nn.Linear(len(MODALITIES) * width, width), nn.GELU(), nn.Linear(width, width))
        self.dropout = nn.Dropout(dropout)
        self.decoder = DimensionDecoder(width, self.dimensions, config.decoder_layers, config.heads, dropout)
        if config.shortcut:
            self.shortcut = nn.Linear(2 * len(MODALITIES) * width, self.dimensions)
            nn.init.zeros_(self.shortcut.weight)
            nn.init.zeros_(self.shortcut.bias)

    def start_from(self, mean_label: Tensor) -> None:
        self.decoder.head_bias.data.copy_(mean_label.logit())

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        grid = grid_times(batch["duration"], self.config.steps)  # (B, S)
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
        memory = memory + positions_in_time(grid, self.config.width)
        step_mask = mask.any(dim=2)  # (B, S)
        logits, attention = self.decoder(memory, step_mask)  # (B, K), (B, K, S)
        if self.config.shortcut:
            peak = joined.masked_fill(~step_mask[..., None], -torch.inf).amax(dim=1)  # (B, 3 d)
            summary = torch.cat([masked_mean(joined, step_mask), peak.nan_to_num(neginf=0.0)], dim=-1)  # (B, 6 d)
            logits = logits + self.shortcut(summary).float()
        return Output(logits.sigmoid(), weights, step_mask, attention)

    def _on_grid(self, name: str, part: dict, grid: Tensor, duration: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enhanced features (B, S, d), quality signals (B, S, Q) and mask (B, S) of one modality on the grid."""
        x, mask = self.dropout(self.projections[name](part["x"])), part["mask"]  # (B, T, d)
        if name == "text":  # words have no times: the same at every step
            near = part["present"][:, None].expand_as(grid)  # (B, S)
            x = masked_mean(x, mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, d)
            quality = masked_mean(part["quality"], mask)[:, None].expand(-1, grid.shape[1], -1)  # (B, S, Q)
        else:
            x = self.tcn(x, mask) if name == "vision" else self.bilstm(x, mask)  # (B, T, d)
            weights, near = grid_weights(part["times"], mask, grid, duration, self.config.reach)  # (B, S, T)
            x, quality = weights @ x, weights @ part["quality"]  # (B, S, d), (B, S, Q)
        if self.config.pooled:
            x = x + self.dropout(self.pooled[name](part["pooled"]))[:, None]  # (B, S, d)
        return x, quality, near
