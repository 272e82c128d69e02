"""Audio: the HTS-AT of laion-clap (Chen et al. 2022, arXiv 2202.00874; Wu et al. 2023, arXiv 2211.06687)."""

import dataclasses
import importlib
import importlib.util
import math
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from shared.errors import UserError
from stage1_align.towers.base import Encoded, Tower


@dataclass
class HtsatOptions:
    sample_rate: int = 16000
    """Hz of the waveform the tower hears; LAION's checkpoints want 48000."""
    n_fft: int = 1024
    """Samples of a spectrogram window."""
    hop: int = 256
    """Samples between spectrogram frames."""
    mel_bins: int = 64
    """Mel bands."""
    fmin: int = 50
    """Lowest frequency, Hz."""
    fmax: int = 8000
    """Highest frequency, Hz."""
    spec_size: int = 128
    """Side of the square the spectrogram is folded into; a window spans spec_size**2 / mel_bins spectrogram frames."""
    patch_size: int = 8
    """Side of a patch, in spectrogram frames and mel bands."""
    patch_stride: int = 8
    """Distance of patches; smaller than their side, they overlap."""
    embed_dim: int = 48
    """Width of the first stage; each further stage doubles it."""
    depths: tuple[int, ...] = (2, 2)
    """Blocks in each stage."""
    num_heads: tuple[int, ...] = (4, 8)
    """Attention heads in each stage."""
    window_size: int = 8
    """Side of an attention window, in patches."""
    center: bool = False
    """Subtract each clip's own mean spectrum (cepstral mean normalisation, in dB): speakers and microphones then differ
    less than ways of speaking do. Off for pretrained weights, which have not seen it."""
    peak: bool = False
    """Pool the maximum over time beside the mean: an expression is over in a moment."""
    drop_path: float = 0.1
    """Stochastic depth."""


