"""Audio: a small convolutional network over log-mel bands, for hundreds of voices rather than millions.

A tower memorizes a few speakers quickly. Training therefore augments every clip to sound like another speaker at
another pace: its mel axis (vocal tract length perturbation, Jaitly and Hinton 2013) and time axis are stretched, its
spectrum is tilted, and spans of bands and of time are masked (SpecAugment, Park et al. 2019, arXiv 1904.08779).
`--pairs.gain_db` varies the level.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, Decibels, LayersOrNone, ProperFraction, SampleRate, Steps, Width
from stage1_align.towers.audio_tower import AudioTower, pad_waveforms
from stage1_align.towers.base import Encoded

MAX_BANK = 2**22
"""Most weights in a mel filter bank."""


@dataclass
class MelCnnOptions(CheckedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool"}

    sample_rate: SampleRate = 16000
    """Sample rate of the tower's input, Hz."""
    n_fft: Steps = 1024
    """Samples per spectrogram window."""
    hop: Steps = 320
    """Samples between spectrogram frames."""
    mel_bins: Width = 64
    """Mel bands from 50 Hz to half the sample rate."""
    center: bool = True
    """Subtract each clip's mean over time and bands (dB): microphones and distances vary more than intensities.
    Set it to false when all clips were recorded at the same level."""
    channels: tuple[Width, ...] = (32, 64, 96, 128)
    """Width of each stage; a stage halves time and bands."""
    width: Width = 128
    """C, the width of a frame."""
    dropout: ProperFraction = 0.3
    """Dropout of frames; channel dropout in the stages is a third of it."""
    tempo: ProperFraction = 0.15
    """Largest relative change of a clip's duration in training."""
    formants: ProperFraction = 0.08
    """Largest relative stretch and shift of its mel axis in training."""
    tilt_db: Decibels = 3.0
    """Standard deviation, in dB, of a smooth change of its spectrum in training."""
    masks: LayersOrNone = 1
    """Number of masked spans of bands, and of time, in training, each up to a sixth of the axis."""
    max_pool: bool = True
    """Also pool the maximum over time: an expression may be brief."""


class MelCnn(AudioTower):
    """Waveforms of any length to frames at sample_rate / hop / 2 ** stages Hz (3.1 by default)."""

    Options = MelCnnOptions
    hann: Tensor
    bank: Tensor
    band_mean: Tensor
    band_scale: Tensor

    def __init__(self, options: MelCnnOptions, embed_dim: int):
        super().__init__(options, embed_dim)
        o = options
        check_bank(o.n_fft, o.mel_bins)
        reduction = 2 ** len(o.channels)
        if o.mel_bins % reduction:
            raise UserError(f"mel_bins {o.mel_bins} must be a multiple of {reduction}: each stage halves them")
        uneven = [width for width in o.channels if width % group_count(width)]
        if uneven:
            raise UserError(f"channels {uneven[0]}: they are normalized in groups of 8; give a multiple of 8")
        self.sample_rate, self.rate = o.sample_rate, o.sample_rate / o.hop / reduction
        self.register_buffer("hann", torch.hann_window(o.n_fft), persistent=False)  # (n_fft,)
        self.register_buffer("bank", mel_bank(o.sample_rate, o.n_fft, o.mel_bins), persistent=False)  # (bins, M)
        self.register_buffer("band_mean", torch.zeros(o.mel_bins))
        self.register_buffer("band_scale", torch.ones(o.mel_bins))
        self.stages = nn.ModuleList(Stage(a, b, o.dropout / 3) for a, b in itertools.pairwise((1, *o.channels)))
        self.frames = nn.Linear(o.channels[-1] * (o.mel_bins // reduction), o.width)
        self.dropout = nn.Dropout(o.dropout)
        self.project = self._projection()

    @property
    def width(self) -> int:
        return self.options.width

    def blocks(self) -> list[nn.Module]:
        return list(self.stages)

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Waveforms float32 (S_i,) at `sample_rate` to waveform (B, S), zero-padded, and samples int64 (B,)."""
        waveform, samples = pad_waveforms(items, self.options.n_fft)  # (B, S), (B,)
        return {"waveform": waveform, "samples": samples}

    @torch.no_grad()
    def calibrate(self, items: list[np.ndarray]) -> None:
        """Set mean and scale of the bands (dB) from waveforms at `sample_rate`. UserError if no clip has sound."""
        mels = []
        for item in items:
            if len(item):
                mel, lengths = self._log_mel(**self.collate([item]))
                mels.append(mel[0, : lengths[0]])  # (F_i, M)
        if not mels:
            raise UserError("no clip has sound: an audio tower cannot be trained on this dataset")
        mel = torch.cat(mels)  # (F_all, M)
        self.band_mean.copy_(mel.mean(0))
        self.band_scale.copy_(1 / mel.std().clamp(min=1e-3))  # one scale for all bands

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, S), samples int64 (B,): the real length of each clip."""
        mel, lengths = self._log_mel(waveform, samples)  # (B, F, M), (B,)
        if self.training:
            mel, lengths = self._augment(mel, lengths)
        real = length_mask(lengths, mel.shape[1])  # (B, F)
        x = ((mel - self.band_mean) * self.band_scale * real[..., None])[:, None]  # (B, 1, F, M)
        for stage in self.stages:
            x, lengths = stage(x, lengths)  # (B, C, F / 2, M / 2)
        x = nn.functional.gelu(self.frames(self.dropout(x.transpose(1, 2).flatten(2))))  # (B, T, width)
        return self._finish(self.dropout(x), length_mask(lengths * (samples > 0), x.shape[1]), self.rate)

    def _log_mel(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) to log-mel in dB (B, F, M) and the frames of each clip (B,), at least 1; in fp32, because bf16 is too
        coarse for a spectrum."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                self.options.n_fft,
                self.options.hop,
                window=self.hann,
                return_complex=True,
                pad_mode="constant",
            )  # (B, bins, F)
            power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)  # (B, F, bins)
            mel = 10 * torch.log10((power @ self.bank).clamp(min=1e-8))  # (B, F, M)
        lengths = samples // self.options.hop + 1  # (B,)
        if self.options.center:
            real = length_mask(lengths, mel.shape[1])[..., None]  # (B, F, 1)
            mel = mel - (mel * real).sum((1, 2), keepdim=True) / (lengths * mel.shape[2])[:, None, None]
        return mel, lengths

    def _augment(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, F, M) and lengths (B,) with another pace, vocal tract and microphone for each clip, and masked spans.
        Uses torch's global generator, which the trainer seeds at every step."""
        o, rows = self.options, []
        draw = torch.rand(len(mel), 3, device="cpu") * 2 - 1  # (B, 3)
        for clip, frames, (pace, stretch, shift) in zip(mel, lengths.tolist(), draw.tolist(), strict=True):
            new_frames = max(1, round(frames * (1 + o.tempo * pace)))
            time = torch.linspace(-1, 1, new_frames, device=mel.device)  # (F',)
            band = torch.linspace(-1, 1, mel.shape[2], device=mel.device) * (1 + o.formants * stretch)  # (M,)
            band = band + o.formants * shift / 2
            grid = torch.stack(torch.broadcast_tensors(band[None], time[:, None]), -1)  # (F', M, 2)
            clip = nn.functional.grid_sample(
                clip[None, None, :frames], grid[None], padding_mode="border", align_corners=True
            )[0, 0]  # (F', M)
            tilt = torch.randn(1, 1, 4, device=mel.device) * o.tilt_db
            clip = clip + nn.functional.interpolate(tilt, size=mel.shape[2], mode="linear", align_corners=True)[0]
            rows.append(_mask_spans(clip, o.masks))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]).to(lengths)


