"""The base of the audio towers, and what their `encode` accepts."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from shared.errors import UserError
from shared.media.arrays import check_number, reject, to_array, to_sample_rate, to_waveform
from shared.media.decode import MediaError, decode
from shared.media.headers import read_header
from shared.media.waveform import resample
from stage1_align.towers.base import Encoded, Tower
from stage1_align.towers.inputs import existing_file, is_path, to_list, warn_repaired, warn_truncated

ENCODE = "audio.encode"

Sound = str | os.PathLike | np.ndarray | torch.Tensor | None


class AudioTower(Tower):
    """A tower for waveforms. `collate` takes float32 (S,) arrays at `sample_rate`; S = 0 is an absent clip."""

    sample_rate: int
    """Hz of the waveforms in `collate`."""
    rate: float
    """Steps of the sequence per second."""

    def calibrate(self, items: list[np.ndarray]) -> None:
        """Set input statistics, if the tower has any, from waveforms at `sample_rate`. UserError without sound."""
        raise NotImplementedError

    def encode(self, sounds: Sound | Sequence[Sound], rate: Any = None, *, max_seconds: float = 60.0) -> Encoded:
        """Embed one sound or a list of sounds: a list is one batch, a single sound a batch of one.

        sounds: each one of
            a path of an audio or video file, of any sample rate and number of channels;
            a NumPy array or tensor: (S,) mono, or (S, channels) or (channels, S) with up to 8 channels, which are
            averaged. Samples are float in [-1, 1], or int16, int32 or uint8, which are scaled by the full range;
            None: an absent sound. So is a file without an audio track.
        rate: sample rate of the arrays in Hz, required for them: one number, or a list with one for each sound, None
            for a file, which has its own rate. Sounds are resampled to the tower's `sample_rate` (soxr).
        max_seconds: a file is read up to this time. A longer one is marked in `truncated`, with a warning.

        Returns an Encoded: pooled float32 (B, D), of unit length; sequence float32 (B, T, C); mask bool (B, T); rate,
        steps per second; times float32 (B, T), the middle of each step in seconds; truncated bool (B,). An absent sound
        has a mask of all False and a pooled vector of zeros. No gradient.

        UserError, in one line, for a missing or unreadable file, an array without a rate, and samples that are empty,
        ambiguous in shape, NaN or infinite, or far outside [-1, 1].

        >>> encoders.audio.encode(waveform, rate=44100).pooled.shape  # waveform float32 (S,) or int16 (S, 2)
        torch.Size([1, 64])
        >>> encoders.audio.encode(["talk.mp4", "talk.wav"]).mask.shape
        torch.Size([2, 31])
        """
        check_number(ENCODE, "max_seconds", max_seconds)
        items = to_list(ENCODE, sounds)
        rates = _rates(rate, items)
        read = [self._read(item, item_rate, max_seconds) for item, item_rate in zip(items, rates, strict=True)]
        encoded = self.encode_prepared([waveform for waveform, _ in read])
        encoded.truncated = torch.tensor([more for _, more in read])  # (B,)
        steps = torch.arange(encoded.mask.shape[1], device=encoded.mask.device)  # (T,)
        times = ((steps + 0.5) / self.rate).expand(encoded.mask.shape)  # (B, T)
        encoded.times = times.masked_fill(~encoded.mask, torch.nan)  # (B, T)
        warn_truncated([more for _, more in read], f"max_seconds={max_seconds:g}")
        return encoded

    def _read(self, item: Any, rate: int | None, max_seconds: float) -> tuple[np.ndarray, bool]:
        """A sound as float32 (S,) at the tower's rate, and whether its end was cut off."""
        if item is None:
            return np.zeros(0, np.float32), False
        if is_path(item):
            return self._read_file(item, max_seconds)
        if to_array(item) is None:
            raise reject(ENCODE, item, "a sound is a path, an array, a tensor or None")
        waveform = to_waveform(ENCODE, item)  # (S,)
        if rate is None:
            hint = f"rate=SAMPLE_RATE in Hz (it is resampled to the tower's {self.sample_rate})"
            raise reject(ENCODE, item, f"an array does not say its sample rate; give {hint}")
        resampled = resample(waveform, rate, self.sample_rate)
        if not len(resampled):
            raise reject(ENCODE, item, f"no sample is left at the tower's {self.sample_rate} Hz; give a longer sound")
        return resampled, False

    def _read_file(self, item: str | os.PathLike, max_seconds: float) -> tuple[np.ndarray, bool]:
        path = existing_file(ENCODE, item)
        header = read_header(path)
        if not header.reason and header.sample_rate is None:
            return np.zeros(0, np.float32), False
        try:
            media = decode(path, 0.0, max_seconds)
        except MediaError as error:
            raise UserError(f"{path}: {error}") from None
        warn_repaired(path, media)
        return resample(media.waveform, media.sample_rate, self.sample_rate), media.more


def pad_waveforms(items: list[np.ndarray], min_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms float32 (S_i,), zero-padded, as one tensor (B, S) with S >= min_length, and their lengths int64
    (B,)."""
    samples = torch.tensor([len(item) for item in items])  # (B,)
    waveform = torch.zeros(len(items), max(min_length, int(samples.max())))  # (B, S)
    for row, item in enumerate(items):
        waveform[row, : len(item)] = torch.from_numpy(np.asarray(item, dtype=np.float32))
    return waveform, samples


def _rates(rate: Any, items: list) -> list[int | None]:
    """The sample rate of each item: None for a file and an absent sound."""
    if isinstance(rate, (list, tuple, np.ndarray, torch.Tensor)) and np.ndim(rate) > 0:
        rates = list(rate)
        if len(rates) != len(items):
            raise UserError(
                f"{ENCODE}: got {len(rates)} rates for {len(items)} sounds; give one number or one for each"
            )
        for item, value in zip(items, rates, strict=True):
            if value is not None and is_path(item):
                raise UserError(f"{ENCODE}: got rate {value} for the file {item}, which knows its own; give None")
    else:
        if rate is not None and all(item is None or is_path(item) for item in items):
            raise UserError(f"{ENCODE}: got rate={rate} for files, which know their own; leave it out")
        rates = [None if item is None or is_path(item) else rate for item in items]
    return [None if value is None else to_sample_rate(ENCODE, value) for value in rates]