class Htsat(Tower):
    """Waveforms of any length to distinct frames (T, C) at a stated rate and their mean in the shared space.

    HTS-AT stretches whatever is shorter than its window and repeats each output frame. Here every clip is cut into
    whole windows, the last one padded with silence, and each distinct frame is taken once: the rate is the same for all
    clips, and a clip's output does not depend on its batch. Frames that start after the clip's end are masked.
    """

    Options = HtsatOptions

    def __init__(self, options: HtsatOptions, embed_dim: int):
        super().__init__(options, embed_dim)
        htsat = _htsat_module()
        # Of its Swin blocks, on building: nothing a user could act on.
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        o = options
        folds = o.spec_size // o.mel_bins
        self.window = o.spec_size * folds * o.hop  # samples of one window
        self.net = htsat.HTSAT_Swin_Transformer(
            spec_size=o.spec_size,
            patch_size=o.patch_size,
            patch_stride=(o.patch_stride, o.patch_stride),
            num_classes=1,
            embed_dim=o.embed_dim,
            depths=list(o.depths),
            num_heads=list(o.num_heads),
            window_size=o.window_size,
            drop_path_rate=o.drop_path,
            config=types.SimpleNamespace(
                mel_bins=o.mel_bins,
                sample_rate=o.sample_rate,
                window_size=o.n_fft,
                hop_size=o.hop,
                fmin=o.fmin,
                fmax=o.fmax,
            ),
        )
        # Its Fourier transform is a convolution with a million frozen weights; torch.stft is the same, and faster.
        del self.net.spectrogram_extractor
        self.register_buffer("hann", torch.hann_window(o.n_fft), persistent=False)  # (n_fft,)
        # The tagging head takes no part in contrastive training; without it no parameter is left without a gradient.
        self.net.tscam_conv.requires_grad_(False)
        self.net.head.requires_grad_(False)
        self.steps = folds * o.spec_size // o.patch_stride // 2 ** (len(o.depths) - 1)  # distinct frames of one window
        self.rate = self.steps * o.sample_rate / self.window  # Hz
        self.project = self._projection()

    @property
    def width(self) -> int:
        return self.net.num_features

    @property
    def sample_rate(self) -> int:
        return self.options.sample_rate

    def config(self) -> dict:
        return dataclasses.asdict(self.options)

    def train(self, mode: bool = True) -> "Htsat":
        """The batch norm of the mel bands keeps its statistics: batch statistics would differ between processes, and
        between a batch and a single clip."""
        super().train(mode)
        self.net.bn0.eval()
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
        """Set the statistics of the mel bands (dB) from waveforms at `sample_rate`; for towers trained from scratch."""
        mels = []
        for item in items:
            if len(item) > self.options.n_fft:
                batch = self.collate([item])
                mel = self._log_mel(batch["waveform"][0])  # (W, 1, F, M)
                if self.options.center:
                    everything = torch.ones(1, len(mel), dtype=torch.bool)
                    mel = self._centered(mel, everything, batch["samples"])  # (W, 1, F, M)
                mels.append(mel.flatten(0, 2)[: math.ceil(len(item) / self.options.hop)])  # (F, M)
        if not mels:
            raise UserError("no clip has sound: an audio tower cannot be trained on this dataset")
        mel = torch.cat(mels)  # (F_all, M)
        self.net.bn0.running_mean.copy_(mel.mean(0))
        self.net.bn0.running_var.copy_(mel.var(0))

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, W, window), samples int64 (B,): the real length of each clip."""
        batch, windows, _ = waveform.shape
        starts = torch.arange(windows, device=waveform.device) * self.window  # (W,)
        real = starts[None] < samples[:, None]  # (B, W)
        if not real.any():
            real[0, 0] = True  # no gradient hole on a process whose clips all lack sound; masked below
        mel = self._log_mel(waveform[real])  # (N, 1, F, M)
        if self.options.center:
            mel = self._centered(mel, real, samples)  # (N, 1, F, M)
        frames = self._frames(mel).float()  # (N, steps, C)
        sequence = frames.new_zeros(batch, windows, self.steps, self.width)  # (B, W, steps, C)
        sequence[real] = frames
        sequence = rearrange(sequence, "b w t c -> b (w t) c")  # (B, T, C)
        begins = torch.arange(sequence.shape[1], device=samples.device) * self.window // self.steps  # (T,)
        return self._finish(sequence, begins[None] < samples[:, None], self.rate)

    def _frames(self, mel: Tensor) -> Tensor:
        """(N, 1, F, M) to distinct frames (N, steps, C)."""
        mel = self.net.bn0(mel.transpose(1, 3)).transpose(1, 3)  # (N, 1, F, M)
        output = self.net.forward_features(self.net.reshape_wav2img(mel))
        frames = output["fine_grained_embedding"]  # (N, repeated, C)
        return frames[:, :: frames.shape[1] // self.steps]  # (N, steps, C)

    def _centered(self, mel: Tensor, real: Tensor, samples: Tensor) -> Tensor:
        """mel (N, 1, F, M) of the windows in real (B, W), less the mean over each clip's own frames; padding is 0."""
        clip, window = real.nonzero().unbind(1)  # (N,), (N,)
        begins = torch.arange(mel.shape[2], device=mel.device) * self.options.hop  # (F,)
        inside = window[:, None] * self.window + begins < samples[clip, None]  # (N, F)
        inside = inside[:, None, :, None].float()  # (N, 1, F, 1)
        total = mel.new_zeros(len(samples), mel.shape[3]).index_add(0, clip, (mel * inside).sum((1, 2)))  # (B, M)
        count = mel.new_zeros(len(samples)).index_add(0, clip, inside.sum((1, 2, 3)))  # (B,)
        mean = (total / count.clamp(min=1)[:, None])[clip]  # (N, M)
        return (mel - mean[:, None, None]) * inside

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """(N, S) to log-mel in dB (N, 1, F, M), in fp32: bf16 cannot hold the range of a spectrum."""
        n_fft, hop = self.options.n_fft, self.options.hop
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(waveform.float(), n_fft, hop, window=self.hann, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()  # (N, bins, F + 1)
            mel = self.net.logmel_extractor(power.transpose(1, 2)[:, None])  # (N, 1, F + 1, M)
        return mel[:, :, : waveform.shape[1] // hop]


def _htsat_module():
    """laion_clap's htsat.py without its package's __init__, which asks a hub for three tokenizers at import and, when
    there is no hub, leaves them empty."""
    name = "_emit_laion_clap"
    if name not in sys.modules:
        spec = importlib.util.find_spec("laion_clap")
        if spec is None:
            raise UserError("laion-clap is not installed: pip install laion-clap")
        package = types.ModuleType(name)
        package.__path__ = [str(Path(spec.origin).parent / "clap_module")]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.htsat")
