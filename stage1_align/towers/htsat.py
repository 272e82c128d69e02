"""Audio: laion-clap's HTS-AT (Chen et al. 2022, arXiv 2202.00874; Wu et al. 2023, arXiv 2211.06687)."""

import importlib
import importlib.util
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import (
    Hertz,
    Layers,
    PositiveInt,
    ProperFraction,
    SampleRate,
    Steps,
    Width,
)
from shared.registry import nearest
from stage1_align.towers.audio_checkpoints import load_prefix, read_laion
from stage1_align.towers.slaney_mel import instead_of_librosa
from stage1_align.towers.windowed_tower import WindowedOptions, WindowedTower

LAION: dict[str, Any] = {  # laion_clap's model_configs/HTSAT-*.json and htsat.create_htsat_model
    "sample_rate": 48000,
    "n_fft": 1024,
    "hop": 480,
    "mel_bins": 64,
    "fmin": 50,
    "fmax": 14000,
    "window_samples": 480000,
    "spec_size": 256,
    "patch_size": 4,
    "patch_stride": 4,
    "window_size": 8,
    "num_heads": (4, 8, 16, 32),
}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {**LAION, "embed_dim": 96, "depths": (2, 2, 6, 2)},
    "base": {**LAION, "embed_dim": 128, "depths": (2, 2, 12, 2)},
}
MAX_FFT = 4096
LAION_DIM = 512  # width of laion_clap's embedding space


@dataclass
class HtsatOptions(WindowedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool"}

    size: str | None = None
    """"tiny" or "base": LAION's settings for all fields from `sample_rate` to `window_size`, which its published
    checkpoints need. None: the fields below, by default a small tower."""
    pretrained: str | None = None
    """Path of a laion_clap checkpoint, .pt or .safetensors (630k-audioset-best.pt is tiny,
    music_speech_audioset_epoch_15_esc_89.98.pt is base; both CC0-1.0, without fusion). None: random weights."""
    projection: str = "linear"
    """Projection to the shared space: "linear", a new layer, or "clap", LAION's two layers (loaded with `pretrained`;
    needs embed_dim 512)."""
    sample_rate: SampleRate = 16000
    """Sample rate of the tower's input, Hz; LAION's checkpoints need 48000."""
    n_fft: Steps = 1024
    """Samples per spectrogram window."""
    hop: Steps = 256
    """Samples between spectrogram frames."""
    mel_bins: Width = 64
    """Mel bands."""
    fmin: Hertz = 50
    """Lowest frequency, Hz."""
    fmax: Hertz = 8000
    """Highest frequency, Hz."""
    window_samples: PositiveInt | None = None
    """Samples per window. LAION trained on 480000 (10 s): 1001 spectrogram frames, which HTS-AT stretches to the 1024
    that fill its square. None: exactly the number that fills it, spec_size**2 / mel_bins * hop, without stretching."""
    spec_size: Width = 128
    """Side of the square into which the spectrogram is folded; it holds spec_size**2 / mel_bins spectrogram frames."""
    patch_size: Width = 8
    """Side of a patch, in spectrogram frames and mel bands."""
    patch_stride: Width = 8
    """Distance between patches; below `patch_size` they overlap."""
    embed_dim: Width = 48
    """Width of the first stage; each later stage doubles it."""
    depths: tuple[Layers, ...] = (2, 2)
    """Blocks in each stage."""
    num_heads: tuple[Width, ...] = (4, 8)
    """Attention heads in each stage."""
    window_size: Width = 8
    """Side of an attention window, in patches."""
    center: bool = False
    """Subtract each clip's mean spectrum (cepstral mean normalization, in dB), so that speakers and microphones
    differ less than ways of speaking. Leave it off for pretrained weights, which were trained without it."""
    max_pool: bool = False
    """Also pool the maximum over time: an expression may be brief."""
    drop_path: ProperFraction = 0.1
    """Stochastic depth."""

    def __post_init__(self):
        super().__post_init__()
        if self.size is not None:
            if self.size not in SIZES:
                raise UserError(f"no HTS-AT size {self.size!r}: {nearest(str(self.size), SIZES)}")
            for name, value in SIZES[self.size].items():
                setattr(self, name, value)
        if self.n_fft > MAX_FFT:  # laion_clap computes the Fourier transform as a matrix
            raise UserError(f"n_fft is {self.n_fft}: expected a whole number from 1 to {MAX_FFT}")
        if len(self.depths) != len(self.num_heads):
            raise UserError(f"depths has {len(self.depths)} stages, num_heads {len(self.num_heads)}: make them equal")
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim << stage) % heads:
                width = self.embed_dim << stage
                raise UserError(f"num_heads: {heads} heads do not divide the width {width} of stage {stage + 1}")
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise UserError(
                f"fmin {self.fmin}, fmax {self.fmax}: no mel bands in this range; give fmin below fmax, and fmax "
                f"of at most half the sample_rate, {self.sample_rate // 2}"
            )
        if self.projection not in ("linear", "clap"):
            raise UserError(f"no projection {self.projection!r}: {nearest(self.projection, ('linear', 'clap'))}")


