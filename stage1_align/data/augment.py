"""Augmentation of faces and sound that preserves the emotion."""

import cv2
import numpy as np


def augment_frames(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random shift, flip and lighting for all frames of a clip: uint8 (T, H, W, 3) to the same shape."""
    if len(frames) == 0:
        return frames
    height, width = frames.shape[1:3]
    angle, zoom = rng.uniform(-3, 3), rng.uniform(0.95, 1.08)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, zoom)  # (2, 3)
    matrix[:, 2] = matrix[:, 2] + rng.uniform(-0.05, 0.05, 2) * (width, height)
    gain, offset = rng.uniform(0.75, 1.25), rng.uniform(-20, 20)
    tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)  # (3,)
    mirror = rng.random() < 0.5
    out = np.empty_like(frames)  # (T, H, W, 3)
    curve = np.arange(256)[:, None] * (gain * tint) + offset  # (256, 3)
    table = np.clip(curve, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    for index, frame in enumerate(frames):
        warped = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        warped = cv2.LUT(warped, table)  # (H, W, 3)
        out[index] = warped[:, ::-1] if mirror else warped
    return out


def augment_waveform(waveform: np.ndarray, rng: np.random.Generator, gain_db: float) -> np.ndarray:
    """A random gain within +-gain_db, a later start and a little noise: float32 (S,) to (S - shift,), in [-1, 1]."""
    if len(waveform) == 0:
        return waveform
    gain = 10 ** (rng.uniform(-gain_db, gain_db) / 20)
    shift = int(rng.integers(0, 1 + len(waveform) // 10))
    noise = rng.standard_normal(len(waveform), dtype=np.float32) * 10 ** (rng.uniform(-70, -45) / 20)  # (S,)
    return np.clip(gain * waveform + noise, -1, 1).astype(np.float32)[shift:]  # (S - shift,)
