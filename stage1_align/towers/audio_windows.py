"""Sound in whole windows: what HTS-AT towers share, whoever's implementation they run."""

import math

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from stage1_align.towers.base import Encoded, Tower


class WindowedTower(Tower):
    """Waveforms of any length to distinct frames (T, C) at a stated rate and their mean in the shared space.

    HTS-AT stretches whatever is shorter than its window and repeats each output frame. Here every clip is cut into
    whole windows, the last one padded with silence, and each distinct frame is taken once: the rate is the same for all
    clips, and a clip's output does not depend on its batch. Frames that start after the clip's end are masked.

    A subclass sets `sample_rate` (Hz), `hop` (samples between spectrogram frames), `window` (samples of one window) and
    `steps` (distinct frames of one window), and says how a window is turned into frames.
    """

    sample_rate: int
    hop: int
    window: int
    steps: int

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.steps * self.sample_rate / self.window

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        """The batch norm over mel bands."""
        raise NotImplementedError

    def _mel(self, waveform: Tensor, real: Tensor, samples: Tensor) -> Tensor:
        """Real windows (N, S), where they stand (B, W), samples (B,) to what the batch norm is given (N, 1, F, M)."""
        raise NotImplementedError

    def _frames(self, mel: Tensor) -> Tensor:
        """(N, 1, F, M) to distinct frames (N, steps, C)."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "WindowedTower":
        """The batch norm of the mel bands keeps its statistics: batch statistics would differ between processes, and
        between a batch and a single clip."""
        super().train(mode)
        self.batch_norm.eval()
        return self

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Waveforms float32 (S_i,) at `sample_rate` to whole windows (B, W, window), and samples int64 (B,)."""
        samples = torch.tensor([len(item) for item in items])  # (B,)
        windows = max(1, math.ceil(int(samples.max()) / self.window))
        waveform = torch.zeros(len(items), windows * self.window)  # (B, W * window)
        for row, item in enumerate(items):
            waveform[row, : len(item)] = torch.from_numpy(np.asarray(item, dtype=np.float32))
        return {"waveform": rearrange(waveform, "b (w s) -> b w s", w=windows), "samples": samples}

    @torch.no_grad()
    def calibrate(self, items: list[np.ndarray]) -> None:
        """Set the statistics of the mel bands (dB) from waveforms at `sample_rate`; for towers trained from scratch.
        Pretrained ones keep the statistics they were trained with."""
        mels = []
        for item in items:
            if len(item) > self.hop:
                batch = self.collate([item])
                real = torch.ones(1, batch["waveform"].shape[1], dtype=torch.bool)  # (1, W)
                mel = self._mel(batch["waveform"][0], real, batch["samples"])  # (W, 1, F, M)
                mels.append(mel[:, 0][self._inside(real, batch["samples"], mel.shape[2])])  # (F_i, M)
        if not mels:
            raise UserError("no clip has sound: an audio tower cannot be trained on this dataset")
        if self.options.pretrained:
            return
        mel = torch.cat(mels)  # (F_all, M)
        self.batch_norm.running_mean.copy_(mel.mean(0))
        self.batch_norm.running_var.copy_(mel.var(0))

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, W, window), samples int64 (B,): the real length of each clip."""
        batch, windows, _ = waveform.shape
        starts = torch.arange(windows, device=waveform.device) * self.window  # (W,)
        real = starts[None] < samples[:, None]  # (B, W)
        if not real.any():
            real[0, 0] = True  # no gradient hole on a process whose clips all lack sound; masked below
        frames = self._frames(self._mel(waveform[real], real, samples)).float()  # (N, steps, C)
        sequence = frames.new_zeros(batch, windows, self.steps, frames.shape[-1])  # (B, W, steps, C)
        sequence[real] = frames
        sequence = rearrange(sequence, "b w t c -> b (w t) c")  # (B, T, C)
        begins = torch.arange(sequence.shape[1], device=samples.device) * self.window // self.steps  # (T,)
        return self._finish(sequence, begins[None] < samples[:, None], self.rate)

    def _inside(self, real: Tensor, samples: Tensor, frames: int) -> Tensor:
        """Which spectrogram frames of the windows in real (B, W) lie within their clips, bool (N, F)."""
        clip, window = real.nonzero().unbind(1)  # (N,), (N,)
        begins = torch.arange(frames, device=samples.device) * self.hop  # (F,)
        return window[:, None] * self.window + begins < samples[clip, None]
