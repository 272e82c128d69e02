"""The system of arXiv 2603.13760 (second at ABAW10): one vector per modality, concatenated; audio with a latent prior.

Source: each sequence is average-pooled to 128 steps; per modality LayerNorm, Linear, GELU, Dropout, mean, LayerNorm,
Linear(256); the three vectors are concatenated, then LayerNorm, Linear, GELU, Dropout, Linear, Sigmoid; three sigmoid
units on the mean of the projected audio steps are appended to each step, which is projected again; a penalty keeps the
units near 0.5 ("VAD-inspired": they never see valence, arousal or dominance); the loss includes an auxiliary prediction
of each modality, by a head like the main one. Differences here: the vector of a missing modality is zero
(source: it encodes a row of zeros), and its auxiliary prediction and penalty do not count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.options.ranges import Steps, Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FeatureSpec, FusionModel, FusionOptions, Output, set_bias, uniform_weights

PRIOR_UNITS = 3


@dataclass
class ConcatVADOptions(FusionOptions):
    steps: Steps = 128
    """Steps of every sequence after adaptive average pooling, as published. Shorter sequences repeat steps."""
    width: Width = 256
    """Channels of the modality vectors and of the hidden layers, as published."""


class ConcatVAD(FusionModel):
    """B clips, T steps of a modality, S steps after pooling, d width, K dimensions. Output.branches: the auxiliary
    predictions; Output.penalty: mean squared distance of the prior units from 0.5, 0 without audio."""

    Options = ConcatVADOptions

    def __init__(self, options: ConcatVADOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        self.step_mlps, self.clip_mlps, self.branch_heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in MODALITIES:
            self.step_mlps[name] = _mlp(spec.widths[name], width, dropout)
            self.clip_mlps[name] = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
            self.branch_heads[name] = nn.Sequential(*_mlp(width, width, dropout), nn.Linear(width, self.dimensions))
        self.prior = nn.Sequential(*_mlp(width, width // 2, dropout), nn.Linear(width // 2, PRIOR_UNITS))
        self.prior_mlp = _mlp(width + PRIOR_UNITS, width, dropout)
        self.head = nn.Sequential(*_mlp(len(MODALITIES) * width, width, dropout), nn.Linear(width, self.dimensions))

    def init_output_bias(self, mean_label: Tensor) -> None:
        for head in (self.head, *self.branch_heads.values()):
            *_, output_layer = head.children()
            set_bias(output_layer, mean_label.logit())

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        penalty, vectors, branches = None, [], []
        for name in MODALITIES:
            present = inputs[name].present[:, None]  # (B, 1)
            x = pool_steps(inputs[name].x, inputs[name].mask, self.options.steps)  # (B, S, C)
            x = self.step_mlps[name](x)  # (B, S, d)
            if name == "audio":
                prior = self.prior(x.mean(dim=1)).sigmoid()  # (B, 3)
                penalty = (prior - 0.5).square().mean(dim=1) * present[:, 0]  # (B,)
                x = torch.cat([x, prior[:, None].expand(-1, x.shape[1], -1)], dim=-1)  # (B, S, d + 3)
                x = self.prior_mlp(x)  # (B, S, d)
            vector = self.clip_mlps[name](x.mean(dim=1)) * present  # (B, d)
            branch = self.branch_heads[name](vector).float().sigmoid()  # (B, K)
            vectors.append(vector)
            branches.append(branch.masked_fill(~present, torch.nan))
        prediction = self.head(torch.cat(vectors, dim=1)).float().sigmoid()  # (B, K)
        return Output(prediction, *uniform_weights(inputs), branches=torch.stack(branches, dim=1), penalty=penalty)


def _mlp(channels: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width), nn.GELU(), nn.Dropout(dropout))


def pool_steps(x: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Adaptive average pooling of the real steps of each row: (B, T, C), (B, T) -> (B, S, C), zero for a row without
    steps. Output step s of S is the mean of the real steps from floor(s n / S) to ceil((s + 1) n / S) - 1 of n."""
    length = mask.sum(dim=1)[:, None]  # (B, 1)
    s = torch.arange(steps, device=x.device)  # (S,)
    first, end = s * length // steps, ((s + 1) * length + steps - 1) // steps  # (B, S) each
    t = torch.arange(x.shape[1], device=x.device)  # (T,)
    window = (t >= first[..., None]) & (t < end[..., None])  # (B, S, T)
    return (window.to(x.dtype) @ x) / (end - first).clamp(min=1)[..., None]
