"""Audio: the CLAP audio encoder of transformers (Wu et al. 2023, arXiv 2211.06687), with its version of HTS-AT."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.registry import nearest
from stage1_align.towers.audio_checkpoints import extractor_settings, folder_config, load_folder
from stage1_align.towers.mel_cnn import check_bank
from stage1_align.towers.transformers_config import build_config, check_fields, known_fields
from stage1_align.towers.windowed_tower import WindowedOptions, WindowedTower

FEATURES = {  # preprocessor_config.json of laion/clap-htsat-unfused
    "sampling_rate": 48000,
    "feature_size": 64,
    "fft_window_size": 1024,
    "hop_length": 480,
    "frequency_min": 50,
    "frequency_max": 14000,
    "max_length_s": 10,
}


@dataclass
class ClapOptions(WindowedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool"}

    pretrained: str | None = None
    """Local folder of a CLAP model without fusion, config.json and model.safetensors (laion/clap-htsat-unfused and
    laion/larger_clap_general are Apache-2.0). None: random weights."""
    model_cfg: dict = field(default_factory=dict)
    """Fields of ClapAudioConfig that override the folder's: patch_embeds_hidden_size, depths, hidden_size, ..."""
    feature_cfg: dict = field(default_factory=dict)
    """Fields of ClapFeatureExtractor that override the folder's preprocessor_config.json: sampling_rate, ..."""
    projection: str = "linear"
    """Projection to the shared space: "linear", a new layer, or "clap", the model's two layers (embed_dim must equal
    their width, 512 for LAION's)."""
    max_pool: bool = False
    """Also pool the maximum over time: an expression may be brief."""

    def __post_init__(self):
        super().__post_init__()
        if self.projection not in ("linear", "clap"):
            raise UserError(f"no projection {self.projection!r}: {nearest(self.projection, ('linear', 'clap'))}")
        for name in self.feature_cfg:
            if name not in FEATURES:
                raise UserError(f"feature_cfg has no field {name!r}: {nearest(name, FEATURES)}")
        given = FEATURES | self.feature_cfg
        for name, value in given.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 384_000:
                raise UserError(f"feature_cfg.{name} is {value!r:.60}: expected a whole number from 1 to 384000")
        check_bank(given["fft_window_size"], given["feature_size"])


class Clap(WindowedTower):
    """Waveforms at 48 kHz in windows of 10 s, as the log-mels of ClapFeatureExtractor (truncation "rand_trunc", padding
    "pad"), to 32 distinct frames per window: 3.2 Hz with LAION's settings.

    The extractor takes 10 random seconds of a longer clip; here every window is encoded.
    """

    Options = ClapOptions
    filters: Tensor

    def __init__(self, options: ClapOptions, embed_dim: int):
        from transformers import ClapAudioConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

        features: dict[str, Any] = dict(FEATURES)
        where = "clap tower: model_cfg"
        check_fields(ClapAudioConfig, options.model_cfg, where)
        config = build_config(ClapAudioConfig, options.model_cfg, where)
        if options.pretrained:
            config = folder_config(options.pretrained)
            config = getattr(config, "audio_config", config)
            config.update(options.model_cfg)
            _, settings = extractor_settings(options.pretrained)
            features |= {name: settings[name] for name in FEATURES if name in settings}
        if not isinstance(config, ClapAudioConfig) or config.enable_fusion:
            raise UserError(
                f"{options.pretrained or 'model_cfg'}: not a CLAP model without fusion; the clap tower needs one"
            )
        features |= options.feature_cfg
        super().__init__(dataclasses.replace(options, model_cfg=known_fields(config), feature_cfg=features), embed_dim)

        extractor = ClapFeatureExtractor(**features)
        self._set_spectrogram(extractor.fft_window_size, extractor.hop_length)
        window = extractor.nb_max_samples
        folds = config.spec_size // config.num_mel_bins
        if window // self.hop + 1 > folds * config.spec_size or extractor.feature_size != config.num_mel_bins:
            raise UserError(
                f"feature_cfg gives {window // self.hop + 1} x {extractor.feature_size} mel values per window; "
                f"the model takes at most {folds * config.spec_size} x {config.num_mel_bins}"
            )
        stride = config.patch_stride if isinstance(config.patch_stride, int) else config.patch_stride[1]
        steps = folds * (config.spec_size // 2 ** (len(config.depths) - 1) // stride)
        self._set_windows(extractor.sampling_rate, window, steps)
        filters = torch.from_numpy(extractor.mel_filters_slaney).float()  # (bins, M)
        self.register_buffer("filters", filters, persistent=False)

        if options.pretrained:
            replaced = options.model_cfg
            model: Any = load_folder(ClapAudioModelWithProjection, options.pretrained, config, replaced=replaced)
        else:
            model = ClapAudioModelWithProjection(config)
        self.net = model.audio_model.audio_encoder
        self.project = self._projection()
        if options.projection == "clap":
            if embed_dim != config.projection_dim or options.max_pool:
                raise UserError(
                    f"projection: clap keeps CLAP's space: set embed_dim {config.projection_dim} and max_pool false"
                )
            self.project = model.audio_projection

    @property
    def batch_norm(self) -> nn.BatchNorm2d:
        return self.net.batch_norm

    def _mel(self, power: Tensor, at: Tensor, samples: Tensor) -> Tensor:
        with torch.autocast(power.device.type, enabled=False):
            mel = power @ self.filters  # (N, F, M)
            return 10 * mel.clamp(min=1e-10).log10()[:, None]  # (N, 1, F, M)

    def _frames(self, mel: Tensor) -> Tensor:
        hidden = self.net(mel).last_hidden_state  # (N, C, bands, steps)
        return hidden.mean(2).transpose(1, 2)  # (N, steps / repeats, C)
