"""Waveforms: sample formats, channels and sample rates."""

import numpy as np


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample float32 (S,) at `rate` Hz to float32 (round(S * new_rate / rate),)."""
    if len(waveform) == 0 or rate == new_rate:
        return waveform.astype(np.float32)
    import soxr

    return soxr.resample(waveform.astype(np.float32), rate, new_rate)


def to_channels(samples: np.ndarray, packed: bool, count: int) -> np.ndarray:
    """float32 (count, S) in [-1, 1]. samples: of any sample format, (count, S), or (1, S * count) if packed."""
    if packed:
        samples = samples.reshape(-1, count).T  # (count, S)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)


def to_mono(channels: np.ndarray) -> np.ndarray:
    """The mean of the channels (C, S), float32 (S,)."""
    return channels.mean(axis=0, dtype=np.float32) if len(channels) > 1 else channels[0]
