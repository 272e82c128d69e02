"""A drawn face: invented people whose features move with the intensities of an expression.

Geometry is in units of half a face height, origin between eyes and mouth, x to the viewer's right, y down. Every shape
is computed for all frames at once as points (T, P, 2), then drawn frame by frame with OpenCV at 1/16 pixel.
Ekman's action units (Facial Action Coding System) are shared among the dimensions: no one of them means one dimension.
"""

from dataclasses import dataclass

import cv2
import numpy as np

UNITS = ("smile", "open", "brow", "inner_brow", "frown", "eyes", "cheeks", "press", "tears", "tilt", "nod", "shake")
"""What moves. Each is about 0 at rest and 1 (or -1) at its strongest."""

# rows: Admiration, Amusement, Determination, Empathic Pain, Excitement, Joy; columns: UNITS
ACTION = np.array(
    [
        # smile  open brow  inner frown eyes  cheek press tears tilt  nod  shake
        [+0.35, 0.35, 0.75, 0.25, 0.00, 0.65, 0.00, 0.00, 0.0, +0.90, 0.0, 0.0],
        [+0.60, 0.75, 0.00, 0.00, 0.00, -0.75, 0.70, 0.00, 0.4, 0.00, 0.0, 0.9],
        [-0.10, 0.00, -0.35, 0.00, 0.95, -0.35, 0.00, 0.95, 0.0, 0.00, 0.5, 0.0],
        [-1.00, 0.25, 0.00, 1.00, 0.45, -0.60, 0.00, 0.20, 1.0, -0.90, 0.0, 0.0],
        [+0.30, 1.00, 0.85, 0.00, 0.00, 0.80, 0.00, 0.00, 0.0, 0.00, 1.0, 0.0],
        [+1.00, 0.10, 0.20, 0.00, 0.00, -0.25, 0.95, 0.00, 0.0, 0.00, 0.0, 0.0],
    ]
)
"""How much a full intensity of each dimension moves each unit."""

SHIFT = 4
_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)  # (28, 2)
_BAR = np.linspace(-1, 1, 13)
"""Abscissas along a mouth."""


