"""Sound in whole windows: what HTS-AT towers share, whoever's implementation they run."""

import math

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from stage1_align.towers.audio_tower import AudioTower
from stage1_align.towers.base import Encoded


class WindowedTower(AudioTower):
    """Waveforms of any length to distinct frames (T, C) at a stated rate and their mean in the shared space.

    HTS-AT stretches whatever is shorter than its window and repeats each output frame. Here every clip is cut into
    whole windows, the last one padded with silence, and each distinct frame is taken once: the rate is the same for all
    clips, and a clip's output does not depend on its batch. Frames that start after the clip's end are masked.

    A subclass sets `sample_rate` (Hz), `window` (samples of one window), `steps` (distinct frames of one window), the
    `net`, whose stages are its `layers`, and what `_spectrogram` asks for, and says how a window is turned into frames.
    """

    sample_rate: int
    window: int
    steps: int
    net: nn.Module

    def _spectrogram(self, n_fft: int, hop: int) -> None:
        """n_fft: samples of a spectrogram window; hop: samples between its frames."""
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("hann", torch.hann_window(n_fft), persistent=False)  # (n_fft,)

    @property
    def width(self) -> int:
        return self.net.num_features

    def blocks(self) -> list[nn.Module]:
        """The Swin blocks, from input to output."""
        return [block for stage in self.net.layers for block in stage.blocks]

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.steps * self.sample_rate / self.window

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        """The batch norm over mel bands."""
        raise NotImplementedError

    def _power(self, waveform: Tensor) -> Tensor:
        """(N, S) to the power spectrum (N, F, bins), in fp32: bf16 cannot hold the range of one."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(), self.n_fft, self.hop, window=self.hann, return_complex=True
            )  # (N, bins, F)
            return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)  # (N, F, bins)

    def _mel(self, power: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        """Power spectra (N, F, bins) of windows, each one's clip and number in it (2, N), samples (B,) to log-mel in
        dB, as the batch norm is given it (N, 1, F', M)."""
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
                at = torch.ones(batch["waveform"].shape[:2]).nonzero().T  # (2, W)
                mel = self._mel(self._power(batch["waveform"][0]), at, batch["samples"])  # (W, 1, F, M)
                mels.append(mel[:, 0][self._inside(at, batch["samples"], mel.shape[2])])  # (F_i, M)
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
        mel = self._mel(self._power(waveform[real]), real.nonzero().T, samples)  # (N, 1, F, M)
        frames = self._frames(mel).float()  # (N, steps, C)
        sequence = frames.new_zeros(batch, windows, self.steps, frames.shape[-1])  # (B, W, steps, C)
        sequence[real] = frames
        sequence = rearrange(sequence, "b w t c -> b (w t) c")  # (B, T, C)
        return self._finish(sequence, self._begun(sequence, samples), self.rate)

    def _begun(self, sequence: Tensor, samples: Tensor) -> Tensor:
        """Which frames of (B, T, C) begin before their clip's end, bool (B, T)."""
        begins = torch.arange(sequence.shape[1], device=samples.device) * self.window // self.steps  # (T,)
        return begins[None] < samples[:, None]

    def _inside(self, at: Tensor, samples: Tensor, frames: int) -> Tensor:
        """Which spectrogram frames of the windows at (2, N) lie within their clips, bool (N, F)."""
        clip, window = at  # (N,), (N,)
        begins = torch.arange(frames, device=samples.device) * self.hop  # (F,)
        return window[:, None] * self.window + begins < samples[clip, None]