class Stage(nn.Module):
    """Halves time and bands: (B, C, F, M) and lengths (B,) to (B, C', ceil(F / 2), ceil(M / 2)) and (B,)."""

    def __init__(self, width_in: int, width_out: int, dropout: float):
        super().__init__()
        self.convolution = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
        self.norm = ClipNorm(group_count(width_out), width_out)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x, lengths = self.convolution(x), (lengths + 1) // 2
        return self.dropout(self.norm(x, lengths).relu()), lengths


class ClipNorm(nn.Module):
    """Group norm over each clip's frames: a clip gives the same result alone and in a batch. Zeros after its end."""

    def __init__(self, groups: int, width: int):
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, F, M), lengths (B,) of F."""
        batch, width, frames, bands = x.shape
        real = length_mask(lengths, frames)[:, None, :, None]  # (B, 1, F, 1)
        x = x.float() * real  # (B, C, F, M)
        count = (lengths * bands * width // self.groups).clamp(min=1)[:, None]  # (B, 1)
        sums = torch.stack([x.sum((2, 3)), x.square().sum((2, 3))])  # (2, B, C)
        mean, square = sums.view(2, batch, self.groups, -1).sum(3) / count  # (B, G) each
        scale = (square - mean.square()).clamp(min=0).add(1e-5).rsqrt()  # (B, G)
        # Expand to channels first, so that each element takes one multiplication and one addition.
        scale, mean = (part.repeat_interleave(width // self.groups, 1) for part in (scale, mean))  # (B, C) each
        scale = scale * self.weight  # (B, C)
        shift = self.bias - mean * scale  # (B, C)
        return torch.addcmul(shift[..., None, None], x, scale[..., None, None]) * real


def group_count(width: int) -> int:
    """The number of groups for normalizing a stage's channels."""
    return max(1, width // 8)


def check_bank(n_fft: int, bands: int) -> None:
    """UserError for a filter bank of more than tens of megabytes."""
    if (n_fft // 2 + 1) * bands > MAX_BANK:
        raise UserError(f"n_fft {n_fft} with {bands} mel bands is a bank of more than {MAX_BANK} weights; lower one")


def mel_bank(sample_rate: int, n_fft: int, bands: int, lowest: float = 50.0) -> Tensor:
    """Triangular filters, evenly spaced on O'Shaughnessy's mel scale from `lowest` Hz to half the sample rate: float32
    (n_fft // 2 + 1, bands)."""
    start, stop = 2595 * np.log10(1 + np.array([lowest, sample_rate / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(float(start), float(stop), bands + 2) / 2595) - 1)  # (bands + 2,) Hz
    hertz = np.arange(n_fft // 2 + 1)[:, None] * sample_rate / n_fft  # (bins, 1)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.minimum((hertz - low) / (center - low), (high - hertz) / (high - center))  # (bins, bands)
    return torch.from_numpy(weights.clip(0).astype(np.float32))


def length_mask(lengths: Tensor, frames: int) -> Tensor:
    """Lengths (B,) to bool (B, frames), True before each end."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def _mask_spans(mel: Tensor, masks: int) -> Tensor:
    """One clip (F, M) with `masks` spans of bands and `masks` spans of time set to its mean."""
    mel, mean = mel.clone(), mel.mean()
    for _ in range(masks):
        for axis, max_width in ((0, len(mel) // 6), (1, mel.shape[1] // 6)):
            width = int(torch.randint(max_width + 1, ()))
            start = int(torch.randint(mel.shape[axis] - width + 1, ()))
            mel.narrow(axis, start, width).fill_(mean)
    return mel
