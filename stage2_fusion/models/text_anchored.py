"""The system of arXiv 2603.14976 (winner of ABAW10): text attends to audio and to vision.

Source: the text vector is the single query of one cross-attention over the audio steps and one over the vision steps (4
heads, hidden 512); [text, audio', vision'] concatenated, then Linear(512), GELU, Dropout, Linear, and the output is
clipped to [0, 1] afterwards; learned vectors for missing modalities; modality dropout 0.1. Differences here: the
learned vectors replace audio' and vision' (source: they replace the steps that are attended to); the text is projected
to 512 (source: used directly); no LayerNorm on queries and keys; dropout before the MLP as well; modality dropout never
hides the last modality; the text encoder is frozen (fine-tuned in the source), and the text vector is the mean of its
token features instead of the CLS state.
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
    """Channels of text, audio', vision' and of the hidden layer of the MLP, as published."""
    heads: Width = 4
    """Attention heads, as published; must divide width."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(f"width {self.width} must be a multiple of heads = {self.heads}")


class TextAnchored(FusionModel):
    """B clips, T steps of a modality, d width, K dimensions."""

    Options = TextAnchoredOptions

    def __init__(self, options: TextAnchoredOptions, spec: FeatureSpec):
        super().__init__(options, spec)
        width = options.width
        self.text_projection = nn.Linear(spec.widths["text"], width)
        self.cross_attn = nn.ModuleDict(
            {
                name: nn.MultiheadAttention(
                    width, options.heads, options.dropout, kdim=channels, vdim=channels, batch_first=True
                )
                for name, channels in ((name, spec.widths[name]) for name in ("vision", "audio"))
            }
        )
        self.missing = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.head = nn.Sequential(
            nn.Dropout(options.dropout),
            nn.Linear(len(MODALITIES) * width, width),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(width, self.dimensions),
        )

    def no_weight_decay(self) -> set[str]:
        return {"missing"}

    def init_output_bias(self, mean_label: Tensor) -> None:
        set_bias(self.head[-1], mean_label)

    def forward(self, batch: Batch) -> Output:
        inputs = self.inputs(batch)
        missing = dict(zip(MODALITIES, self.missing, strict=True))  # (d,) each
        present = {name: inputs[name].present[:, None] for name in MODALITIES}  # (B, 1) each
        tokens = masked_mean(inputs["text"].x, inputs["text"].mask)  # (B, C_t)
        text = torch.where(present["text"], self.text_projection(tokens), missing["text"])  # (B, d)
        vectors = [text]
        for name, attention in self.cross_attn.items():
            x = inputs[name].x  # (B, T, C)
            padding = ~inputs[name].mask & present[name]  # (B, T); all False for a row without steps, replaced below
            attended = attention(text[:, None], x, x, key_padding_mask=padding, need_weights=False)[0][:, 0]  # (B, d)
            vectors.append(torch.where(present[name], attended, missing[name]))
        return Output(self.linear_prediction(self.head(torch.cat(vectors, dim=1))), *uniform_weights(inputs))
