"""Audio: the HTS-AT of laion-clap (Chen et al. 2022, arXiv 2202.00874; Wu et al. 2023, arXiv 2211.06687)."""

import importlib
import importlib.util
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.registry import nearest
from stage1_align.towers.audio_checkpoints import load_part, read_laion
from stage1_align.towers.audio_windows import WindowedTower

# laion_clap's model_configs/HTSAT-*.json and htsat.create_htsat_model.
LAION = {
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
SIZES = {
    "tiny": {**LAION, "embed_dim": 96, "depths": (2, 2, 6, 2)},
    "base": {**LAION, "embed_dim": 128, "depths": (2, 2, 12, 2)},
}
LAION_SPACE = 512  # width of the space laion_clap was trained in


@dataclass
class HtsatOptions:
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool"}

    size: str | None = None
    """"tiny" or "base": LAION's own settings for everything from `sample_rate` to `window_size` below, as its published
    checkpoints need them. None keeps the small tower the fields say."""
    pretrained: str | None = None
    """A checkpoint of laion_clap on this disk, .pt or .safetensors (630k-audioset-best.pt is tiny,
    music_speech_audioset_epoch_15_esc_89.98.pt is base; both CC0-1.0, without fusion). None starts from random
    weights."""
    projection: str = "linear"
    """Into the shared space: "linear", trained here, or "clap", LAION's own two layers (loaded with `pretrained`; needs
    embed_dim 512)."""
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
    window_samples: int | None = None
    """Samples of a window. LAION trained on 480000 (10 s), whose 1001 spectrogram frames HTS-AT stretches to the 1024
    that fill its square; None takes exactly what fills it, spec_size**2 / mel_bins * hop, and nothing is stretched."""
    spec_size: int = 128
    """Side of the square the spectrogram is folded into; it holds spec_size**2 / mel_bins spectrogram frames."""
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
    max_pool: bool = False
    """Pool the maximum over time beside the mean: an expression is over in a moment."""
    drop_path: float = 0.1
    """Stochastic depth."""

    def __post_init__(self):
        if self.size is not None:
            if self.size not in SIZES:
                raise UserError(f"no HTS-AT size {self.size!r}: {nearest(str(self.size), SIZES)}")
            for name, value in SIZES[self.size].items():
                setattr(self, name, value)
        if self.projection not in ("linear", "clap"):
            raise UserError(f"no projection {self.projection!r}: {nearest(self.projection, ('linear', 'clap'))}")


class Htsat(WindowedTower):
    """HTS-AT as LAION wrote it, from random weights or from LAION's published CLAP checkpoints.

    With those, 32 distinct frames of 10 s: 3.2 Hz. LAION repeats a short clip to fill the window; here it is followed
    by silence, so that time stays time. laion_clap's code and checkpoints are CC0-1.0.
    """

    Options = HtsatOptions

    def __init__(self, options: HtsatOptions, embed_dim: int):
        super().__init__(options, embed_dim)
        o = options
        folds = o.spec_size // o.mel_bins
        self._spectrogram(o.n_fft, o.hop)
        self.sample_rate, self.most = o.sample_rate, o.spec_size * folds
        self.window = o.window_samples or self.most * o.hop  # samples of one window
        if self.window > self.most * o.hop:
            raise UserError(f"window_samples is {self.window}: at most {self.most * o.hop} fit spec_size {o.spec_size}")
        self.steps = folds * o.spec_size // o.patch_stride // 2 ** (len(o.depths) - 1)  # distinct frames of one window
        self.net = _build_net(o)
        # Its Fourier transform is a convolution with a million frozen weights; torch.stft is the same, and faster.
        del self.net.spectrogram_extractor
        if o.patch_size == o.patch_stride and o.spec_size % o.patch_size == 0:
            self.net.patch_embed.proj = _Patches.of(self.net.patch_embed.proj)
        # The tagging head takes no part in contrastive training; without it no parameter is left without a gradient.
        self.net.tscam_conv.requires_grad_(False)
        self.net.head.requires_grad_(False)
        self.project = self._projection()
        if o.pretrained:
            state = read_laion(o.pretrained)
            load_part(self.net, state, "audio_branch.", o.pretrained, _size_hint(state, o))
            if o.projection == "clap":
                load_part(self.project, state, "audio_projection.", o.pretrained)

    def _projection(self) -> nn.Module:
        if self.options.projection == "linear":
            return super()._projection()
        if self.embed_dim != LAION_SPACE or self.options.max_pool:
            raise UserError(f"projection: clap gives LAION's space: set embed_dim {LAION_SPACE} and max_pool false")
        hidden = nn.Linear(self.width, LAION_SPACE)
        return nn.Sequential(hidden, nn.ReLU(), nn.Linear(LAION_SPACE, LAION_SPACE))

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        return self.net.bn0

    def _mel(self, power: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        with torch.autocast(power.device.type, enabled=False):
            mel = self.net.logmel_extractor(power[:, None])[:, :, : self.most]  # (N, 1, F, M)
        return self._centered(mel, at, samples) if self.options.center else mel

    def _frames(self, mel: Tensor) -> Tensor:
        """(N, 1, F, M) to distinct frames (N, steps, C)."""
        mel = self.net.bn0(mel.transpose(1, 3)).transpose(1, 3)  # (N, 1, F, M)
        output = self.net.forward_features(self.net.reshape_wav2img(mel))
        frames = output["fine_grained_embedding"]  # (N, repeated, C)
        return frames[:, :: frames.shape[1] // self.steps]  # (N, steps, C)

    def _centered(self, mel: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        """mel (N, 1, F, M) of the windows at (2, N), less the mean over each clip's own frames; padding is 0."""
        clip = at[0]  # (N,)
        inside = self._inside(at, samples, mel.shape[2])[:, None, :, None].float()  # (N, 1, F, 1)
        total = mel.new_zeros(samples.shape[0], mel.shape[3]).index_add(0, clip, (mel * inside).sum((1, 2)))  # (B, M)
        count = mel.new_zeros(samples.shape[0]).index_add(0, clip, inside.sum((1, 2, 3)))  # (B,)
        mean = (total / count.clamp(min=1)[:, None])[clip]  # (N, M)
        return (mel - mean[:, None, None]) * inside


class _Patches(nn.Conv2d):
    """A convolution whose patches lie side by side, as one matrix product: seven times faster on a CPU."""

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> "_Patches":
        """Of the same parameters."""
        shape = convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride
        patches = cls(*shape, device="meta")
        patches.weight, patches.bias = convolution.weight, convolution.bias
        return patches

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), H and W whole numbers of patches, to (N, D, H / P, W / P)."""
        high, wide = self.kernel_size
        x = rearrange(x, "n c (i h) (j w) -> n i j (c h w)", h=high, w=wide)
        return rearrange(nn.functional.linear(x, self.weight.flatten(1), self.bias), "n i j d -> n d i j")


def _build_net(options: HtsatOptions) -> nn.Module:
    """laion_clap's own HTS-AT, with random weights."""
    htsat = _htsat_module()
    with warnings.catch_warnings():
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
    """Where the weights are those of another published size or kind, how to ask for it."""
    if any(".fusion_model." in name for name in state):
        return "; it was trained with fusion: take a checkpoint without"
    first = state.get("audio_branch.patch_embed.proj.weight")
    for size, values in SIZES.items():
        if first is not None and len(first) == values["embed_dim"] and size != options.size:
            return f"; these weights look like size: {size}"
    return "; check the tower's size"


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