@dataclass(frozen=True)
class Person:
    """The looks of a subject: drawn once, the same in all of their clips. Colours are RGB float (3,)."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    lips: np.ndarray
    width: float
    jaw: float
    eye_gap: float
    eye_size: float
    eye_height: float
    nose: float
    mouth_width: float
    mouth_height: float
    lip: float
    brow_thickness: float
    hair_length: float
    fringe: float
    beard: float
    glasses: bool
    neutral: np.ndarray
    """Resting value of each unit (12,): some people look stern or amused while feeling nothing."""
    expressivity: float


def person(rng: np.random.Generator) -> Person:
    """Invent somebody."""
    tone = rng.random()
    skin = (1 - tone) * np.array([244, 208, 182.0]) + tone * np.array([140, 96, 70.0]) + rng.normal(0, 6, 3)
    hair = [(40, 30, 26), (72, 48, 32), (120, 82, 46), (176, 140, 84), (120, 118, 118), (112, 48, 28)]
    neutral = np.zeros(len(UNITS))
    neutral[:7] = rng.normal(0, (0.05, 0.02, 0.06, 0.03, 0.04, 0.04, 0.03))
    return Person(
        skin=np.clip(skin, 40, 250),
        hair=np.array(hair[rng.integers(len(hair))]) + rng.normal(0, 6, 3),
        iris=np.array([(60, 40, 25), (70, 100, 60), (60, 90, 140), (45, 30, 20)][rng.integers(4)], float),
        shirt=rng.uniform(20, 230, 3),
        lips=np.clip(skin * (0.78, 0.55, 0.55) + (25, 0, 5), 30, 240),
        width=rng.uniform(0.70, 0.84),
        jaw=rng.uniform(0.0, 1.0),
        eye_gap=rng.uniform(0.29, 0.35),
        eye_size=rng.uniform(0.125, 0.165),
        eye_height=rng.uniform(-0.2, -0.12),
        nose=rng.uniform(0.75, 1.25),
        mouth_width=rng.uniform(0.2, 0.28),
        mouth_height=rng.uniform(0.43, 0.53),
        lip=rng.uniform(0.7, 1.4),
        brow_thickness=rng.uniform(0.035, 0.075),
        hair_length=rng.uniform(0.0, 1.0),
        fringe=rng.uniform(-0.78, -0.6),
        beard=float(rng.random() < 0.2) * rng.uniform(0.3, 0.7),
        glasses=bool(rng.random() < 0.15),
        neutral=neutral,
        expressivity=float(rng.uniform(0.92, 1.08)),
    )


def units_over_time(
    shown: np.ndarray, course: np.ndarray, times: np.ndarray, who: Person, rng: np.random.Generator
) -> np.ndarray:
    """The units (T, 12) of a clip: rest, plus what is shown, plus blinks, talk and restlessness.

    shown (6,) intensities, course (T,) share of the apex, times (T,) seconds.
    """
    moved = np.tanh(1.7 * (shown @ ACTION) * who.expressivity) / np.tanh(1.7)  # (12,)
    units = who.neutral + course[:, None] * moved  # (T, 12)
    phase, speed = rng.uniform(0, 2 * np.pi, len(UNITS)), rng.uniform(0.5, 1.5, len(UNITS))
    units += 0.05 * np.sin(2 * np.pi * speed * times[:, None] + phase)  # (T, 12)
    talk = np.abs(np.sin(np.pi * rng.uniform(3, 5) * times + phase[0]))  # (T,)
    units[:, UNITS.index("open")] += 0.12 * talk * (np.sin(2 * np.pi * 0.6 * times + phase[1]) > -0.4)
    for blink in rng.uniform(0, times[-1] + 1e-6, rng.poisson(0.25 * (times[-1] + 0.5))):
        units[:, UNITS.index("eyes")] -= 1.1 * np.exp(-(((times - blink) / 0.06) ** 2))
    return units


def render(
    who: Person, units: np.ndarray, times: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw a clip: units (T, 12) at times (T,) seconds, size (width, height) -> RGB uint8 (T, height, width, 3)."""
    width, height = size
    base = min(width, height)
    scale = base * rng.uniform(0.31, 0.375) * (1 + 0.04 * np.sin(times * rng.uniform(0.5, 1.5) + rng.uniform(0, 6)))
    centre = np.array([width, height]) * 0.5 + rng.uniform(-0.06, 0.06, 2) * (width, height) + (0, 0.02 * base)
    sway = 0.035 * base * np.sin(times[:, None] * rng.uniform(0.6, 2.2, 2) + rng.uniform(0, 6, 2))  # (T, 2)
    u = dict(zip(UNITS, units.T, strict=True))
    bounce = np.abs(np.sin(2 * np.pi * 1.5 * times)) * u["nod"] - np.sin(2 * np.pi * 4.5 * times) * 0.5 * u["shake"]
    move = centre + sway + np.stack([0 * times, 0.16 * scale * bounce], axis=-1)  # (T, 2)
    tilt = np.deg2rad(rng.normal(0, 2) + 1.5 * np.sin(times * rng.uniform(0.5, 1.5)) + 9 * u["tilt"])  # (T,)
    turn = np.stack([np.cos(tilt), -np.sin(tilt), np.sin(tilt), np.cos(tilt)], axis=-1).reshape(-1, 2, 2)
    place = turn * scale[:, None, None]  # (T, 2, 2)
    shapes = []
    for points, colour, stroke, closed in _shapes(who, u):
        points = np.broadcast_to(points, (len(times), *points.shape[-2:]))  # (T, P, 2)
        pixels = np.einsum("tij,tpj->tpi", place, points) + move[:, None]  # (T, P, 2)
        fixed = np.ascontiguousarray(np.round(pixels * (1 << SHIFT)), dtype=np.int32)  # (T, P, 2)
        colour = np.broadcast_to(np.clip(colour, 0, 255), (len(times), 3)).tolist()
        shapes.append((fixed, colour, None if stroke is None else np.maximum(1, np.round(stroke * scale)), closed))
    wall, lamp, grain = _background(size, rng), _light(size, rng), _grain(size, rng)
    frames = np.empty((len(times), height, width, 3), np.uint8)
    for t in range(len(times)):
        frame = wall.copy()
        for fixed, colour, stroke, closed in shapes:
            if stroke is None:
                cv2.fillPoly(frame, [fixed[t]], colour[t], cv2.LINE_AA, SHIFT)
            else:
                cv2.polylines(frame, [fixed[t]], closed, colour[t], int(stroke[t]), cv2.LINE_AA, SHIFT)
        frame = cv2.multiply(frame, lamp, scale=1 / 128)
        start = 7 * t % height
        frames[t] = cv2.add(frame, grain[start : start + height])
    return frames