class Htsat(WindowedTower):
    """LAION's HTS-AT, from random weights or from a published CLAP checkpoint.

    LAION's checkpoints give 32 distinct frames per 10 s: 3.2 Hz. LAION repeats a short clip to fill the window; here it
    is padded with silence to preserve the time axis. laion_clap's code and checkpoints are CC0-1.0.
    """

    Options = HtsatOptions

    def __init__(self, options: HtsatOptions, embed_dim: int):
        super().__init__(options, embed_dim)
        o = options
        folds = o.spec_size // o.mel_bins
        self._set_spectrogram(o.n_fft, o.hop)
        self.max_frames = o.spec_size * folds  # spectrogram frames per window
        max_samples = self.max_frames * o.hop
        window = o.window_samples or max_samples
        if window > max_samples:
            raise UserError(f"window_samples is {window}: at most {max_samples} fit spec_size {o.spec_size}")
        steps = folds * o.spec_size // o.patch_stride // 2 ** (len(o.depths) - 1)
        self._set_windows(o.sample_rate, window, steps)
        self.net = _build_net(o)
        # Its Fourier transform is a convolution with a million frozen weights; torch.stft gives the same result faster.
        del self.net.spectrogram_extractor
        if o.patch_size == o.patch_stride and o.spec_size % o.patch_size == 0:
            self.net.patch_embed.proj = _PatchLinear.from_convolution(self.net.patch_embed.proj)
        # Contrastive training does not use the tagging head, and every trained parameter needs a gradient.
        self.net.tscam_conv.requires_grad_(False)
        self.net.head.requires_grad_(False)
        self.project = self._projection()
        if o.pretrained:
            state = read_laion(o.pretrained)
            load_prefix(self.net, state, "audio_branch.", o.pretrained, _size_hint(state, o))
            if o.projection == "clap":
                load_prefix(self.project, state, "audio_projection.", o.pretrained)

    def _projection(self) -> nn.Module:
        if self.options.projection == "linear":
            return super()._projection()
        if self.embed_dim != LAION_DIM or self.options.max_pool:
            raise UserError(
                f"projection: clap gives LAION's embedding space: set embed_dim {LAION_DIM} and max_pool false"
            )
        hidden = nn.Linear(self.pooled_width, LAION_DIM)
        return nn.Sequential(hidden, nn.ReLU(), nn.Linear(LAION_DIM, LAION_DIM))

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        return self.net.bn0

    def _mel(self, power: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        with torch.autocast(power.device.type, enabled=False):
            mel = self.net.logmel_extractor(power[:, None])[:, :, : self.max_frames]  # (N, 1, F, M)
        return self._centered(mel, at, samples) if self.options.center else mel

    def _frames(self, mel: Tensor) -> Tensor:
        """(N, 1, F, M) to distinct frames (N, steps / repeats, C)."""
        mel = self.net.bn0(mel.transpose(1, 3)).transpose(1, 3)  # (N, 1, F, M)
        return self._features(self.net.reshape_wav2img(mel))

    def _features(self, image: Tensor) -> Tensor:
        """The folded log-mels (N, 1, S, S) to (N, steps / repeats, C), as in the net's `forward_features`, which also
        tags sounds, averages attention and repeats each step for all its spectrogram frames."""
        net = self.net
        x = net.patch_embed(image)  # (N, L, C)
        x = net.pos_drop(x + net.absolute_pos_embed if net.ape else x)
        for stage in net.layers:
            for block in stage.blocks:
                x = block(x)[0]  # (N, L, C)
            if stage.downsample is not None:
                x = stage.downsample(x)  # (N, L / 4, 2 C)
        # Each fold of the spectrogram is a strip of the square: average over its bands, then concatenate the folds.
        folds, side = net.freq_ratio, round(x.shape[1] ** 0.5)
        x = rearrange(net.norm(x), "n (r f t) c -> n r f t c", r=folds, t=side)
        return x.mean(2).flatten(1, 2)  # (N, steps / repeats, C)

    def _centered(self, mel: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        """mel (N, 1, F, M) of the windows at (2, N), minus the mean over each clip's frames; padding is 0."""
        clip = at[0]  # (N,)
        inside = self._frame_mask(at, samples, mel.shape[2])[:, None, :, None].float()  # (N, 1, F, 1)
        total = mel.new_zeros(samples.shape[0], mel.shape[3]).index_add(0, clip, (mel * inside).sum((1, 2)))  # (B, M)
        count = mel.new_zeros(samples.shape[0]).index_add(0, clip, inside.sum((1, 2, 3)))  # (B,)
        mean = (total / count.clamp(min=1)[:, None])[clip]  # (N, M)
        return (mel - mean[:, None, None]) * inside


class _PatchLinear(nn.Conv2d):
    """A convolution over non-overlapping patches as one matrix product: seven times faster on a CPU."""

    @classmethod
    def from_convolution(cls, convolution: nn.Conv2d) -> "_PatchLinear":
        """The same convolution with the same parameters."""
        channels = convolution.in_channels, convolution.out_channels
        linear = cls(*channels, convolution.kernel_size, convolution.stride, device="meta")  # type: ignore[arg-type]
        linear.weight, linear.bias = convolution.weight, convolution.bias
        return linear

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), H and W multiples of the patch size P, to (N, D, H / P, W / P)."""
        height, width = self.kernel_size
        x = rearrange(x, "n c (i h) (j w) -> n i j (c h w)", h=height, w=width)
        return rearrange(nn.functional.linear(x, self.weight.flatten(1), self.bias), "n i j d -> n d i j")


def _build_net(options: HtsatOptions) -> nn.Module:
    """laion_clap's HTS-AT with random weights."""
    import torchlibrosa.stft

    htsat = htsat_module()
    with warnings.catch_warnings(), instead_of_librosa(torchlibrosa.stft):
        warnings.filterwarnings("ignore", message="torch.meshgrid")  # of its Swin blocks
        return htsat.HTSAT_Swin_Transformer(
            spec_size=options.spec_size,
            patch_size=options.patch_size,
            patch_stride=(options.patch_stride, options.patch_stride),
            num_classes=1,
            embed_dim=options.embed_dim,
            depths=list(options.depths),
            num_heads=list(options.num_heads),
            window_size=options.window_size,
            drop_path_rate=options.drop_path,
            config=types.SimpleNamespace(
                mel_bins=options.mel_bins,
                sample_rate=options.sample_rate,
                window_size=options.n_fft,
                hop_size=options.hop,
                fmin=options.fmin,
                fmax=options.fmax,
            ),
        )


def _size_hint(state: dict[str, Tensor], options: HtsatOptions) -> str:
    """Advice if the weights do not fit: they may belong to another published size or variant."""
    if any(".fusion_model." in name for name in state):
        return "; it was trained with fusion: use a checkpoint without fusion"
    patch_weight = state.get("audio_branch.patch_embed.proj.weight")
    for size, values in SIZES.items():
        if patch_weight is not None and len(patch_weight) == values["embed_dim"] and size != options.size:
            return f"; these weights look like size: {size}"
    return "; check the tower's size"


def _clap_utils(name: str) -> types.ModuleType:
    """A stand-in for what laion_clap's htsat.py imports from utils.py. The file itself imports torchvision, and with it
    PyTorch's compiler, for a class not used here: more than a second."""
    utils: Any = types.ModuleType(name)
    utils.interpolate = _repeat
    utils.do_mixup = None  # for training on mixed clips
    return utils


def _repeat(x: Tensor, ratio: int) -> Tensor:
    """Repeat each step of (B, T, C) `ratio` times: (B, T * ratio, C)."""
    return x[:, :, None].repeat(1, 1, ratio, 1).flatten(1, 2)


def htsat_module() -> Any:
    """laion_clap's htsat.py without the package's __init__, which loads three tokenizers from a hub on import and
    leaves them empty if it is offline."""
    name = "_emit_laion_clap"
    if name not in sys.modules:
        spec = importlib.util.find_spec("laion_clap")
        if spec is None or spec.origin is None:
            raise UserError("laion-clap is not installed: pip install laion-clap")
        package = types.ModuleType(name)
        package.__path__ = [str(Path(spec.origin).parent / "clap_module")]
        sys.modules[name] = package
        sys.modules[f"{name}.utils"] = _clap_utils(f"{name}.utils")
    return importlib.import_module(f"{name}.htsat")
