"""Audio: the encoder of Whisper through transformers (Radford et al. 2022, arXiv 2212.04356)."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import NonNegativeFloat
from shared.registry import nearest
from stage1_align.towers.audio_checkpoints import extractor_settings, folder_config, load_folder
from stage1_align.towers.audio_tower import pad_waveforms
from stage1_align.towers.base import Encoded
from stage1_align.towers.layered_tower import MIX, LayeredOptions, LayeredTower
from stage1_align.towers.mel_cnn import check_bank
from stage1_align.towers.slaney_mel import slaney_mel
from stage1_align.towers.transformers_config import build_config, check_fields, known_fields

FEATURES = {"sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
"""preprocessor_config.json of every published model."""
PREFIXES = {r"^(model\.)?encoder\.": ""}
"""{prefix of encoder weights in WhisperModel and WhisperForConditionalGeneration: prefix in the encoder}."""
STRIDE = 2
"""Spectrogram frames per position of the encoder."""
MAX_HZ = 8000.0
"""Upper end of the mel bands for any sample rate."""


@dataclass
class WhisperOptions(LayeredOptions):
    pretrained: str | None = None
    """Local transformers folder: config.json, the weights of the whole model or of its encoder, and optionally
    preprocessor_config.json (openai/whisper-* are Apache-2.0). None: random weights."""
    model_cfg: dict = field(default_factory=dict)
    """Fields of WhisperConfig that override the folder's: d_model, encoder_layers, num_mel_bins, ..."""
    feature_cfg: dict = field(default_factory=dict)
    """Fields of WhisperFeatureExtractor that override preprocessor_config.json: sampling_rate, n_fft, hop_length."""
    silence_seconds: NonNegativeFloat | None = None
    """Seconds of silence that the encoder sees after a clip. None fills its window of 30 s, as in its training, so that
    every clip costs 30 s; 0 costs only the clip's length, but changes the features."""
    max_pool: bool = False
    """Also pool the maximum over time: an expression may be brief."""

    def __post_init__(self):
        super().__post_init__()
        for name, value in self.feature_cfg.items():
            if name not in FEATURES:
                raise UserError(f"feature_cfg has no field {name!r}: {nearest(name, FEATURES)}")
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 384_000:
                raise UserError(f"feature_cfg.{name} is {value!r:.60}: expected a whole number from 1 to 384000")


