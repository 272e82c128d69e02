"""Artificial damage to frames and waveforms, by kind and severity.

The synthetic corpus damages whole frames; the fusion stage damages face crops and waveforms, so that the weights of
damaged modalities can be trained and scored. At severity 1, almost nothing of the expression is left.
"""

import cv2
import numpy as np

VISION_DAMAGE = ("occlusion", "darkness", "blur", "no_face")
AUDIO_DAMAGE = ("noise", "clipping", "silence")


def damage_frames(frames: np.ndarray, kind: str, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Damage all frames of a clip. Returns a new array of the shape of `frames`, uint8 (T, H, W, 3).

    occlusion  an object in front of the face: a drifting patch over the middle, 50 to 95 % of each side
    darkness   light decreases to 2 % at severity 1, sensor noise stays
    blur       Gaussian with a sigma of up to 14 % of the shorter side
    no_face    a wall instead of the person, at any severity
    severity: in (0, 1]. Raises ValueError on an unknown kind or another severity.
    """
    _check(kind, VISION_DAMAGE, severity)
    if len(frames) == 0:
        return frames.copy()
    return {"occlusion": _occlude, "darkness": _darken, "blur": _blur, "no_face": _empty}[kind](frames, rng, severity)


def damage_waveform(
    waveform: np.ndarray, rate: int, kind: str, rng: np.random.Generator, severity: float
) -> np.ndarray:
    """Damage a waveform float32 (S,) in [-1, 1] at `rate` Hz. Returns float32 (S,) in [-1, 1].

    noise      colored noise of varying level, from 10 dB below to 20 dB above the voice
    clipping   a microphone overdriven by up to 60 dB, together with the noise of the room
    silence    digital silence, at any severity
    severity: in (0, 1]. Raises ValueError on an unknown kind or another severity.
    """
    _check(kind, AUDIO_DAMAGE, severity)
    if kind == "silence" or len(waveform) == 0:
        return np.zeros(len(waveform), np.float32)
    level = max(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))), 1e-4)
    noise = _varying_noise(len(waveform), rate, rng)  # (S,)
    if kind == "noise":
        noisy = waveform + noise * (level * 10 ** ((-10 + 30 * severity) / 20))  # (S,)
        return (noisy / max(1.0, float(np.abs(noisy).max()))).astype(np.float32)
    driven = (waveform + noise * (level * 10 ** ((-30 + 27 * severity) / 20))) / level  # (S,)
    return np.clip(driven * 10 ** ((-10 + 50 * severity) / 20), -0.99, 0.99).astype(np.float32)


def _check(kind: str, kinds: tuple[str, ...], severity: float) -> None:
    if kind not in kinds:
        raise ValueError(f"no damage called {kind!r}: one of {', '.join(kinds)}")
    if not 0 < severity <= 1:
        raise ValueError(f"severity is {severity}: expected a number above 0, at most 1")


def _occlude(frames: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    count, height, width = frames.shape[:3]
    side = 0.5 + 0.45 * severity
    patch = _wall(int(side * height), int(side * width), rng)  # (h, w, 3)
    room = np.array([height - patch.shape[0], width - patch.shape[1]])  # (2,)
    start, drift = 0.5 + rng.uniform(-0.3, 0.3, 2), rng.uniform(-0.2, 0.2, 2)
    out = frames.copy()
    for index in range(count):
        top, left = (room * (start + drift * index / count)).astype(int)
        out[index, top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return out


def _darken(frames: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    grain = rng.normal(0, 2.5, frames.shape[1:]).astype(np.float32)  # (H, W, 3)
    light = np.float32(0.02**severity)
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        shift = int(rng.integers(frames.shape[1]))
        out[index] = np.clip(frame * light + np.roll(grain, shift, axis=0), 0, 255)
    return out


def _blur(frames: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    height, width = frames.shape[1:3]
    sigma = max(0.5, 0.14 * severity * min(height, width))
    factor = max(1, int(sigma / 3))  # a wide blur equals a narrow blur of a smaller frame
    small = (max(2, width // factor), max(2, height // factor))
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        reduced = cv2.GaussianBlur(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (0, 0), sigma / factor)
        out[index] = cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def _empty(frames: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    wall = _wall(frames.shape[1], frames.shape[2], rng)  # (H, W, 3)
    return np.repeat(wall[None], len(frames), axis=0)


def _wall(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth colored surface, uint8 (height, width, 3)."""
    coarse = (rng.uniform(60, 190, 3) + rng.normal(0, 22, (4, 5, 3))).astype(np.float32)  # (4, 5, 3)
    smooth = cv2.resize(coarse, (max(1, width), max(1, height)), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def _varying_noise(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Almost pink noise of unit power with a level that changes by some 6 dB several times per second: float64
    (length,)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / rate)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 60)), length)
    knots = np.arange(0, length + rate // 4, max(1, rate // 4))
    gain = np.interp(np.arange(length), knots, rng.normal(0, 0.5, len(knots)))
    noise = noise * np.exp(gain)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)