def _shapes(who: Person, u: dict[str, np.ndarray]):
    """Back to front: (points (P, 2) or (T, P, 2), colour (3,) or (T, 3), stroke or None to fill, closed)."""
    skin, shade, dark = who.skin, who.skin * 0.86, who.skin * 0.45
    one = np.ones(len(u["open"]))  # (T,)
    lips = who.mouth_height + 0.0 * one  # (T,)
    drop = 0.22 * np.clip(u["open"], 0, 1.3)  # (T,) how far the jaw falls

    def fill(points, colour):
        return points, colour, None, True

    def line(points, colour, stroke, closed=False):
        return points, colour, stroke, closed

    # the person without the features
    back = 0.95 + 0.75 * who.hair_length
    yield fill(_oval(0, -0.12 + 0.3 * who.hair_length, who.width * 1.22, back), who.hair)
    yield fill(np.array([[-0.32, 0.6], [0.32, 0.6], [0.38, 1.6], [-0.38, 1.6]]), shade)
    yield fill(np.array([[-0.4, 1.22], [0.4, 1.22], [1.5, 1.6], [1.7, 4.0], [-1.7, 4.0], [-1.5, 1.6]]), who.shirt)
    for side in (-1, 1):
        yield fill(_oval(side * who.width * 1.0, 0.02, 0.11, 0.2), shade)
    outline = _CIRCLE * (who.width, 1.02)  # (28, 2)
    low = np.clip(outline[:, 1], 0, 1)  # (28,)
    outline = outline * np.stack([1 - (0.05 + 0.12 * who.jaw) * low, np.ones_like(low)], axis=-1)
    outline = outline[None] + np.stack([0 * one, 0.35 * drop], axis=-1)[:, None] * low[:, None]  # (T, 28, 2)
    yield fill(outline, skin)
    if who.beard:
        beard = outline[:, 1:13]  # (T, P, 2)
        yield fill(np.concatenate([beard, beard[:, ::-1] * (0.8, 0.62)], axis=1), _mix(skin, who.hair, who.beard))
    cap = outline[:, 14:] * (1.05, 1.06)  # (T, P, 2)
    inner = np.stack([np.linspace(0.98, -0.98, 9) * who.width, np.full(9, who.fringe)], axis=-1)  # (9, 2)
    inner[1:-1, 1] += np.array([0, -0.06, -0.1, -0.11, -0.09, -0.05, 0.0])
    yield fill(np.concatenate([cap, np.broadcast_to(inner, (len(one), 9, 2))], axis=1), who.hair)

    # cheeks redden and lift
    red = _mix(skin, skin * (1.0, 0.62, 0.62) + (12, 0, 0), np.clip(u["cheeks"], 0, 1)[:, None])  # (T, 3)
    for side in (-1, 1):
        yield fill(_oval(side * 0.42, 0.2 - 0.05 * u["cheeks"], 0.17 * one, 0.11 * one), red)
        fold = np.array([[0.2, 0.16], [0.3, 0.28], [0.34, 0.42]]) * (side, 1)  # (3, 2)
        yield line(fold, _mix(skin, dark, 0.55 * np.clip(u["cheeks"], 0, 1)[:, None]), 0.02)

    # eyes, lids, brows
    for side in (-1, 1):
        x, y = side * who.eye_gap, who.eye_height
        gape = np.clip(0.92 + 0.72 * u["eyes"], 0.06, 1.7)  # (T,)
        tall = 0.5 * who.eye_size * gape  # (T,)
        yield fill(_oval(x, y - 0.02, who.eye_size * 1.4, who.eye_size * 1.05), shade * 0.82)
        yield fill(_oval(x * one, y * one, who.eye_size * one, tall), np.array([240, 238, 235.0]))
        iris = who.eye_size * 0.5
        yield fill(_oval(x * one, y * one, iris * one, np.minimum(tall, iris)), who.iris)
        yield fill(_oval(x * one, y * one, 0.5 * iris * one, np.minimum(tall, 0.5 * iris)), np.array([12, 10, 10.0]))
        lid = _oval(x * one, y * one, 1.08 * who.eye_size * one, 1.1 * tall)[:, 13:]  # (T, 15, 2) the upper half
        yield line(lid, dark * 0.5, 0.032)
        high = y - 0.21 - 0.17 * u["brow"]  # (T,)
        frown, inner_brow = u["frown"], u["inner_brow"]
        ends = [
            np.stack([side * (who.eye_gap - 0.17 - 0.05 * frown), high + 0.16 * frown - 0.18 * inner_brow], axis=-1),
            np.stack([x * one, high - 0.05 + 0.03 * frown - 0.02 * inner_brow], axis=-1),
            np.stack([side * (who.eye_gap + 0.2) * one, high + 0.03 + 0.06 * inner_brow - 0.03 * frown], axis=-1),
        ]
        yield line(np.stack(ends, axis=1), _mix(who.hair, np.zeros(3), 0.65), who.brow_thickness)
        crease = np.array([[0.05, -0.42], [0.06, -0.25]]) * (side, 1)  # (2, 2)
        yield line(crease, _mix(skin, dark, np.clip(frown, 0, 1)[:, None]), 0.03)
        tear = np.clip(u["tears"], 0, 1)  # (T,)
        wet = _mix(shade, np.array([190, 225, 250.0]), np.clip(3 * tear, 0, 1)[:, None])  # (T, 3)
        yield fill(_oval((x + side * 0.03) * one, y + 0.09 + 0.12 * tear, 0.035 * one, 0.02 + 0.11 * tear), wet)
        if who.glasses:
            yield line(_oval(x, y, who.eye_size * 1.5, who.eye_size * 1.25), np.array([40, 38, 40.0]), 0.025, True)

    # nose
    tip = 0.2 * who.nose
    yield line(np.array([[0.05, -0.12], [0.085 * who.nose, tip - 0.04], [0.0, tip]]), shade * 0.88, 0.03)
    for side in (-1, 1):
        yield fill(_oval(side * 0.06 * who.nose, tip, 0.03, 0.018), dark * 0.8)

    # mouth: two curves between the corners, open by what they leave between them
    smile, press = np.clip(u["smile"], -1.3, 1.3), np.clip(u["press"], 0, 1)  # (T,)
    half = who.mouth_width * (1 + 0.38 * np.clip(smile, -0.3, 1) - 0.28 * press - 0.12 * np.clip(u["open"], 0, 1))
    bend = _BAR**2  # (13,)
    middle = lips[:, None] + (0.08 - 0.22 * bend) * smile[:, None]  # (T, 13)
    gap = 0.02 * (1 - press)[:, None] + 0.34 * np.clip(u["open"], 0, 1.2)[:, None] * (1 - bend)  # (T, 13)
    x = half[:, None] * _BAR  # (T, 13)
    thick = 0.045 * who.lip * (1 - 0.65 * press)[:, None] * (1 - 0.7 * bend)  # (T, 13)
    top, bottom = middle - 0.25 * gap, middle + 0.75 * gap  # (T, 13)
    yield fill(_ring(x, top - thick, bottom + thick), who.lips)
    yield fill(_ring(x * 0.94, top, bottom), np.array([52, 18, 22.0]))
    yield fill(_ring(x * 0.85, top, np.minimum(top + 0.07, bottom)), np.array([238, 236, 228.0]))
    yield line(np.stack([x, middle], axis=-1), np.array([70, 30, 32.0]) + 0.2 * skin, 0.02 if who.lip < 1 else 0.026)


