"""When expressions come and go in a corpus that encodes intensities only in order and timing (`emit synth --dynamics`).

Each clip shows the same expressions, one after the other, for the same time, at every level between rest and their
strongest, for any intensities. Only their timing depends on an intensity:

    dimension       shown by        what its intensity determines
    Admiration      face            onset: how soon an expression that rises and falls is at its strongest
    Determination   face            rhythm: the pause between three equal frowns
    Empathic Pain   face            order: how much of a smile comes before the sadness that interrupts it
    Joy             face and voice  lag: which of two equal pulses comes first, and by how much
    Amusement       voice           rhythm: the pause between three equal bursts of laughter
    Excitement      voice           onset

Therefore the frames of a face, in any order, say nothing about an intensity, nor do sums over their changes: every
level is crossed equally often. Times, strengths and the sequence of the acts vary from clip to clip, by chance.
"""

from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import EMI

ADMIRATION, AMUSEMENT, DETERMINATION, EMPATHIC_PAIN, EXCITEMENT, JOY = range(len(EMI))

CARRIED = {
    "vision": (ADMIRATION, DETERMINATION, EMPATHIC_PAIN, JOY),
    "audio": (AMUSEMENT, EXCITEMENT, JOY),
    "text": (),
}
"""Dimensions that each modality helps to show."""

DURATION = (6.1, 6.6)
"""Shortest and longest clip, seconds."""
STRENGTH = (0.75, 1.0)
"""Weakest and strongest apex of an expression; independent of intensities."""
RAMP = 0.08
"""Seconds in which a pulse rises, and falls. Pulses, and the pauses between them, last long enough for one of eight
frames per second to see them at their strongest and at rest."""

ONSET = {"vision": 1.2, "audio": 1.4}
"""Seconds from rest over the apex to rest."""
APEX = (0.9, 0.1)
"""Share of these seconds before the apex, at intensity 0 and 1: strong is sudden."""
PULSE = 0.3
"""Seconds of each of the three pulses of a rhythm."""
PAUSE = {"vision": (0.55, 0.14), "audio": (0.65, 0.14)}
"""Seconds between two pulses, at intensity 0 and 1: strong is fast."""
SMILE, SADNESS = 1.2, 0.4
"""Seconds of the smile and of the sadness that interrupts it."""
BEFORE = (0.25, 0.75)
"""Share of the smile before the sadness, at intensity 0 and 1."""
LAG_PULSE = 0.4
"""Seconds of the face's pulse and of the voice's."""
LAG = (-0.6, 0.6)
"""Seconds that the face leads the voice, at intensity 0 and 1."""
LAG_SLOT = LAG_PULSE + max(LAG)


@dataclass(frozen=True)
class Act:
    """An expression that comes and goes: straight lines between knots, rest before and after them."""

    expression: int
    """The dimension shown (a row of face.ACTION or voice.EFFECT)."""
    times: tuple[float, ...]
    """Seconds of the knots."""
    levels: tuple[float, ...]
    """Share of the full expression at the knots."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """The level at `times` (T,) seconds: (T,)."""
        return np.interp(times, self.times, self.levels, left=0.0, right=0.0)


@dataclass(frozen=True)
class Timing:
    """The acts of a clip."""

    duration: float
    acts: dict[str, tuple[Act, ...]]
    """By modality, "vision" and "audio". Acts of one modality do not overlap, except that a smile stops for sadness."""
    cues: tuple[float, ...]
    """What each intensity determined, (6,): seconds to the apex (onset), of a pause (rhythm), of the smile before the
    sadness (order), of the face's lead (lag)."""

    def levels(self, modality: str, times: np.ndarray) -> np.ndarray:
        """The level of each expression at `times` (T,) seconds: (T, 6)."""
        levels = np.zeros((len(times), len(EMI)))
        for act in self.acts[modality]:
            levels[:, act.expression] += act.at(times)  # acts of an expression never overlap
        return levels  # (T, 6)


