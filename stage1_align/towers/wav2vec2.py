"""Audio: wav2vec 2.0, HuBERT and WavLM through transformers (Baevski et al. 2020, arXiv 2006.11477; Hsu et al. 2021,
arXiv 2106.07447; Chen et al. 2022, arXiv 2110.13900)."""

import dataclasses
import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import SampleRate
from shared.registry import nearest
from stage1_align.towers.audio_checkpoints import extractor_settings, folder_config, load_folder
from stage1_align.towers.audio_tower import pad_waveforms
from stage1_align.towers.base import Encoded
from stage1_align.towers.layered_tower import MIX, LayeredOptions, LayeredTower
from stage1_align.towers.transformers_config import build_config, check_fields, known_fields

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = ("wav2vec2", "hubert", "wavlm")


@dataclass
class Wav2vec2Options(LayeredOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool", "normalise": "normalize"}

    pretrained: str | None = None
    """Local transformers folder: config.json, the weights, preprocessor_config.json (facebook/wav2vec2-* and
    facebook/hubert-* are Apache-2.0; for microsoft/wavlm-* see its origin). None: random weights."""
    architecture: str = "wav2vec2"
    """wav2vec2, hubert or wavlm; with `pretrained`, the folder's model type."""
    model_cfg: dict = field(default_factory=dict)
    """Fields of its configuration that override the folder's: hidden_size, num_hidden_layers, ..."""
    sample_rate: SampleRate = 16000
    """Sample rate of the tower's input, Hz; every published model needs 16000."""
    normalize: bool | None = None
    """Scale each clip to mean 0 and standard deviation 1, which removes its loudness. None: `do_normalize` from the
    folder's preprocessor_config.json, or true without one, as in transformers."""
    train_features: bool = False
    """Also train the convolutional feature encoder; fine-tuning usually freezes it (wav2vec 2.0, section 4.2)."""
    max_pool: bool = False
    """Also pool the maximum over time: an expression may be brief."""


class Wav2vec2(LayeredTower):
    """Waveforms at 16 kHz to frames (T, C) at 16000 / 320 = 50 Hz and their mean in the shared space.

    Frame i covers the samples from i * 320 to i * 320 + 400, and only whole frames count: a clip of S samples has
    (S - 400) // 320 + 1 of them (numbers of the published models). A clip shorter than a frame is padded with silence.

    A clip gives the same output in a batch and alone: attention masks the padding in every model. Models with a group
    norm over time in the first layer (`feat_extract_norm: group`) were trained without an attention mask, because
    padding enters this norm despite the mask; here the norm is computed over each clip's frames.
    """

    Options = Wav2vec2Options
    net: Any

    def __init__(self, options: Wav2vec2Options, embed_dim: int):
        from transformers import CONFIG_MAPPING, AutoModel

        replaced = options.model_cfg
        options = _resolved(options)
        if options.architecture not in ARCHITECTURES:
            raise UserError(
                f"this tower cannot run a {options.architecture!r}: {nearest(options.architecture, ARCHITECTURES)}"
            )
        config_class = CONFIG_MAPPING[options.architecture]
        where = f"{options.architecture} tower: model_cfg"
        check_fields(config_class, options.model_cfg, where)
        config = build_config(config_class, options.model_cfg, where)
        # LayerDrop would leave parameters without a gradient on some processes; SpecAugment fails on clips shorter than
        # a span.
        config.layerdrop, config.apply_spec_augment = 0.0, False
        # WavLM's attention raises this warning; torch still supports it.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        if getattr(config, "add_adapter", False):
            raise UserError(f"{options.pretrained or 'model_cfg'}: has an adapter, which this tower does not support")
        super().__init__(dataclasses.replace(options, model_cfg=known_fields(config)), embed_dim)
        if options.pretrained:
            self.net = load_folder(_model_class(config), options.pretrained, config, replaced=replaced)
        else:
            self.net = AutoModel.from_config(config)
        if hasattr(self.net, "masked_spec_embed"):
            del self.net.masked_spec_embed  # used by SpecAugment only
        if config.feat_extract_norm == "group":
            first = self.net.feature_extractor.conv_layers[0]
            first.layer_norm = ClipNorm(first.layer_norm)
        if not options.train_features:
            self.net.feature_extractor._freeze_parameters()
        kept = self._choose_layer(config.num_hidden_layers)
        if kept < config.num_hidden_layers:
            del self.net.encoder.layers[kept:]
            if config.do_stable_layer_norm:
                self.net.encoder.layer_norm = nn.Identity()  # belongs to the last block, which is dropped
        self.sample_rate = options.sample_rate
        self.rate = options.sample_rate / math.prod(config.conv_stride)  # Hz
        self.min_samples = 1  # the receptive field of one frame
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.min_samples = (self.min_samples - 1) * stride + kernel
        self.project = self._projection()

    @property
    def width(self) -> int:
        return self.net.config.hidden_size

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, from input to output; WavLM's return (features, position bias)."""
        return list(self.net.encoder.layers)

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Waveforms float32 (S_i,) at `sample_rate` to waveform (B, S), zero-padded, and samples int64 (B,)."""
        sounds = [np.asarray(item, dtype=np.float32) for item in items]
        if self.options.normalize:  # as in Wav2Vec2FeatureExtractor
            sounds = [(sound - sound.mean()) / np.sqrt(sound.var() + 1e-7) if len(sound) else sound for sound in sounds]
        waveform, samples = pad_waveforms(sounds, self.min_samples)  # (B, S), (B,)
        return {"waveform": waveform, "samples": samples}

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, S), samples int64 (B,): the real length of each clip."""
        return self._finish(*self._hidden(waveform, samples), self.rate)

    def _hidden(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, C) and mask (B, T)."""
        lengths = samples.clamp(min=self.min_samples)  # (B,); an absent clip is one frame of silence, masked below
        attention = torch.arange(waveform.shape[1], device=samples.device) < lengths[:, None]  # (B, S)
        norm = getattr(self.net.feature_extractor.conv_layers[0], "layer_norm", None)
        if isinstance(norm, ClipNorm):
            kernel, stride = self.net.config.conv_kernel[0], self.net.config.conv_stride[0]
            norm.lengths = (lengths - kernel) // stride + 1  # (B,)
        mixed = self.options.layer == MIX
        output = self.net(waveform, attention_mask=attention.long(), output_hidden_states=mixed)
        hidden = output.last_hidden_state  # (B, T, C)
        if mixed:
            hidden = self._mix([*output.hidden_states[:-1], hidden])  # (B, T, C)
        frames = self.net._get_feat_extract_output_lengths(lengths) * (samples > 0)  # (B,)
        return hidden, torch.arange(hidden.shape[1], device=samples.device) < frames[:, None]


class ClipNorm(nn.GroupNorm):
    """The group norm over time of a model's first layer, with one group per channel, over each clip's frames.

    `lengths` int64 (B,), the frames of each clip at this layer, must be set before each call, which clears it.
    """

    lengths: Tensor | None = None

    def __init__(self, norm: nn.GroupNorm):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to fp32 of the same shape, zeros after a clip's end."""
        assert self.lengths is not None
        count, self.lengths = self.lengths[:, None, None], None  # (B, 1, 1)
        inside = torch.arange(x.shape[2], device=x.device) < count  # (B, 1, T)
        mean = x.float().masked_fill(~inside, 0.0).sum(2, keepdim=True) / count  # (B, C, 1)
        x = (x.float() - mean).masked_fill(~inside, 0.0)  # (B, C, T)
        deviation = (x.square().sum(2, keepdim=True) / count + self.eps).sqrt()  # (B, C, 1)
        return (x * (self.weight[:, None] / deviation) + self.bias[:, None]) * inside  # (B, C, T)


def _model_class(config: "PretrainedConfig") -> Any:
    from transformers import MODEL_MAPPING

    return MODEL_MAPPING[type(config)]


def _resolved(options: Wav2vec2Options) -> Wav2vec2Options:
    """The options with the folder's configuration and with `normalize` decided."""
    model_cfg, architecture = options.model_cfg, options.architecture
    settings: dict[str, Any] = {}
    if options.pretrained:
        config = folder_config(options.pretrained)
        model_cfg, architecture = {**known_fields(config), **model_cfg}, config.model_type
        _, settings = extractor_settings(options.pretrained)
    return dataclasses.replace(
        options,
        model_cfg=model_cfg,
        architecture=architecture,
        sample_rate=settings.get("sampling_rate", options.sample_rate),
        normalize=settings.get("do_normalize", True) if options.normalize is None else options.normalize,
    )
