"""What each modality lets through of the truth. The one table that decides how much fusing pays.

People do not show everything everywhere: amusement is heard in laughter, determination is seen in the brow, admiration
is put into words. So in each clip each dimension is *shown* in a modality with the probability below, independently of
the other modalities, and is otherwise held back there. A dimension absent from the truth is never shown; what misleads
instead is each modality's own clutter (resting faces, speaker baselines, negated words). What is shown is
scaled by a noisy gain. With these numbers a perfect reader of one modality stays well below the ceiling of the labels,
and a perfect reader of all three comes close to it.
"""

import numpy as np

# Admiration, Amusement, Determination, Empathic Pain, Excitement, Joy
SHOWN = {
    "vision": (0.90, 0.92, 0.95, 0.95, 0.92, 0.95),  # the face is the main channel of mimicry
    "audio": (0.75, 0.90, 0.80, 0.88, 0.90, 0.80),  # arousal is heard better than valence
    "text": (0.85, 0.70, 0.80, 0.80, 0.70, 0.75),  # judgements are put into words, arousal seldom
}
"""Probability that a present dimension is shown in a modality."""

HELD_BACK = 0.1
"""What remains of a dimension that is held back: nobody has a perfect mask."""

GAIN_SPREAD = {"vision": 0.10, "audio": 0.15, "text": 0.15}
"""Standard deviation of the logarithm of the gain on what is shown."""


def show(truth: np.ndarray, modality: str, rng: np.random.Generator) -> np.ndarray:
    """The intensities (6,) in [0, 1] that `modality` shows of `truth` (6,)."""
    shown = rng.random(len(truth)) < SHOWN[modality]  # (6,)
    gain = np.exp(rng.normal(0, GAIN_SPREAD[modality], len(truth)))  # (6,)
    return np.clip(truth * gain * np.where(shown, 1.0, HELD_BACK), 0, 1)