class Whisper(LayeredTower):
    """Waveforms at 16 kHz in windows of 30 s to frames (T, C) at 50 Hz and their mean in the shared space.

    Frame i covers the samples from i * 320 to (i + 1) * 320 (numbers of the published models). The output has only
    frames that start before the end of a clip, without the model's output for the silence after it. A longer clip is
    cut into windows of 30 s, each encoded independently, as with WhisperFeatureExtractor.
    """

    Options = WhisperOptions
    net: Any
    hann: Tensor
    filters: Tensor

    def __init__(self, options: WhisperOptions, embed_dim: int):
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        replaced = options.model_cfg
        options, config = _resolved(options, WhisperConfig)
        config.encoder_layerdrop = 0.0  # otherwise some processes would have parameters without a gradient
        super().__init__(dataclasses.replace(options, model_cfg=known_fields(config)), embed_dim)
        if options.pretrained:
            self.net = load_folder(WhisperEncoder, options.pretrained, config, PREFIXES, replaced)
        else:
            self.net = WhisperEncoder(config)
        kept = self._choose_layer(config.encoder_layers)
        if kept < config.encoder_layers:
            del self.net.layers[kept:]
            self.net.layer_norm = nn.Identity()  # belongs to the last block, which is dropped
        self.sample_rate, self.n_fft, self.hop = (options.feature_cfg[name] for name in FEATURES)
        self.positions = config.max_source_positions
        self.step = STRIDE * self.hop
        """Samples per frame of the sequence."""
        self.window = self.positions * self.step
        """Samples per window."""
        self.rate = self.sample_rate / self.step
        check_bank(self.n_fft, config.num_mel_bins)
        if self.n_fft > self.window:
            raise UserError(f"feature_cfg.n_fft is {self.n_fft}: a window has {self.window} samples; give fewer")
        filters = slaney_mel(self.sample_rate, self.n_fft, config.num_mel_bins, 0.0, MAX_HZ)  # (M, bins)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("hann", torch.hann_window(self.n_fft), persistent=False)  # (n_fft,)
        self.project = self._projection()

    @property
    def width(self) -> int:
        return self.net.config.d_model

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, from input to output."""
        return list(self.net.layers)

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Waveforms float32 (S_i,) at `sample_rate` to windows (B, W, S), zero-padded, and samples int64 (B,). S is the
        full window if any clip is longer, and otherwise no more than the longest clip needs."""
        longest = max(len(item) for item in items)
        windows = max(1, math.ceil(longest / self.window))
        length = self.window if windows > 1 else max(self.step, math.ceil(longest / self.step) * self.step)
        waveform, samples = pad_waveforms(items, windows * length)  # (B, W * S), (B,)
        return {"waveform": rearrange(waveform, "b (w s) -> b w s", w=windows), "samples": samples}

    def forward(self, waveform: Tensor, samples: Tensor) -> Encoded:
        """waveform float32 (B, W, S), samples int64 (B,): the real length of each clip."""
        batch, windows, length = waveform.shape
        starts = torch.arange(windows, device=samples.device) * length  # (W,)
        steps = self._count_steps((samples[:, None] - starts).clamp(0, length))  # (B, W)
        real = steps > 0  # (B, W)
        if not real.any():
            real[0, 0] = True  # every parameter needs a gradient, even without any sound; masked below
        positions = self._count_positions(steps[real])  # (N,)
        count = int(positions.max())
        mel = self._log_mel(self._power(waveform[real]), STRIDE * (count + 1))  # (N, M, F)
        states = self._encode(mel, positions, count).float()  # (N, P, C)
        covered = length // self.step  # frames of the sequence per window
        sequence = states.new_zeros(batch, windows, covered, states.shape[-1])  # (B, W, T', C)
        sequence[real] = nn.functional.pad(states, (0, 0, 0, covered - count))  # cut if the encoder saw more
        sequence = sequence.flatten(1, 2)  # (B, T, C)
        return self._finish(sequence, self._step_mask(sequence, samples), self.rate)

    def _count_steps(self, samples: Tensor) -> Tensor:
        """Frames of the sequence that start within this many samples, of the same shape."""
        return (samples + self.step - 1) // self.step

    def _count_positions(self, steps: Tensor) -> Tensor:
        """How many positions of its window the encoder sees for a number of real ones (N,): int64 (N,)."""
        silence = self.options.silence_seconds
        if silence is None:
            return torch.full_like(steps, self.positions)  # (N,)
        return (steps.clamp(min=1) + math.ceil(silence * self.rate)).clamp(max=self.positions)  # (N,)

    def _step_mask(self, sequence: Tensor, samples: Tensor) -> Tensor:
        """Which frames of (B, T, C) start before the end of their clip: bool (B, T)."""
        return torch.arange(sequence.shape[1], device=samples.device) < self._count_steps(samples)[:, None]

    def _power(self, waveform: Tensor) -> Tensor:
        """The power spectra (N, F, bins) of windows (N, S), in fp32. F covers the sound and the silence after it.
        Frames that cross the edge of a full window use reflection padding."""
        length = min(self.window, waveform.shape[1] + math.ceil(self.n_fft / self.step) * self.step)
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = nn.functional.pad(waveform.float(), (0, length - waveform.shape[1]))  # (N, S')
            spectrum = torch.stft(
                waveform, self.n_fft, self.hop, window=self.hann, return_complex=True
            )  # (N, bins, F + 1)
            return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)[:, :-1]  # (N, F, bins)

    def _log_mel(self, power: Tensor, frames: int) -> Tensor:
        """Log-mels as in WhisperFeatureExtractor, from the power spectra (N, F, bins): (N, M, frames), at most one
        window, with silence after F frames. The loudest value of a window determines its floor."""
        frames = min(frames, STRIDE * self.positions)
        with torch.autocast(power.device.type, enabled=False):
            mel = (power @ self.filters.T).clamp(min=1e-10).log10().transpose(1, 2)  # (N, M, F)
            quietest = mel.amax((1, 2), keepdim=True) - 8.0  # (N, 1, 1)
            mel = nn.functional.pad(mel, (0, frames - mel.shape[2]), value=-10.0)  # (N, M, frames)
            return (torch.maximum(mel, quietest) + 4.0) / 4.0

    def _encode(self, mel: Tensor, positions: Tensor, count: int) -> Tensor:
        """The chosen hidden state (N, P, C), P = count, from log-mels (N, M, F) with F = 2 P, or more before the end
        of the window. positions int64 (N,): how many of a window are visible."""
        net, gelu = self.net, nn.functional.gelu
        x = gelu(net.conv2(gelu(net.conv1(mel)))).transpose(1, 2)[:, :count]  # (N, P, C)
        x = x + net.embed_positions.weight[:count]  # (N, P, C)
        x = nn.functional.dropout(x, net.dropout, net.training)  # (N, P, C)
        mask = None  # transformers' own model has none
        if self.options.silence_seconds is not None:
            seen = torch.arange(count, device=mel.device) < positions[:, None]  # (N, P)
            mask = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[:, None, None]
        mixed = self.options.layer == MIX
        states = [x] if mixed else []
        for block in net.layers:
            x = block(x, mask)  # (N, P, C)
            if mixed:
                states.append(x)
        x = net.layer_norm(x)  # (N, P, C)
        return self._mix([*states[:-1], x]) if mixed else x


def _resolved(options: WhisperOptions, config_class: Any) -> tuple[WhisperOptions, Any]:
    """The options with the configuration and the spectrogram settings of the folder, and the configuration."""
    where = "whisper tower: model_cfg"
    check_fields(config_class, options.model_cfg, where)
    model_cfg, features = options.model_cfg, dict(FEATURES)
    if options.pretrained:
        config = folder_config(options.pretrained)
        if not isinstance(config, config_class):
            raise UserError(f"{options.pretrained}: a {config.model_type!r}; the whisper tower needs a Whisper model")
        model_cfg = known_fields(config) | model_cfg
    config = build_config(config_class, model_cfg, where)
    if options.pretrained:
        features |= _extractor_values(options.pretrained, config)
    return dataclasses.replace(options, model_cfg=model_cfg, feature_cfg=features | options.feature_cfg), config


def _extractor_values(folder: str, config: Any) -> dict[str, Any]:
    """The spectrogram settings of the folder, if any. UserError if they belong to another model."""
    path, values = extractor_settings(folder)
    bands, expected = values.get("feature_size", config.num_mel_bins), config.num_mel_bins
    if bands != expected:
        raise UserError(f"{path}: has {bands!r:.60} mel bands, config.json {expected}; take both from the same model")
    return {name: values[name] for name in FEATURES if name in values}
