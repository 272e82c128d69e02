"""The truth behind each clip, before anything is drawn: people, seed videos, intensities, labels, splits, damage.

Every function is pure: a clip follows from (config, index) alone, so any process can make any clip.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from shared.dataset.clip import EMI
from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE
from shared.synth.config import SynthConfig
from shared.synth.visibility import show
from shared.training.sampling import derive_seed

CLIPS_PER_SEED = 4
CLIPS_PER_SUBJECT = 6

LABEL_RATES = (0.447, 0.364, 0.325, 0.101, 0.382, 0.325)
"""Share of clips whose label is above zero: those of Hume-Vidmimic2's training split."""

PRESENT = (0.441, 0.357, 0.317, 0.089, 0.377, 0.317)
"""Share of clips in which a dimension is present in truth, found by bisection so that the labels meet LABEL_RATES: weak
intensities find no rater, and a few raters see what is not there."""

SEED_WEIGHT = 0.6
"""Share of the variance of the propensities that the seed video decides; the rest is the person's own answer to it."""

_CORRELATION = np.array(
    [  # which emotions come together; the propensities are a Gaussian copula with this matrix
        [1.0, 0.05, 0.15, 0.10, 0.20, 0.20],
        [0.05, 1.0, -0.15, -0.25, 0.20, 0.35],
        [0.15, -0.15, 1.0, 0.05, 0.15, -0.10],
        [0.10, -0.25, 0.05, 1.0, -0.20, -0.25],
        [0.20, 0.20, 0.15, -0.20, 1.0, 0.30],
        [0.20, 0.35, -0.10, -0.25, 0.30, 1.0],
    ]
)
_ROOT = np.linalg.cholesky(_CORRELATION)
_THRESHOLDS = np.array([NormalDist().inv_cdf(1 - rate) for rate in PRESENT])

FAINTEST = 0.12
"""The weakest intensity a present dimension has."""
RISE = 1.0
"""Scale of the exponential by which a propensity above its threshold becomes an intensity: many weak, few strong."""

RATER_SPREAD = 0.35
"""Standard deviation of the logarithm of how readily the raters of one clip name one dimension: they share what is
ambiguous in it. With RATERS it sets the ceiling."""
RATERS = (10, 24)
"""Fewest and most raters of a clip."""
FALSE_VOTE = 0.001
"""Probability that a rater names a dimension that is absent."""

VISION_KINDS = VISION_DAMAGE
AUDIO_KINDS = (*AUDIO_DAMAGE, "no_track")
TEXT_KINDS = ("missing",)


@dataclass(frozen=True)
class Course:
    """How an expression comes and goes. All times in seconds from the start of the clip."""

    duration: float
    onset: float
    apex: float
    offset: float
    rest: float
    """Share of the apex that is left at the end."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """Share of the apex, in [0, 1], at `times` (T,): flat, a smooth rise, a plateau, a smooth fall."""
        rise = _smoothstep((times - self.onset) / (self.apex - self.onset))  # (T,)
        fall = _smoothstep((times - self.offset) / (self.duration - self.offset))  # (T,)
        return rise * (1 - (1 - self.rest) * fall)


@dataclass(frozen=True)
class ClipTruth:
    """Everything decided about a clip. Intensities are float64 (6,) in [0, 1]."""

    index: int
    subject: int
    seed_video: int
    split: str
    intensities: np.ndarray
    labels: np.ndarray
    raters: int
    seen: np.ndarray
    heard: np.ndarray
    said: np.ndarray
    repeats_line: bool
    """Whether the words are the seed video's line, so `said` is what that line says."""
    course: Course
    damage: dict[str, str]
    """Modality -> kind of damage, "" for none."""

    @property
    def id(self) -> str:
        return f"{self.index:05d}"


