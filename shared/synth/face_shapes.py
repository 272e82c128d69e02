"""The shapes of a drawn face, back to front.

Geometry is in units of half a face height, origin between eyes and mouth, x to the viewer's right, y down. Each shape
holds its points for all frames at once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shared.synth.face import Person

_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)  # (28, 2)
_BAR = np.linspace(-1, 1, 13)
"""x coordinates along a mouth."""

Units = dict[str, np.ndarray]
"""{name of a unit: its values (T,)}."""


class Shape(NamedTuple):
    """A polygon or a line."""

    points: np.ndarray
    """(P, 2) or (T, P, 2)."""
    color: np.ndarray
    """RGB (3,) or (T, 3)."""
    stroke: float | None = None
    """Width of the line; None for a filled polygon."""
    closed: bool = True


def face_shapes(person: Person, units: Units) -> Iterator[Shape]:
    """The shapes of a person with these units, back to front."""
    yield from _head(person, units)
    yield from _cheeks(person, units)
    for side in (-1, 1):
        yield from _eye(person, units, side)
    yield from _nose(person)
    yield from _mouth(person, units)


def _head(person: Person, units: Units) -> Iterator[Shape]:
    """Hair, neck, shirt, ears, face and beard."""
    skin, shade = person.skin, person.skin * 0.86
    one = np.ones(len(units["open"]))  # (T,)
    jaw_drop = 0.22 * np.clip(units["open"], 0, 1.3)  # (T,)
    back = 0.95 + 0.75 * person.hair_length
    yield Shape(_oval(0, -0.12 + 0.3 * person.hair_length, person.width * 1.22, back), person.hair)
    yield Shape(np.array([[-0.32, 0.6], [0.32, 0.6], [0.38, 1.6], [-0.38, 1.6]]), shade)
    yield Shape(np.array([[-0.4, 1.22], [0.4, 1.22], [1.5, 1.6], [1.7, 4.0], [-1.7, 4.0], [-1.5, 1.6]]), person.shirt)
    for side in (-1, 1):
        yield Shape(_oval(side * person.width * 1.0, 0.02, 0.11, 0.2), shade)
    outline = _CIRCLE * (person.width, 1.02)  # (28, 2)
    low = np.clip(outline[:, 1], 0, 1)  # (28,)
    outline = outline * np.stack([1 - (0.05 + 0.12 * person.jaw) * low, np.ones_like(low)], axis=-1)
    outline = outline[None] + np.stack([0 * one, 0.35 * jaw_drop], axis=-1)[:, None] * low[:, None]  # (T, 28, 2)
    yield Shape(outline, skin)
    if person.beard:
        beard = outline[:, 1:13]  # (T, P, 2)
        points = np.concatenate([beard, beard[:, ::-1] * (0.8, 0.62)], axis=1)  # (T, 2P, 2)
        yield Shape(points, _mix(skin, person.hair, person.beard))
    cap = outline[:, 14:] * (1.05, 1.06)  # (T, P, 2)
    fringe = np.stack([np.linspace(0.98, -0.98, 9) * person.width, np.full(9, person.fringe)], axis=-1)  # (9, 2)
    fringe[1:-1, 1] += np.array([0, -0.06, -0.1, -0.11, -0.09, -0.05, 0.0])
    yield Shape(np.concatenate([cap, np.broadcast_to(fringe, (len(one), 9, 2))], axis=1), person.hair)


def _cheeks(person: Person, units: Units) -> Iterator[Shape]:
    """Cheeks that redden and rise, and the folds beside the mouth."""
    skin, dark = person.skin, person.skin * 0.45
    one = np.ones(len(units["open"]))  # (T,)
    raised = np.clip(units["cheeks"], 0, 1)[:, None]  # (T, 1)
    red = _mix(skin, skin * (1.0, 0.62, 0.62) + (12, 0, 0), raised)  # (T, 3)
    for side in (-1, 1):
        yield Shape(_oval(side * 0.42, 0.2 - 0.05 * units["cheeks"], 0.17 * one, 0.11 * one), red)
        fold = np.array([[0.2, 0.16], [0.3, 0.28], [0.34, 0.42]]) * (side, 1)  # (3, 2)
        yield Shape(fold, _mix(skin, dark, 0.55 * raised), 0.02, False)


def _eye(person: Person, units: Units, side: int) -> Iterator[Shape]:
    """One eye with its lid, brow, frown line, tear and glass."""
    skin, shade, dark = person.skin, person.skin * 0.86, person.skin * 0.45
    one = np.ones(len(units["open"]))  # (T,)
    x, y, size = side * person.eye_gap, person.eye_height, person.eye_size
    opening = np.clip(0.92 + 0.72 * units["eyes"], 0.06, 1.7)  # (T,)
    height = 0.5 * size * opening  # (T,)
    yield Shape(_oval(x, y - 0.02, size * 1.4, size * 1.05), shade * 0.82)
    yield Shape(_oval(x * one, y * one, size * one, height), np.array([240, 238, 235.0]))
    iris = size * 0.5
    yield Shape(_oval(x * one, y * one, iris * one, np.minimum(height, iris)), person.iris)
    pupil = _oval(x * one, y * one, 0.5 * iris * one, np.minimum(height, 0.5 * iris))  # (T, 28, 2)
    yield Shape(pupil, np.array([12, 10, 10.0]))
    lid = _oval(x * one, y * one, 1.08 * size * one, 1.1 * height)[:, 13:]  # (T, 15, 2) the upper half
    yield Shape(lid, dark * 0.5, 0.032, False)
    brow_height = y - 0.21 - 0.17 * units["brow"]  # (T,)
    frown, inner = units["frown"], units["inner_brow"]
    brow = [
        np.stack([side * (person.eye_gap - 0.17 - 0.05 * frown), brow_height + 0.16 * frown - 0.18 * inner], axis=-1),
        np.stack([x * one, brow_height - 0.05 + 0.03 * frown - 0.02 * inner], axis=-1),
        np.stack([side * (person.eye_gap + 0.2) * one, brow_height + 0.03 + 0.06 * inner - 0.03 * frown], axis=-1),
    ]
    yield Shape(np.stack(brow, axis=1), _mix(person.hair, np.zeros(3), 0.65), person.brow_thickness, False)
    crease = np.array([[0.05, -0.42], [0.06, -0.25]]) * (side, 1)  # (2, 2)
    yield Shape(crease, _mix(skin, dark, np.clip(frown, 0, 1)[:, None]), 0.03, False)
    tear = np.clip(units["tears"], 0, 1)  # (T,)
    wet = _mix(shade, np.array([190, 225, 250.0]), np.clip(3 * tear, 0, 1)[:, None])  # (T, 3)
    yield Shape(_oval((x + side * 0.03) * one, y + 0.09 + 0.12 * tear, 0.035 * one, 0.02 + 0.11 * tear), wet)
    if person.glasses:
        yield Shape(_oval(x, y, size * 1.5, size * 1.25), np.array([40, 38, 40.0]), 0.025)


def _nose(person: Person) -> Iterator[Shape]:
    shade, dark = person.skin * 0.86, person.skin * 0.45
    tip = 0.2 * person.nose
    bridge = np.array([[0.05, -0.12], [0.085 * person.nose, tip - 0.04], [0.0, tip]])  # (3, 2)
    yield Shape(bridge, shade * 0.88, 0.03, False)
    for side in (-1, 1):
        yield Shape(_oval(side * 0.06 * person.nose, tip, 0.03, 0.018), dark * 0.8)


def _mouth(person: Person, units: Units) -> Iterator[Shape]:
    """Two curves between the corners; the gap between them is the open mouth."""
    one = np.ones(len(units["open"]))  # (T,)
    height = person.mouth_height + 0.0 * one  # (T,)
    smile, press = np.clip(units["smile"], -1.3, 1.3), np.clip(units["press"], 0, 1)  # (T,)
    width = 1 + 0.38 * np.clip(smile, -0.3, 1) - 0.28 * press - 0.12 * np.clip(units["open"], 0, 1)  # (T,)
    bend = _BAR**2  # (13,)
    middle = height[:, None] + (0.08 - 0.22 * bend) * smile[:, None]  # (T, 13)
    gap = 0.02 * (1 - press)[:, None] + 0.34 * np.clip(units["open"], 0, 1.2)[:, None] * (1 - bend)  # (T, 13)
    x = (person.mouth_width * width)[:, None] * _BAR  # (T, 13)
    thickness = 0.045 * person.lip * (1 - 0.65 * press)[:, None] * (1 - 0.7 * bend)  # (T, 13)
    top, bottom = middle - 0.25 * gap, middle + 0.75 * gap  # (T, 13)
    yield Shape(_between(x, top - thickness, bottom + thickness), person.lips)
    yield Shape(_between(x * 0.94, top, bottom), np.array([52, 18, 22.0]))
    yield Shape(_between(x * 0.85, top, np.minimum(top + 0.07, bottom)), np.array([238, 236, 228.0]))
    parting = np.stack([x, middle], axis=-1)  # (T, 13, 2)
    color = np.array([70, 30, 32.0]) + 0.2 * person.skin
    yield Shape(parting, color, 0.02 if person.lip < 1 else 0.026, False)


def _oval(x: ArrayLike, y: ArrayLike, half_width: ArrayLike, half_height: ArrayLike) -> np.ndarray:
    """An ellipse as points: (28, 2) from numbers, (T, 28, 2) from arrays (T,)."""
    x, y, half_width, half_height = np.broadcast_arrays(x, y, half_width, half_height)
    return np.stack([x, y], -1)[..., None, :] + _CIRCLE * np.stack([half_width, half_height], -1)[..., None, :]


def _between(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline (T, 2P, 2) of the area between two curves over the same x (T, P)."""
    upper, lower = np.stack([x, top], axis=-1), np.stack([x, bottom], axis=-1)  # (T, P, 2)
    return np.concatenate([upper, lower[:, ::-1]], axis=1)


def _mix(a: np.ndarray, b: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """`share` of b and the rest of a."""
    return a * (1 - share) + b * share
