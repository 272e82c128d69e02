"""Voice activity detection: the probability of speech in steps of 32 ms, by silero-vad (silero.ai, MIT license).

The weights are the safetensors file of the silero-vad package. The network is small (a spectrogram, four convolutions,
an LSTM of 128 units), so it runs here in NumPy, with the convolutions over a whole clip at once: 4 ms for three seconds
instead of some 80 ms with the packaged model, and workers do not import torch. The results equal the packaged model's
(a test compares them).
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np

from shared.media.waveform import resample

RATE = 16000
"""Sample rate of the network, in Hz."""
CHUNK, CONTEXT, PAD = 512, 64, 64
"""Samples per step (32 ms), samples of the previous step that are read too, samples of mirrored padding."""
WINDOW, HOP = 256, 128


def speech_probability(waveform: np.ndarray, rate: int) -> np.ndarray:
    """float32 (N,) in [0, 1], one value per started 32 ms, of float32 (S,) at `rate` Hz."""
    samples = resample(waveform, rate, RATE)
    if len(samples) == 0:
        return np.zeros(0, np.float32)
    weights = _weights()
    count = -(-len(samples) // CHUNK)
    padded = np.zeros(CONTEXT + count * CHUNK, np.float32)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    chunks = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + CHUNK)[::CHUNK]  # (N, 576)
    chunks = np.pad(chunks, ((0, 0), (0, PAD)), mode="reflect")  # (N, 640)
    windows = np.lib.stride_tricks.sliding_window_view(chunks, WINDOW, axis=1)[:, ::HOP]  # (N, 4, 256)
    # A contiguous copy: BLAS does not multiply overlapping views.
    windows = np.ascontiguousarray(windows).reshape(-1, WINDOW)  # (N * 4, 256)
    spectrum = (windows @ weights["stft_conv.weight"]).reshape(count, 4, -1)  # (N, 4, 258): real, then imaginary parts
    half = spectrum.shape[-1] // 2
    x = np.sqrt(spectrum[..., :half] ** 2 + spectrum[..., half:] ** 2)  # (N, 4, 129)
    for layer, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = np.maximum(_convolve(x, weights[f"{layer}.weight"], stride) + weights[f"{layer}.bias"], 0)  # (N, t, C)
    hidden = _lstm(x[:, 0], weights)  # (N, 128)
    score = np.maximum(hidden, 0) @ weights["final_conv.weight"][:, 0] + weights["final_conv.bias"]  # (N,)
    return _sigmoid(score).astype(np.float32)


def at_steps(probability: np.ndarray, steps: int, hertz: float) -> np.ndarray:
    """The mean of probabilities per 32 ms (N,) over each of `steps` steps at `hertz`: float32 (steps,)."""
    if len(probability) == 0:
        return np.zeros(steps, np.float32)
    total = np.concatenate([[0.0], np.cumsum(probability, dtype=np.float64)])  # (N + 1,)
    edges = np.minimum(np.arange(steps + 1) / hertz * RATE / CHUNK, len(probability))  # (steps + 1,)
    until = np.interp(edges, np.arange(len(total)), total)  # (steps + 1,)
    width = np.diff(edges)
    return np.where(width > 0, np.diff(until) / np.maximum(width, 1e-9), probability[-1]).astype(np.float32)


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    """Read once per process, without importing the package (which would import torch)."""
    from safetensors.numpy import load_file

    package = importlib.util.find_spec("silero_vad")
    assert package is not None and package.origin is not None  # a dependency
    return arrange(load_file(str(Path(package.origin).parent / "data" / "silero_vad_16k.safetensors")))


def arrange(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights as contiguous matrices to multiply from the right."""
    matrices = {name: np.ascontiguousarray(value.T) for name, value in weights.items() if value.ndim == 2}
    for name, value in weights.items():
        if value.ndim == 3:  # (out, C, taps) -> (taps * C, out)
            matrices[name] = np.ascontiguousarray(value.transpose(2, 1, 0).reshape(-1, len(value)))
    bias = {name: value for name, value in weights.items() if value.ndim == 1}
    return {**matrices, **bias}


def _convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Convolve x (N, t, C) with kernel (3 * C, out), zero-padded by one step: (N, ceil(t / stride), out)."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))  # (N, t + 2, C)
    taps = np.concatenate([padded[:, tap : tap + x.shape[1] : stride] for tap in range(3)], axis=2)  # (N, t', 3 * C)
    return (taps.reshape(-1, taps.shape[2]) @ kernel).reshape(*taps.shape[:2], -1)


def _lstm(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Hidden states (N, 128) of inputs x (N, 128), one per chunk."""
    size = x.shape[1]
    bias = weights["lstm_cell.bias_ih"] + weights["lstm_cell.bias_hh"]
    inputs = x @ weights["lstm_cell.weight_ih"] + bias  # (N, 512): input, forget, candidate, output
    recurrent = weights["lstm_cell.weight_hh"]  # (128, 512)
    hidden = cell = np.zeros(size, np.float32)
    out = np.empty_like(x)
    for step, row in enumerate(inputs):
        pre = row + hidden @ recurrent  # (512,)
        gates = _sigmoid(pre)
        cell = gates[size : 2 * size] * cell + gates[:size] * np.tanh(pre[2 * size : 3 * size])
        hidden = gates[3 * size :] * np.tanh(cell)
        out[step] = hidden
    return out


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
