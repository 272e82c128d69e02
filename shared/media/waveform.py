"""Waveforms: sample formats, channels and sample rates."""

import numpy as np


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Resample float32 (S,) at `rate` Hz to float32 (round(S * new_rate / rate),)."""
    if len(waveform) == 0 or rate == new_rate:
        return waveform.astype(np.float32)
    import soxr

    return soxr.resample(waveform.astype(np.float32), rate, new_rate)


class RateConverter:
    """Resamples sound given in pieces, without seams between them."""

    def __init__(self, rate: int, new_rate: int):
        import soxr

        self.rate, self.new_rate = rate, new_rate
        self._stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32")
        self._taken = self._given = 0

    @property
    def pending(self) -> int:
        """Pending samples at the new rate for the pieces so far."""
        return max(0, round(self._taken * self.new_rate / self.rate) - self._given)

    def convert(self, piece: np.ndarray) -> np.ndarray:
        """float32 (S,) to the samples that are ready, float32 (R,)."""
        self._taken += len(piece)
        out = self._stream.resample_chunk(np.ascontiguousarray(piece, np.float32))
        self._given += len(out)
        return out

    def finish(self) -> np.ndarray:
        """The rest, float32 (R,)."""
        return self._stream.resample_chunk(np.zeros(0, np.float32), last=True)[: self.pending]


def to_channels(samples: np.ndarray, packed: bool, count: int) -> np.ndarray:
    """float32 (count, S) in [-1, 1]. samples: of any sample format, (count, S), or (1, S * count) if packed."""
    if packed:
        samples = samples.reshape(-1, count).T  # (count, S)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
