"""The system of arXiv 2603.14976 (winner of ABAW10): the text asks the audio and the vision.

The source fixes: the text's vector as the single query of one cross-attention over the audio steps and one over the
vision steps (4 heads, hidden 512); [text, audio', vision'] concatenated, then Linear(512), GELU, Dropout, Linear, whose
output is clipped to [0, 1] afterwards; learned vectors for what is missing; modality dropout 0.1. Departures: the
vectors stand in place of audio' and vision', where the source puts them in place of the steps that are asked (that of
the text asks in both); the text is projected to 512, where the source takes it as it is; no LayerNorm on queries and
keys; dropout before the MLP as well; modality dropout leaves one modality, where the source may hide all. Its text
encoder is fine-tuned; ours is frozen, and the text's vector is the mean of the words' features, not the CLS state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.models.base import FusionModel, FusionOptions, Output, Spec, clipped, even_weights
from stage2_fusion.models.layers.temporal import masked_mean


@dataclass
class TextAnchoredOptions(FusionOptions):
    width: int = 512
    """Channels of text, audio', vision' and of the MLP's hidden layer, as published."""
    heads: int = 4
    """Attention heads, as published; must divide width."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise UserError(f"width {self.width} must be a multiple of heads = {self.heads}")


class TextAnchored(FusionModel):
    """B clips, T steps of a modality, d width, K dimensions."""

    Options = TextAnchoredOptions

    def __init__(self, options: TextAnchoredOptions, spec: Spec):
        super().__init__(options, spec)
        width = options.width
        self.text = nn.Linear(spec.widths["text"], width)
        self.over = nn.ModuleDict(
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

    def start_from(self, mean_label: Tensor) -> None:
        self.head[-1].bias.data.copy_(mean_label)

    def forward(self, batch: dict) -> Output:
        inputs = self.inputs(batch)
        missing = dict(zip(MODALITIES, self.missing, strict=True))  # (d,) each
        there = {name: inputs[name]["present"][:, None] for name in MODALITIES}  # (B, 1) each
        words = masked_mean(inputs["text"]["x"], inputs["text"]["mask"])  # (B, C_t)
        text = torch.where(there["text"], self.text(words), missing["text"])  # (B, d)
        parts = [text]
        for name, over in self.over.items():
            x = inputs[name]["x"]  # (B, T, C)
            padding = ~inputs[name]["mask"] & there[name]  # (B, T): a row without any step is read whole, and replaced
            answer = over(text[:, None], x, x, key_padding_mask=padding, need_weights=False)[0][:, 0]  # (B, d)
            parts.append(torch.where(there[name], answer, missing[name]))
        return Output(clipped(self.head(torch.cat(parts, dim=1))), *even_weights(inputs))
