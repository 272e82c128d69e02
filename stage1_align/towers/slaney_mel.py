"""Slaney's mel filter bank, bitwise identical to librosa's, without importing librosa's filters: they import numba and
scipy.signal, a second in every process that loads a tower."""

import contextlib
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

LINEAR_HZ = 200.0 / 3
"""Hz per mel below BREAK_HZ; above it the scale is logarithmic."""
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0
_LOCK = threading.Lock()


def slaney_mel(sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangular filters of equal area, float32 (n_mels, n_fft // 2 + 1): librosa.filters.mel with its defaults (the
    scale of Slaney's Auditory Toolbox, 1998). sr, fmin, fmax in Hz."""
    edges = _to_hz(np.linspace(_to_mel(fmin), _to_mel(fmax), n_mels + 2))  # (n_mels + 2,)
    ramps = edges[:, None] - np.fft.rfftfreq(n=n_fft, d=1.0 / sr)  # (n_mels + 2, bins)
    widths = np.diff(edges)[:, None]  # (n_mels + 1, 1)
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]  # (n_mels, bins)
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)  # (n_mels, bins)
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters


def _to_mel(hz: float) -> float:
    if hz < BREAK_HZ:
        return hz / LINEAR_HZ
    return BREAK_HZ / LINEAR_HZ + np.log(hz / BREAK_HZ) / LOG_STEP


def _to_hz(mel: np.ndarray) -> np.ndarray:
    """mel (N,) to Hz (N,)."""
    first = BREAK_HZ / LINEAR_HZ
    return np.where(mel < first, LINEAR_HZ * mel, BREAK_HZ * np.exp(LOG_STEP * (np.maximum(mel, first) - first)))


@contextlib.contextmanager
def instead_of_librosa(stft: Any) -> Iterator[None]:
    """Inside this block, torchlibrosa's module `stft` uses the filters from here. The windows and the matrix of its
    Fourier transform, which is not used, are zero."""
    filters = types.SimpleNamespace(mel=slaney_mel, get_window=lambda window, length, fftbins: np.zeros(length))
    util = types.SimpleNamespace(pad_center=lambda window, size: np.zeros(size))
    with _LOCK:  # otherwise two threads would restore each other's
        original, stft.librosa = stft.librosa, types.SimpleNamespace(filters=filters, util=util)
        matrix, stft.DFTBase.dft_matrix = stft.DFTBase.dft_matrix, lambda _, size: np.zeros((size, size), complex)
        try:
            yield
        finally:
            stft.librosa, stft.DFTBase.dft_matrix = original, matrix
