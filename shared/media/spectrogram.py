"""The log-mel spectrogram of a waveform in NumPy, for use without a tower."""

import numpy as np

MELS = 40


def log_mel(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Natural logarithm of mel power, 25 ms windows every 10 ms, 60 Hz to 7600 Hz.

    waveform float32 (S,) at `rate` Hz -> float64 (T, 40); a waveform shorter than a window is padded with zeros, T = 1.
    """
    size, step = int(0.025 * rate), int(0.010 * rate)
    waveform = np.pad(waveform, (0, max(0, size - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(waveform, size)[::step]  # (T, size)
    power = np.abs(np.fft.rfft(windows * np.hanning(size).astype(np.float32), axis=1)) ** 2  # (T, bins)
    edges = 700 * (np.exp(np.linspace(np.log1p(60 / 700), np.log1p(7600 / 700), MELS + 2)) - 1)  # (42,) Hz
    hertz = np.fft.rfftfreq(size, 1 / rate)  # (bins,)
    rising = (hertz - edges[:-2, None]) / np.diff(edges[:-1])[:, None]  # (40, bins)
    falling = (edges[2:, None] - hertz) / np.diff(edges[1:])[:, None]  # (40, bins)
    return np.log(power @ np.clip(np.minimum(rising, falling), 0, None).T + 1e-6)
