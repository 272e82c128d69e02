"""Invented people, and how their features move with the intensities of an expression.

Ekman's action units (Facial Action Coding System) are shared among the dimensions: no single unit identifies a
dimension.
"""

from dataclasses import dataclass

import numpy as np

UNITS = ("smile", "open", "brow", "inner_brow", "frown", "eyes", "cheeks", "press", "tears", "tilt", "nod", "shake")
"""The moving features. Each is about 0 at rest and 1 (or -1) at its strongest."""

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
"""How far the full intensity of a dimension moves each unit."""


@dataclass(frozen=True)
class Person:
    """The appearance of a subject, the same in all of its clips. Colors are RGB float (3,)."""

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
    """Resting value of each unit (12,): some neutral faces look stern or amused."""
    expressivity: float


def invent_person(rng: np.random.Generator) -> Person:
    """Invent the appearance of a subject."""
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


def moved_units(intensities: np.ndarray, person: Person) -> np.ndarray:
    """How far these intensities (..., 6) move the units of a face: (..., 12)."""
    return np.tanh(1.7 * (intensities @ ACTION) * person.expressivity) / np.tanh(1.7)  # (..., 12)


def expression_units(moved: np.ndarray, times: np.ndarray, person: Person, rng: np.random.Generator) -> np.ndarray:
    """The units (T, 12) of a clip: the resting face, the expression, blinks, speech and small random movements.

    moved (T, 12): what the expression adds to the resting face at times (T,) seconds.
    """
    units = person.neutral + moved  # (T, 12)
    phase, speed = rng.uniform(0, 2 * np.pi, len(UNITS)), rng.uniform(0.5, 1.5, len(UNITS))
    units += 0.05 * np.sin(2 * np.pi * speed * times[:, None] + phase)  # (T, 12)
    speech = np.abs(np.sin(np.pi * rng.uniform(3, 5) * times + phase[0]))  # (T,)
    units[:, UNITS.index("open")] += 0.12 * speech * (np.sin(2 * np.pi * 0.6 * times + phase[1]) > -0.4)
    for blink in rng.uniform(0, times[-1] + 1e-6, rng.poisson(0.25 * (times[-1] + 0.5))):
        units[:, UNITS.index("eyes")] -= 1.1 * np.exp(-(((times - blink) / 0.06) ** 2))
    return units
