"""The truth of each clip, before anything is rendered: people, seed videos, intensities, labels, splits, damage.

Every function is pure: a clip depends only on (config, index), so any process can generate any clip.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from types import MappingProxyType

import numpy as np

from shared.dataset.clip import EMI
from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE
from shared.synth.config import SynthConfig
from shared.synth.timing import CARRIED, Timing, draw_timing
from shared.synth.visibility import shown_intensities
from shared.training.sampling import derive_seed

CLIPS_PER_SEED = 4
CLIPS_PER_SUBJECT = 6

LABEL_RATES = (0.447, 0.364, 0.325, 0.101, 0.382, 0.325)
"""Share of clips with a label above zero: the rates of Hume-Vidmimic2's training split."""

PRESENT = (0.441, 0.357, 0.317, 0.089, 0.377, 0.317)
"""Share of clips in which a dimension is present. Bisection chose these values so that the labels meet LABEL_RATES:
raters miss weak intensities, and a few of them name dimensions that are absent."""

SEED_WEIGHT = 0.6
"""Share of the propensities' variance due to the seed video; the rest is due to the person."""

_CORRELATION = np.array(
    [  # which emotions occur together; the propensities are a Gaussian copula with this matrix
        [1.0, 0.05, 0.15, 0.10, 0.20, 0.20],
        [0.05, 1.0, -0.15, -0.25, 0.20, 0.35],
        [0.15, -0.15, 1.0, 0.05, 0.15, -0.10],
        [0.10, -0.25, 0.05, 1.0, -0.20, -0.25],
        [0.20, 0.20, 0.15, -0.20, 1.0, 0.30],
        [0.20, 0.35, -0.10, -0.25, 0.30, 1.0],
    ]
)
_CHOLESKY = np.linalg.cholesky(_CORRELATION)
_THRESHOLDS = np.array([NormalDist().inv_cdf(1 - rate) for rate in PRESENT])

MIN_INTENSITY = 0.12
"""Lowest intensity of a present dimension."""
INTENSITY_SCALE = 1.0
"""Scale of the exponential that maps a propensity above its threshold to an intensity: many weak, few strong."""

RATER_SPREAD = 0.35
"""Standard deviation of the logarithm of how readily the raters of one clip name one dimension: the ambiguity of a clip
affects all of its raters. RATER_SPREAD and RATERS set the ceiling."""
RATERS = (10, 24)
"""Smallest and largest number of raters of a clip."""
FALSE_VOTE = 0.001
"""Probability that a rater names an absent dimension."""
SURE_VOTE = 0.98
"""Highest probability that a rater names a dimension."""

DAMAGE_KINDS = {"vision": VISION_DAMAGE, "audio": (*AUDIO_DAMAGE, "no_track"), "text": ("missing",)}
"""{modality: kinds of damage}."""


SPAN = (0.4, 0.8)
"""Shortest and longest stretch of damage, seconds (`damage_spans`)."""


@dataclass(frozen=True)
class DamageSpan:
    """A stretch of a clip in which one modality is damaged."""

    modality: str
    start: float
    end: float
    """Seconds."""

    def holds(self, times: np.ndarray) -> np.ndarray:
        """Which of `times` (T,) seconds lie in it: bool (T,)."""
        return (times >= self.start) & (times < self.end)


@dataclass(frozen=True)
class Envelope:
    """The strength of an expression over time. Times are seconds from the start of the clip."""

    duration: float
    onset: float
    apex: float
    offset: float
    residual: float
    """Share of the apex at the end of the clip."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """Share of the apex, in [0, 1], at `times` (T,): zero, a smooth rise, a plateau, a smooth fall."""
        rise = _smoothstep((times - self.onset) / (self.apex - self.onset))  # (T,)
        fall = _smoothstep((times - self.offset) / (self.duration - self.offset))  # (T,)
        return rise * (1 - (1 - self.residual) * fall)  # (T,)


@dataclass(frozen=True)
class ClipTruth:
    """All decisions about a clip. Intensities are float64 (6,) in [0, 1]."""

    index: int
    subject: int
    seed_video: int
    split: str
    intensities: np.ndarray
    labels: np.ndarray
    raters: int
    """Number of raters of the labels."""
    vision: np.ndarray
    """Intensities that the face shows."""
    audio: np.ndarray
    """Intensities that the voice shows."""
    text: np.ndarray
    """Intensities that the words express."""
    repeats_line: bool
    """Whether the transcript is the line of the seed video; `text` is then what this line expresses."""
    envelope: Envelope
    damage: dict[str, str]
    """{modality: kind of damage, "" for none}."""
    damage_spans: tuple[DamageSpan, ...] | None = None
    """With `damage_spans`, the damaged spans; None for damage over the whole clip."""
    timing: Timing | None = None
    """With `dynamics`, when expressions come and go. The envelope is then not used, and vision, audio and text contain
    the intensities with a timing that the modality helps to show."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.timing.duration if self.timing else self.envelope.duration

    @property
    def id(self) -> str:
        return f"{self.index:05d}"