def _oval(x, y, wide, tall) -> np.ndarray:
    """An ellipse as points: (28, 2) from numbers, (T, 28, 2) from arrays (T,)."""
    x, y, wide, tall = np.broadcast_arrays(x, y, wide, tall)
    return np.stack([x, y], -1)[..., None, :] + _CIRCLE * np.stack([wide, tall], -1)[..., None, :]


def _ring(x, top, bottom) -> np.ndarray:
    """The outline (T, 2P, 2) between two curves over the same abscissas (T, P)."""
    upper, lower = np.stack([x, top], axis=-1), np.stack([x, bottom], axis=-1)  # (T, P, 2)
    return np.concatenate([upper, lower[:, ::-1]], axis=1)


def _mix(a, b, share):
    return a * (1 - share) + b * share


def _background(size, rng) -> np.ndarray:
    width, height = size
    coarse = rng.uniform(40, 215) + rng.normal(0, 28, 3) + rng.normal(0, 18, (3, 4, 3))  # (3, 4, 3)
    wall = np.clip(cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 4)):  # furniture
        corner = rng.integers((-width // 4, -height // 4), (width, height))
        far = corner + rng.integers((width // 8, height // 8), (width // 2, height // 2))
        cv2.rectangle(wall, corner.tolist(), far.tolist(), rng.uniform(20, 235, 3).tolist(), -1)
    return cv2.GaussianBlur(wall, (0, 0), 3)


def _light(size, rng) -> np.ndarray:
    """A lamp from one side, uint8 (H, W, 3): 128 leaves a pixel as it is."""
    slope, level = rng.normal(0, 0.18, 2), rng.uniform(0.72, 1.15)
    y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
    tint = np.exp(rng.normal(0, 0.04, 3))
    return np.clip(128 * (level + slope[0] * x + slope[1] * y)[..., None] * tint, 30, 200).astype(np.uint8)


def _grain(size, rng) -> np.ndarray:
    """Sensor noise, uint8 (2H, W, 3): every window of H rows is another frame's."""
    level = rng.uniform(0.5, 3)
    noise = np.clip(np.round(3 * level + level * rng.standard_normal((size[1], size[0], 3), np.float32)), 0, 255)
    return np.tile(noise.astype(np.uint8), (2, 1, 1))