def draw_timing(intensities: np.ndarray, rng: np.random.Generator) -> Timing:
    """The acts of a clip with these intensities (6,). All random numbers are independent of them."""
    duration = round(float(rng.uniform(*DURATION)), 2)
    strengths = rng.uniform(*STRENGTH, 8)  # one for each expression of a modality
    lag_first, margins = bool(rng.random() < 0.5), rng.uniform(0.05, 0.15, 2)
    lag_start = float(margins[0]) if lag_first else duration - LAG_SLOT - float(margins[1])
    cues = _cues(intensities)
    lag = cues[JOY]
    middle = lag_start + LAG_SLOT / 2 - LAG_PULSE / 2
    acts = {
        "vision": [_pulses(EXCITEMENT, [middle - lag / 2], LAG_PULSE, strengths[0])],
        "audio": [_pulses(DETERMINATION, [middle + lag / 2], LAG_PULSE, strengths[1])],
    }
    slots = {
        "vision": {ADMIRATION: ONSET["vision"], DETERMINATION: _span("vision"), EMPATHIC_PAIN: SMILE + SADNESS},
        "audio": {AMUSEMENT: _span("audio"), EXCITEMENT: ONSET["audio"]},
    }
    for modality, lengths in slots.items():
        free = duration - LAG_SLOT - sum(margins) - sum(lengths.values())
        begin = lag_start + LAG_SLOT if lag_first else float(margins[0])
        rests = np.diff(np.sort([0.0, *rng.uniform(0, free, len(lengths))]))  # (n,) before each act
        for dimension, rest in zip(rng.permutation(list(lengths)).tolist(), rests.tolist(), strict=True):
            begin += rest
            acts[modality] += _acts(dimension, modality, begin, cues[dimension], strengths[2:], rng)
            begin += lengths[dimension]
    return Timing(duration, {name: tuple(of_modality) for name, of_modality in acts.items()}, cues)


def _cues(intensities: np.ndarray) -> tuple[float, ...]:
    """What each intensity of (6,) determines, in seconds."""
    ranges = {
        ADMIRATION: [ONSET["vision"] * share for share in APEX],
        AMUSEMENT: PAUSE["audio"],
        DETERMINATION: PAUSE["vision"],
        EMPATHIC_PAIN: [SMILE * share for share in BEFORE],
        EXCITEMENT: [ONSET["audio"] * share for share in APEX],
        JOY: LAG,
    }
    return tuple(float(np.interp(intensities[k], (0, 1), ranges[k])) for k in range(len(EMI)))


def _span(modality: str) -> float:
    """Seconds of the longest rhythm."""
    return 3 * PULSE + 2 * max(PAUSE[modality])


def _acts(
    dimension: int, modality: str, begin: float, cue: float, strengths: np.ndarray, rng: np.random.Generator
) -> list[Act]:
    """The acts that show one dimension, from `begin` on."""
    strength = float(strengths[dimension])
    if dimension in (ADMIRATION, EXCITEMENT):
        times = (begin, begin + cue, begin + ONSET[modality])
        return [Act(dimension, times, (0.0, strength, 0.0))]
    if dimension == EMPATHIC_PAIN:
        sad, resumes = begin + cue, begin + cue + SADNESS
        smile = [_pulse(begin, cue), _pulse(resumes, SMILE - cue)]
        return [_joined(JOY, smile, strength), _joined(EMPATHIC_PAIN, [_pulse(sad, SADNESS)], strength)]
    spare = _span(modality) - 3 * PULSE - 2 * cue
    first = begin + spare * float(rng.random())  # the position of a fast rhythm in its slot is random
    return [_pulses(dimension, [first + i * (PULSE + cue) for i in range(3)], PULSE, strength)]


def _pulses(expression: int, starts: list[float], length: float, strength: float) -> Act:
    return _joined(expression, [_pulse(start, length) for start in starts], strength)


def _pulse(start: float, length: float) -> tuple[float, float, float, float]:
    """The knots of a pulse: rest, full, full, rest."""
    return start, start + RAMP, start + length - RAMP, start + length


def _joined(expression: int, pulses: list[tuple[float, float, float, float]], strength: float) -> Act:
    times = tuple(float(time) for pulse in pulses for time in pulse)
    return Act(expression, times, (0.0, float(strength), float(strength), 0.0) * len(pulses))