def clip_truth(config: SynthConfig, index: int) -> ClipTruth:
    """The truth of clip `index`."""
    rng = np.random.default_rng(derive_seed("synth", config.seed, "clip", index))
    subjects = subject_count(config.clips)
    subject = index % subjects
    own_videos = unmet_videos(config.seed, config.clips, config.unmet_videos)
    seed_video = own_videos.get(index, index // CLIPS_PER_SEED)
    from_seed = seed_propensities(config.seed, seed_video)  # (6,)
    from_person = _CHOLESKY @ rng.standard_normal(len(EMI))  # (6,)
    propensities = np.sqrt(SEED_WEIGHT) * from_seed + np.sqrt(1 - SEED_WEIGHT) * from_person  # (6,)
    intensities = to_intensities(propensities)  # (6,)
    labels, raters = draw_labels(intensities, rng)
    repeats_line = bool(rng.random() < 0.2)
    if repeats_line:
        text = seed_line_intensities(config.seed, seed_video)  # (6,)
    else:
        text = shown_intensities(intensities, "text", rng)  # (6,)
    truth = ClipTruth(
        index=index,
        subject=subject,
        seed_video=seed_video,
        split="train" if config.labels == "withheld" else subject_splits(config.seed, subjects)[subject],
        intensities=intensities,
        labels=labels,
        raters=raters,
        vision=shown_intensities(intensities, "vision", rng),
        audio=shown_intensities(intensities, "audio", rng),
        text=text,
        repeats_line=repeats_line,
        envelope=_draw_envelope(rng),
        damage=_draw_damage(config.damage, rng),
    )
    if config.dynamics:
        truth = _with_timing(config, truth)
    return _with_spans(config, truth) if config.damage_spans else truth


def _with_timing(config: SynthConfig, truth: ClipTruth) -> ClipTruth:
    """The same clip with its intensities encoded only in the timing."""
    rng = np.random.default_rng(derive_seed("synth", config.seed, "timing", truth.index))
    vision, audio, text = (
        np.where(np.isin(np.arange(len(EMI)), CARRIED[modality]), truth.intensities, 0.0)  # (6,)
        for modality in ("vision", "audio", "text")
    )
    timing = draw_timing(truth.intensities, rng)
    return replace(truth, vision=vision, audio=audio, text=text, repeats_line=False, timing=timing)


def _with_spans(config: SynthConfig, truth: ClipTruth) -> ClipTruth:
    """The same clip with intermittent damage."""
    if not any(truth.damage.values()):
        return replace(truth, damage_spans=())
    rng = np.random.default_rng(derive_seed("synth", config.seed, "spans", truth.index))
    damage = {"vision": str(rng.choice(VISION_DAMAGE)), "audio": str(rng.choice(AUDIO_DAMAGE)), "text": ""}
    spans, time, turn = [], 0.0, int(rng.integers(2))
    while time < truth.duration:
        end = min(truth.duration, time + float(rng.uniform(*SPAN)))
        spans.append(DamageSpan(("vision", "audio")[turn], time, end))
        time, turn = end, 1 - turn
    return replace(truth, damage=damage, damage_spans=tuple(spans))


def subject_count(clips: int) -> int:
    """One subject for about six clips, and at least one for each split."""
    return max(3, round(clips / CLIPS_PER_SUBJECT))


@lru_cache
def subject_splits(seed: int, subjects: int) -> tuple[str, ...]:
    """The split of each subject: about 70 / 15 / 15 %, at least one subject each."""
    held_out = max(1, round(0.15 * subjects))
    names = ["valid"] * held_out + ["test"] * held_out + ["train"] * (subjects - 2 * held_out)
    order = np.random.default_rng(derive_seed("synth", seed, "splits")).permutation(subjects)
    return tuple(names[i] for i in np.argsort(order))


@lru_cache
def unmet_videos(seed: int, clips: int, share: float) -> Mapping[int, int]:
    """{index: seed video} for `share` of the test clips, with seed videos that no other split has. The other clips stay
    unchanged by this share: these seed videos are numbered after theirs."""
    subjects = subject_count(clips)
    splits = subject_splits(seed, subjects)
    test = [index for index in range(clips) if splits[index % subjects] == "test"]
    order = np.random.default_rng(derive_seed("synth", seed, "unmet videos")).permutation(test)
    chosen = sorted(order[: round(share * len(test))].tolist())  # neighbors are of different subjects
    first = -(-clips // CLIPS_PER_SEED)
    return MappingProxyType({index: first + place // CLIPS_PER_SEED for place, index in enumerate(chosen)})


@lru_cache(maxsize=4096)
def seed_propensities(seed: int, seed_video: int) -> np.ndarray:
    """How strongly a seed video evokes each dimension: a correlated standard normal vector (6,)."""
    rng = np.random.default_rng(derive_seed("synth", seed, "seed video", seed_video))
    return _CHOLESKY @ rng.standard_normal(len(EMI))


@lru_cache(maxsize=4096)
def seed_line_intensities(seed: int, seed_video: int) -> np.ndarray:
    """The intensities (6,) that the line of a seed video expresses."""
    rng = np.random.default_rng(derive_seed("synth", seed, "seed line", seed_video))
    return shown_intensities(to_intensities(seed_propensities(seed, seed_video)), "text", rng)


def to_intensities(propensities: np.ndarray) -> np.ndarray:
    """Intensities in [0, 1] of standard normal propensities (..., 6): zero up to a threshold, then saturating."""
    above = propensities - _THRESHOLDS  # (..., 6)
    saturating = 1 - np.exp(-np.maximum(above, 0) / INTENSITY_SCALE)  # (..., 6)
    return np.where(above > 0, MIN_INTENSITY + (1 - MIN_INTENSITY) * saturating, 0.0)  # (..., 6)


def draw_labels(
    intensities: np.ndarray, rng: np.random.Generator, rater_range: tuple[int, int] = RATERS
) -> tuple[np.ndarray, int]:
    """Labels (6,), the share of raters who name each dimension, and the number of raters."""
    raters = int(rng.integers(rater_range[0], rater_range[1] + 1))
    readiness = np.exp(rng.normal(0, RATER_SPREAD, len(intensities)))  # (6,)
    probability = np.clip(intensities * readiness, FALSE_VOTE, SURE_VOTE)  # (6,)
    return rng.binomial(raters, probability) / raters, raters


def expected_labels(intensities: np.ndarray) -> np.ndarray:
    """E[label | intensity] (...) of intensities (...): no function of the intensities has a higher PCC with the labels.

    A label is the share of raters who name the dimension. Its expectation is the probability of `draw_labels`,
    X = intensity exp(N(0, s)) clipped to [a, b], s = RATER_SPREAD. With the partial expectation of the log-normal
    distribution (Johnson, Kotz and Balakrishnan 1994, Continuous Univariate Distributions 1, chapter 14):

        E = a P(X < a) + b P(X > b) + intensity exp(s^2 / 2) (F(z_b - s) - F(z_a - s)),  z_c = ln(c / intensity) / s

    with the normal distribution function F.
    """
    normal = np.vectorize(NormalDist().cdf, otypes=[np.float64])
    intensities = np.asarray(intensities, dtype=np.float64)
    positive = np.where(intensities > 0, intensities, 1.0)
    low, high = (np.log(end / positive) / RATER_SPREAD for end in (FALSE_VOTE, SURE_VOTE))
    inside = positive * np.exp(RATER_SPREAD**2 / 2) * (normal(high - RATER_SPREAD) - normal(low - RATER_SPREAD))
    expected = FALSE_VOTE * normal(low) + SURE_VOTE * normal(-high) + inside
    return np.where(intensities > 0, expected, FALSE_VOTE)


def _draw_envelope(rng: np.random.Generator) -> Envelope:
    duration = round(float(rng.uniform(1.5, 3.0)), 2)
    onset, apex, offset = rng.uniform((0.06, 0.28, 0.62), (0.2, 0.45, 0.8)) * duration
    return Envelope(duration, float(onset), float(apex), float(offset), float(rng.uniform(0.0, 0.35)))


def _draw_damage(share: float, rng: np.random.Generator) -> dict[str, str]:
    damage = dict.fromkeys(DAMAGE_KINDS, "")
    damaged, modality = rng.random() < share, str(rng.choice(list(DAMAGE_KINDS)))
    kind = str(rng.choice(DAMAGE_KINDS[modality]))
    if damaged:
        damage[modality] = kind
    return damage


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