def clip_truth(config: SynthConfig, index: int) -> ClipTruth:
    """Decide clip `index`."""
    rng = np.random.default_rng(derive_seed("synth", config.seed, "clip", index))
    subjects = subject_count(config.clips)
    subject, seed_video = index % subjects, index // CLIPS_PER_SEED
    base = seed_propensities(config.seed, seed_video)  # (6,)
    own = _ROOT @ rng.standard_normal(len(EMI))  # (6,)
    intensities = to_intensities(np.sqrt(SEED_WEIGHT) * base + np.sqrt(1 - SEED_WEIGHT) * own)  # (6,)
    labels, raters = rate(intensities, rng)
    repeats_line = bool(rng.random() < 0.2)
    said = seed_said(config.seed, seed_video) if repeats_line else show(intensities, "text", rng)  # (6,)
    return ClipTruth(
        index=index,
        subject=subject,
        seed_video=seed_video,
        split=subject_splits(config.seed, subjects)[subject],
        intensities=intensities,
        labels=labels,
        raters=raters,
        seen=show(intensities, "vision", rng),
        heard=show(intensities, "audio", rng),
        said=said,
        repeats_line=repeats_line,
        course=_course(rng),
        damage=_damage(config.damage, rng),
    )


def subject_count(clips: int) -> int:
    """One person for about six clips, and never fewer than the three splits need."""
    return max(3, round(clips / CLIPS_PER_SUBJECT))


@lru_cache
def subject_splits(seed: int, subjects: int) -> tuple[str, ...]:
    """The split of each subject: about 70 / 15 / 15 %, at least one subject each."""
    held_out = max(1, round(0.15 * subjects))
    names = ["valid"] * held_out + ["test"] * held_out + ["train"] * (subjects - 2 * held_out)
    order = np.random.default_rng(derive_seed("synth", seed, "splits")).permutation(subjects)
    return tuple(names[i] for i in np.argsort(order))


@lru_cache(maxsize=4096)
def seed_propensities(seed: int, seed_video: int) -> np.ndarray:
    """How strongly a seed video calls for each dimension: a standard normal vector (6,), correlated."""
    rng = np.random.default_rng(derive_seed("synth", seed, "seed video", seed_video))
    return _ROOT @ rng.standard_normal(len(EMI))


@lru_cache(maxsize=4096)
def seed_said(seed: int, seed_video: int) -> np.ndarray:
    """What the seed video's own line says (6,)."""
    rng = np.random.default_rng(derive_seed("synth", seed, "seed line", seed_video))
    return show(to_intensities(seed_propensities(seed, seed_video)), "text", rng)


def to_intensities(propensities: np.ndarray) -> np.ndarray:
    """Intensities in [0, 1] from standard normal propensities (..., 6): zero up to a threshold, then saturating."""
    above = propensities - _THRESHOLDS
    return np.where(above > 0, FAINTEST + (1 - FAINTEST) * (1 - np.exp(-np.maximum(above, 0) / RISE)), 0.0)


def rate(
    intensities: np.ndarray, rng: np.random.Generator, fewest_most: tuple[int, int] = RATERS
) -> tuple[np.ndarray, int]:
    """Labels (6,) = the share of raters who name each dimension, and how many raters there were."""
    raters = int(rng.integers(fewest_most[0], fewest_most[1] + 1))
    ready = np.exp(rng.normal(0, RATER_SPREAD, len(intensities)))  # (6,)
    chance = np.clip(intensities * ready, FALSE_VOTE, 0.98)  # (6,)
    return rng.binomial(raters, chance) / raters, raters


def _course(rng: np.random.Generator) -> Course:
    duration = round(float(rng.uniform(1.5, 3.0)), 2)
    onset, apex, offset = rng.uniform((0.06, 0.28, 0.62), (0.2, 0.45, 0.8)) * duration
    return Course(duration, float(onset), float(apex), float(offset), float(rng.uniform(0.0, 0.35)))


def _damage(share: float, rng: np.random.Generator) -> dict[str, str]:
    damage = {"vision": "", "audio": "", "text": ""}
    kinds = {"vision": VISION_KINDS, "audio": AUDIO_KINDS, "text": TEXT_KINDS}
    hit, modality = rng.random() < share, str(rng.choice(list(kinds)))
    kind = str(rng.choice(kinds[modality]))
    if hit:
        damage[modality] = kind
    return damage


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
