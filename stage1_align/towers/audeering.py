"""Audio: audeering's wav2vec 2.0 for arousal, dominance and valence (Wagner et al. 2023, arXiv 2203.07378)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from stage1_align.towers.audio_checkpoints import load_prefix, read_weights
from stage1_align.towers.base import Encoded
from stage1_align.towers.wav2vec2 import Wav2vec2, Wav2vec2Options

EMOTIONS = ("arousal", "dominance", "valence")


@dataclass
class AudeeringOptions(Wav2vec2Options):
    append_emotion: bool = False
    """Append arousal, dominance and valence, which the head predicts from each frame's hidden state, as three channels
    at the end of the sequence: the input of lstm_vad, concat_lstm and text_anchored."""


class Audeering(Wav2vec2):
    """The wav2vec2 tower with audeering's regression head, from a local folder of
    audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim.

    The weights are CC-BY-NC-SA-4.0: no commercial use, and models trained from them have the same license. The head
    stays frozen. Its values match audeering's evaluation only while the blocks below are frozen too.
    """

    Options = AudeeringOptions

    def __init__(self, options: AudeeringOptions, embed_dim: int):
        if options.layer != "last":
            raise UserError(f"layer is {options.layer!r}: audeering's head reads the last layer; leave it at last")
        super().__init__(options, embed_dim)
        self.classifier = Head(self.net.config.hidden_size).requires_grad_(False)
        if options.pretrained:
            names = [str(name).lower() for _, name in sorted(self.net.config.id2label.items())]
            if names != list(EMOTIONS):
                raise UserError(f"{options.pretrained}: predicts {', '.join(names)}, not {', '.join(EMOTIONS)}")
            folder = Path(options.pretrained)
            path = folder / "model.safetensors"
            path = path if path.is_file() else folder / "pytorch_model.bin"
            load_prefix(self.classifier, read_weights(path), "classifier.", path)

    @property
    def width(self) -> int:
        return super().width + len(EMOTIONS) * self.options.append_emotion

    @torch.no_grad()
    def emotion(self, items: list[np.ndarray]) -> Tensor:
        """Arousal, dominance and valence (B, 3) of whole clips, about 0 to 1, from the mean of their frames.
        items: waveforms float32 (S_i,) at 16 kHz; NaN without sound."""
        device = next(self.parameters()).device
        hidden, mask = self._hidden(**{name: value.to(device) for name, value in self.collate(items).items()})
        pooled = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, C)
        return self._predict(pooled).masked_fill(~mask.any(1, keepdim=True), torch.nan)  # (B, 3)

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, S), samples int64 (B,): the real length of each clip."""
        hidden, mask = self._hidden(waveform, samples)
        if self.options.append_emotion:
            hidden = torch.cat([hidden.float(), self._predict(hidden)], 2)  # (B, T, C + 3)
        return self._finish(hidden, mask, self.rate)

    def _predict(self, hidden: Tensor) -> Tensor:
        """(..., C) to fp32 (..., 3)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.classifier(hidden.float())


class Head(nn.Module):
    """Two linear layers with a tanh between them, under their published names."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, len(EMOTIONS))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., 3)."""
        return self.out_proj(self.dense(x).tanh())
