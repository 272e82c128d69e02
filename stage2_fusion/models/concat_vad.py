"""The system of arXiv 2603.13760 (second at ABAW10): one vector a modality, concatenated; audio under a latent prior.

The source fixes: every sequence average-pooled to 128 steps; per modality LayerNorm, Linear, GELU, Dropout, the mean,
LayerNorm, Linear(256); the three concatenated, LayerNorm, Linear, GELU, Dropout, Linear, Sigmoid; three sigmoid units
on the mean audio vector, joined to every audio step, and kept near 0.5 by a penalty ("VAD-inspired": no valence,
arousal or dominance is ever shown to them); in the loss, an auxiliary prediction of each modality. Departures: the
three units are one linear layer over the features, where the source's are two over projected steps, which are projected
again once joined; an auxiliary prediction is one linear layer, where the source repeats the layers of the main one; a
missing modality's vector is zero, where the source encodes a row of zeros; what it would predict does not count, nor
does the penalty without audio.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec, even_weights

PRIOR = 3  # units of the latent prior


@dataclass
class ConcatVADOptions(FusionOptions):
    steps: int = 128
    """Steps that every sequence is averaged, or where shorter repeated, to. As published."""
    width: int = 256
    """Channels of each modality's vector and of the hidden layers, as published."""


class ConcatVAD(FusionModel):
    """B clips, T steps of a modality, S steps after pooling, d width, K dimensions. Output.branches: each modality's
    auxiliary prediction; Output.penalty: the prior's mean squared distance from 0.5, 0 without audio."""

    Options = ConcatVADOptions

    def __init__(self, options: ConcatVADOptions, spec: Spec):
        super().__init__(options, spec)
        width, dropout = options.width, options.dropout
        self.prior = nn.Linear(spec.widths["audio"], PRIOR)
        self.steps, self.clips, self.branches = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in MODALITIES:
            channels = spec.widths[name] + PRIOR * (name == "audio")
            self.steps[name] = nn.Sequential(
                nn.LayerNorm(channels), nn.Linear(channels, width), nn.GELU(), nn.Dropout(dropout)
            )
            self.clips[name] = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
            self.branches[name] = nn.Linear(width, self.dimensions)
        self.head = nn.Sequential(
            nn.LayerNorm(len(MODALITIES) * width),
            nn.Linear(len(MODALITIES) * width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, self.dimensions),
        )

    def start_from(self, mean_label: Tensor) -> None:
        for layer in (self.head[-1], *self.branches.values()):
            layer.bias.data.copy_(mean_label.logit())

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        penalty, parts, branches = None, [], []
        for name in MODALITIES:
            present = inputs[name]["present"][:, None]  # (B, 1)
            x = pool_steps(inputs[name]["x"], inputs[name]["mask"], self.options.steps)  # (B, S, C)
            if name == "audio":
                prior = self.prior(x.mean(dim=1)).sigmoid()  # (B, 3)
                penalty = (prior - 0.5).square().mean(dim=1) * present[:, 0]  # (B,)
                x = torch.cat([x, prior[:, None].expand(-1, x.shape[1], -1)], dim=-1)  # (B, S, C + 3)
            clip = self.clips[name](self.steps[name](x).mean(dim=1)) * present  # (B, d)
            alone = self.branches[name](clip).float().sigmoid()  # (B, K)
            parts.append(clip)
            branches.append(alone.masked_fill(~present, torch.nan))
        prediction = self.head(torch.cat(parts, dim=1)).float().sigmoid()  # (B, K)
        return Output(prediction, *even_weights(inputs), branches=torch.stack(branches, dim=1), penalty=penalty)


def pool_steps(x: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Adaptive average pooling of each row's real steps alone: (B, T, C), (B, T) -> (B, S, C), zero for a row without.

    Step s of S is the mean of the n real steps from floor(s n / S) up to ceil((s + 1) n / S).
    """
    length = mask.sum(dim=1)[:, None]  # (B, 1)
    s = torch.arange(steps, device=x.device)  # (S,)
    first, end = s * length // steps, ((s + 1) * length + steps - 1) // steps  # (B, S) each
    t = torch.arange(x.shape[1], device=x.device)  # (T,)
    window = (t >= first[..., None]) & (t < end[..., None])  # (B, S, T)
    return (window.to(x.dtype) @ x) / (end - first).clamp(min=1)[..., None]
