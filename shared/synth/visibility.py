"""How much of the truth each modality shows. Only this table determines how much fusion gains.

People do not show everything everywhere: laughter reveals amusement, the brow shows determination, and people put
admiration into words. In each clip, each modality shows each dimension with the probability below, independently of the
other modalities, and suppresses it otherwise. No modality shows a dimension that is absent from the truth; the
distraction is each modality's own variation (resting faces, speaker baselines, negated words). A noisy gain scales the
shown intensity. With these numbers, a perfect reader of one modality stays well below the ceiling of the labels, and a
perfect reader of all three comes close to it.
"""

import numpy as np

# Admiration, Amusement, Determination, Empathic Pain, Excitement, Joy
SHOWN = {
    "vision": (0.90, 0.92, 0.95, 0.95, 0.92, 0.95),  # the face is the main channel of mimicry
    "audio": (0.75, 0.90, 0.80, 0.88, 0.90, 0.80),  # a voice conveys arousal better than valence
    "text": (0.85, 0.70, 0.80, 0.80, 0.70, 0.75),  # people put judgments into words, but seldom arousal
}
"""Probability that a modality shows a dimension that is present."""

SUPPRESSED = 0.1
"""Factor on the intensity of a suppressed dimension: no one hides an emotion completely."""

GAIN_SPREAD = {"vision": 0.10, "audio": 0.15, "text": 0.15}
"""Standard deviation of the logarithm of the gain."""


def shown_intensities(intensities: np.ndarray, modality: str, rng: np.random.Generator) -> np.ndarray:
    """The intensities (6,) in [0, 1] shown by `modality`, given the true ones (6,)."""
    shown = rng.random(len(intensities)) < SHOWN[modality]  # (6,)
    gain = np.exp(rng.normal(0, GAIN_SPREAD[modality], len(intensities)))  # (6,)
    return np.clip(intensities * gain * np.where(shown, 1.0, SUPPRESSED), 0, 1)  # (6,)
