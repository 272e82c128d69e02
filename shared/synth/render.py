"""Renders a face to frames: each shape is computed for all frames at once, then OpenCV draws it frame by frame, at 1/16
pixel."""

import cv2
import numpy as np

from shared.synth.face import UNITS, Person
from shared.synth.face_shapes import face_shapes

SHIFT = 4
"""Fractional bits of OpenCV's coordinates."""


def render(
    person: Person, units: np.ndarray, times: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw a clip: units (T, 12) at times (T,) seconds, size (width, height) -> RGB uint8 (T, height, width, 3)."""
    width, height = size
    named = dict(zip(UNITS, units.T, strict=True))
    place, move, scale = _head_motion(named, times, size, rng)
    shapes = []
    for shape in face_shapes(person, named):
        points = np.broadcast_to(shape.points, (len(times), *shape.points.shape[-2:]))  # (T, P, 2)
        pixels = np.einsum("tij,tpj->tpi", place, points) + move[:, None]  # (T, P, 2)
        fixed = np.ascontiguousarray(np.round(pixels * (1 << SHIFT)), dtype=np.int32)  # (T, P, 2)
        colors = np.broadcast_to(np.clip(shape.color, 0, 255), (len(times), 3)).tolist()
        widths = None if shape.stroke is None else np.maximum(1, np.round(shape.stroke * scale))  # (T,)
        shapes.append((fixed, colors, widths, shape.closed))
    background, light, grain = _background(size, rng), _light(size, rng), _grain(size, rng)
    frames = np.empty((len(times), height, width, 3), np.uint8)
    for t in range(len(times)):
        frame = background.copy()
        for fixed, colors, widths, closed in shapes:
            if widths is None:
                cv2.fillPoly(frame, [fixed[t]], colors[t], cv2.LINE_AA, SHIFT)
            else:
                cv2.polylines(frame, [fixed[t]], closed, colors[t], int(widths[t]), cv2.LINE_AA, SHIFT)
        frame = cv2.multiply(frame, light, scale=1 / 128)
        start = 7 * t % height
        frames[t] = cv2.add(frame, grain[start : start + height])
    return frames


def _head_motion(
    units: dict[str, np.ndarray], times: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation and scale (T, 2, 2), position in pixels (T, 2), and scale alone (T,) of the face."""
    width, height = size
    base = min(width, height)
    scale = base * rng.uniform(0.31, 0.375) * (1 + 0.04 * np.sin(times * rng.uniform(0.5, 1.5) + rng.uniform(0, 6)))
    center = np.array([width, height]) * 0.5 + rng.uniform(-0.06, 0.06, 2) * (width, height) + (0, 0.02 * base)
    sway = 0.035 * base * np.sin(times[:, None] * rng.uniform(0.6, 2.2, 2) + rng.uniform(0, 6, 2))  # (T, 2)
    nod = np.abs(np.sin(2 * np.pi * 1.5 * times)) * units["nod"]  # (T,)
    bounce = nod - np.sin(2 * np.pi * 4.5 * times) * 0.5 * units["shake"]  # (T,)
    move = center + sway + np.stack([0 * times, 0.16 * scale * bounce], axis=-1)  # (T, 2)
    tilt = np.deg2rad(rng.normal(0, 2) + 1.5 * np.sin(times * rng.uniform(0.5, 1.5)) + 9 * units["tilt"])  # (T,)
    rotation = np.stack([np.cos(tilt), -np.sin(tilt), np.sin(tilt), np.cos(tilt)], axis=-1).reshape(-1, 2, 2)
    return rotation * scale[:, None, None], move, scale


def _background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A blurred room, RGB uint8 (H, W, 3)."""
    width, height = size
    coarse = rng.uniform(40, 215) + rng.normal(0, 28, 3) + rng.normal(0, 18, (3, 4, 3))  # (3, 4, 3)
    room = np.clip(cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 4)):  # furniture
        corner = rng.integers((-width // 4, -height // 4), (width, height))
        opposite = corner + rng.integers((width // 8, height // 8), (width // 2, height // 2))
        cv2.rectangle(room, corner.tolist(), opposite.tolist(), rng.uniform(20, 235, 3).tolist(), -1)
    return cv2.GaussianBlur(room, (0, 0), 3)


def _light(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Light from one side, uint8 (H, W, 3): 128 leaves a pixel unchanged."""
    slope, level = rng.normal(0, 0.18, 2), rng.uniform(0.72, 1.15)
    y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    tint = np.exp(rng.normal(0, 0.04, 3))
    return np.clip(128 * (level + slope[0] * x + slope[1] * y)[..., None] * tint, 30, 200).astype(np.uint8)


def _grain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Sensor noise, uint8 (2H, W, 3): each window of H rows serves one frame."""
    level = rng.uniform(0.5, 3)
    noise = np.clip(np.round(3 * level + level * rng.standard_normal((size[1], size[0], 3), np.float32)), 0, 255)
    return np.tile(noise.astype(np.uint8), (2, 1, 1))
