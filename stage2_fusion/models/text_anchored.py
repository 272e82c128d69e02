"""The system of arXiv 2603.14976 (winner of ABAW10): text attends to audio and to vision.

Source: the text vector is the single query of one cross-attention over the audio steps and one over the vision steps (4
heads, hidden 512, LayerNorm on queries and keys); [text, audio', vision'] concatenated, then Linear(512), GELU,
Dropout, Linear, and the output is clipped to [0, 1] afterwards; learned vectors replace the steps, or the text, of a
missing modality; modality dropout 0.1. Differences here: modality dropout never hides the last modality; missing audio
also gets its vector without dropout (the source encodes whatever the clip has); the text encoder is frozen (fine-tuned
in the source), and the text vector is the mean of its token features instead of the CLS state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.options.ranges import Width
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import (
    FeatureSpec,
    FusionModel,
    FusionOptions,
    Output,
    set_bias,
    uniform_weights,
)
from stage2_fusion.models.layers.temporal import masked_mean


@dataclass
class TextAnchoredOptions(FusionOptions):
    width: Width = 512
    """Channels of audio', vision' and of the hidden layer of the MLP, as published."""
    heads: Width = 4
    """Attention heads, as published; must divide width."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(f"width {self.width} must be a multiple of heads = {self.heads}")


class TextQuery(nn.Module):
    """The text as the single query over the T steps of another modality, H heads.

    forward(text (B, C_t), x (B, T, C), mask bool (B, T), a real step in each row) -> (B, d).
    """

    def __init__(self, text_channels: int, channels: int, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Sequential(nn.Linear(text_channels, width), nn.LayerNorm(width))
        self.key = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))
        self.value = nn.Linear(channels, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, text: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.query(text)[:, None], self.key(x), self.value(x))
        )  # (B, H, 1, d / H), (B, H, T, d / H), (B, H, T, d / H)
        dropout = self.dropout if self.training else 0.0
        attended = nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None, None], dropout)
        return self.out_proj(attended.flatten(1))  # (B, d)


class TextAnchored(FusionModel):
    """B clips, T steps of a modality of C channels, d width, K dimensions."""

    Options = TextAnchoredOptions

    def __init__(self, options: TextAnchoredOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width, text = options.width, spec.widths["text"]
        self.cross_attn = nn.ModuleDict(
            {
                name: TextQuery(text, spec.widths[name], width, options.heads, options.dropout)
                for name in ("vision", "audio")
            }
        )
        self.missing = nn.ParameterDict({name: torch.randn(spec.widths[name]) * 0.02 for name in MODALITIES})
        self.head = nn.Sequential(
            nn.Linear(text + 2 * width, width),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(width, self.dimensions),
        )

    def init_output_bias(self, mean_label: Tensor) -> None:
        set_bias(self.head[-1], mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        tokens = masked_mean(inputs["text"].x, inputs["text"].mask)  # (B, C_t)
        text = torch.where(inputs["text"].present[:, None], tokens, self.missing["text"])  # (B, C_t)
        vectors = [text]
        for name, attention in self.cross_attn.items():
            absent = ~inputs[name].present[:, None]  # (B, 1)
            x = torch.where(absent[..., None], self.missing[name], inputs[name].x)  # (B, T, C)
            vectors.append(attention(text, x, inputs[name].mask | absent))  # (B, d)
        return Output(self.linear_prediction(self.head(torch.cat(vectors, dim=1))), *uniform_weights(inputs))
