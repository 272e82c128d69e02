"""Audio in whole windows: the base of both HTS-AT towers."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, LayersOrNone
from stage1_align.towers.audio_tower import AudioTower, pad_waveforms
from stage1_align.towers.base import Encoded
from stage1_align.towers.levels import band_levels

LEVEL_STEPS = 2
"""Steps per distinct frame in a sequence with levels: 128 ms instead of a quarter of a second, so that syllables and
laughter, four to six per second, are visible."""


@dataclass(kw_only=True)
class WindowedOptions(CheckedOptions):
    """Options of all windowed towers."""

    level_bands: LayersOrNone = 0
    """Number of spectrogram bands; their loudness and its variation are appended to the network's channels in the
    sequence, at twice its rate (towers/levels.py), so that a temporal model of stage 2 sees onset and rhythm. 0:
    none."""
    levels_alone: bool = False
    """The sequence has only the levels; the embedding in the shared space stays. With a thousand clips to learn timing
    from, a model would memorize the clips by the network's channels instead."""

    def __post_init__(self):
        super().__post_init__()
        if self.levels_alone and not self.level_bands:
            raise UserError("levels_alone needs levels: set level_bands to 8 or so")


class WindowedTower(AudioTower):
    """Waveforms of any length to distinct frames (T, C) at a fixed rate and their mean in the shared space.

    HTS-AT stretches a clip shorter than its window and repeats each output frame. Here every clip is cut into whole
    windows, the last one padded with silence, and each distinct frame appears once: the rate is the same for all clips,
    and a clip's output does not depend on its batch. Frames that start after the clip's end are masked.

    With `level_bands`, levels of the spectrogram follow the channels of the network (towers/levels.py), and each frame
    is repeated LEVEL_STEPS times. The embedding in the shared space does not use the levels.

    A subclass calls `_set_windows` and `_set_spectrogram`, sets `net`, and implements `_mel` and `_frames`.
    """

    window: int
    """Samples per window."""
    steps: int
    """Steps of the sequence per window."""
    repeats: int
    """Steps per distinct frame."""
    net: Any
    """The network; its `layers` are the stages."""

    hann: Tensor

    def _set_windows(self, sample_rate: int, window: int, steps: int) -> None:
        """steps: distinct frames of the network per window."""
        self.repeats = LEVEL_STEPS if self.options.level_bands else 1
        self.sample_rate, self.window, self.steps = sample_rate, window, steps * self.repeats
        self.rate = self.steps * sample_rate / window

    def _set_spectrogram(self, n_fft: int, hop: int) -> None:
        """n_fft: samples per spectrogram window; hop: samples between spectrogram frames."""
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("hann", torch.hann_window(n_fft), persistent=False)  # (n_fft,)

    @property
    def width(self) -> int:
        levels = 2 * self.options.level_bands
        return levels if self.options.levels_alone else self.pooled_width + levels

    @property
    def pooled_width(self) -> int:
        return self.net.num_features

    def blocks(self) -> list[nn.Module]:
        """The Swin blocks, from input to output."""
        return [block for stage in self.net.layers for block in stage.blocks]

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        """The batch norm over mel bands."""
        raise NotImplementedError

    def _power(self, waveform: Tensor) -> Tensor:
        """(N, S) to the power spectrum (N, F, bins), in fp32: bf16 is too coarse for it."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(), self.n_fft, self.hop, window=self.hann, return_complex=True
            )  # (N, bins, F)
            return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)  # (N, F, bins)

    def _mel(self, power: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        """Log-mel in dB (N, 1, F', M), the input of the batch norm, from the power spectra (N, F, bins) of N windows.

        at (2, N): the clip of each window and its number in the clip; samples (B,): the length of each clip."""
        raise NotImplementedError

    def _frames(self, mel: Tensor) -> Tensor:
        """(N, 1, F, M) to distinct frames (N, steps / repeats, C)."""
        raise NotImplementedError

    def _steps(self, mel: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        """The sequence of the windows at (2, N) from their log-mels (N, 1, F, M): (N, steps, C)."""
        frames = self._frames(mel).float()  # (N, steps / repeats, C)
        if not self.options.level_bands:
            return frames
        inside = self._frame_mask(at, samples, mel.shape[2])  # (N, F)
        levels = band_levels(mel[:, 0], inside, self.steps, self.options.level_bands)  # (N, steps, L)
        return torch.cat([frames.repeat_interleave(self.repeats, dim=1), levels], dim=-1)  # (N, steps, C + L)

    def _finish(self, sequence: Tensor, mask: Tensor, rate: float | None) -> Encoded:
        """As `Tower._finish`, for the network's channels only; levels follow them in the sequence."""
        encoded = super()._finish(sequence[..., : self.pooled_width], mask, rate)
        levels = sequence[..., self.pooled_width :].float() * mask[..., None]  # (B, T, L)
        if self.options.levels_alone:
            return dataclasses.replace(encoded, sequence=levels)  # (B, T, L)
        return dataclasses.replace(encoded, sequence=torch.cat([encoded.sequence, levels], dim=-1))  # (B, T, C)

    def train(self, mode: bool = True) -> Self:
        """The batch norm over mel bands keeps its statistics: batch statistics differ between processes, and between a
        batch and a single clip."""
        super().train(mode)
        self.batch_norm.eval()
        return self

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Waveforms float32 (S_i,) at `sample_rate` to whole windows (B, W, window), and samples int64 (B,)."""
        windows = max(1, math.ceil(max(len(item) for item in items) / self.window))
        waveform, samples = pad_waveforms(items, windows * self.window)  # (B, W * window), (B,)
        return {"waveform": rearrange(waveform, "b (w s) -> b w s", w=windows), "samples": samples}

    @torch.no_grad()
    def calibrate(self, items: list[np.ndarray]) -> None:
        """Set the batch-norm statistics of the mel bands (dB) from waveforms at `sample_rate`. A pretrained tower keeps
        its statistics. UserError if no clip has sound."""
        mels = []
        for item in items:
            if len(item) > self.hop:
                batch = self.collate([item])
                at = torch.ones(batch["waveform"].shape[:2]).nonzero().T  # (2, W)
                mel = self._mel(self._power(batch["waveform"][0]), at, batch["samples"])  # (W, 1, F, M)
                mels.append(mel[:, 0][self._frame_mask(at, batch["samples"], mel.shape[2])])  # (F_i, M)
        if not mels:
            raise UserError("no clip has sound: an audio tower cannot be trained on this dataset")
        if self.options.pretrained:
            return
        mel = torch.cat(mels)  # (F_all, M)
        norm = self.batch_norm
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mel.mean(0))
        norm.running_var.copy_(mel.var(0))

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, W, window), samples int64 (B,): the real length of each clip."""
        batch, windows, _ = waveform.shape
        starts = torch.arange(windows, device=waveform.device) * self.window  # (W,)
        real = starts[None] < samples[:, None]  # (B, W)
        if not real.any():
            real[0, 0] = True  # every parameter needs a gradient, even without any sound; masked below
        at = real.nonzero().T  # (2, N)
        mel = self._mel(self._power(waveform[real]), at, samples)  # (N, 1, F, M)
        frames = self._steps(mel, at, samples)  # (N, steps, C)
        sequence = frames.new_zeros(batch, windows, self.steps, frames.shape[-1])  # (B, W, steps, C)
        sequence[real] = frames
        sequence = rearrange(sequence, "b w t c -> b (w t) c")  # (B, T, C)
        return self._finish(sequence, self._step_mask(sequence, samples), self.rate)

    def _step_mask(self, sequence: Tensor, samples: Tensor) -> Tensor:
        """Which frames of (B, T, C) start before the end of their clip: bool (B, T)."""
        starts = torch.arange(sequence.shape[1], device=samples.device) * self.window // self.steps  # (T,)
        return starts[None] < samples[:, None]

    def _frame_mask(self, at: Tensor, samples: Tensor, frames: int) -> Tensor:
        """Which spectrogram frames of the windows at (2, N) start before the end of their clip: bool (N, F)."""
        clip, window = at  # (N,), (N,)
        starts = torch.arange(frames, device=samples.device) * self.hop  # (F,)
        return window[:, None] * self.window + starts < samples[clip, None]
