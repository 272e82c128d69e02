"""A source-filter voice (Klatt 1980): a glottal source through formant resonators, controlled by intensities.

Each speaker has an individual baseline of pitch, level, rate, breath and timbre. An emotion moves the voice away from
this baseline and back within the clip, so a dimension is in the change over time, not in the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

# rows: Admiration, Amusement, Determination, Empathic Pain, Excitement, Joy
# columns: pitch (semitones), melody (semitones), energy (dB), rate (share), breath, tremor, laughter, brightness
EFFECTS = ("pitch", "melody", "energy", "rate", "breath", "tremor", "laughter", "brightness")
EFFECT = np.array(
    [
        [+4.0, 0.0, -4.0, -0.45, 1.2, 0.0, 0.0, -0.3],
        [+2.0, 0.0, +3.0, 0.00, 0.2, 0.0, 1.3, 0.0],
        [-6.0, 0.0, +9.0, -0.15, -0.3, 0.0, 0.0, 1.2],
        [-3.0, 0.0, -9.0, -0.30, 0.3, 1.3, 0.0, -0.5],
        [+9.0, 0.0, +9.0, +0.70, 0.0, 0.0, 0.0, 0.5],
        [+3.0, 6.0, +2.0, +0.10, 0.0, 0.0, 0.0, 0.5],
    ]
)
"""What the full intensity of a dimension adds to the speaker's baseline at the apex."""

VOWELS = np.array([[730, 1090, 2440], [300, 2290, 3010], [320, 870, 2240], [530, 1840, 2480]], float)
"""Formants in Hz of a male "ah", "ee", "oo", "eh" (Peterson and Barney 1952)."""


@dataclass(frozen=True)
class Speaker:
    """The voice of a subject."""

    pitch: float
    """Hz."""
    tract: float
    """Factor on the formants: a short vocal tract raises them."""
    level: float
    """RMS level while speaking, dB full scale."""
    rate: float
    """Syllables per second."""
    breath: float
    melody: float
    """Intonation in semitones."""
    brightness: float
    room: float
    """Level of the background noise relative to the voice, dB."""
    expressivity: float


def invent_speaker(rng: np.random.Generator) -> Speaker:
    """Invent a voice."""
    pitch = float(np.exp(rng.uniform(np.log(85), np.log(260))))
    return Speaker(
        pitch=pitch,
        tract=float(0.92 + 0.3 * (np.log(pitch / 85) / np.log(260 / 85)) + rng.normal(0, 0.04)),
        level=float(rng.uniform(-34, -22)),
        rate=float(rng.uniform(3.0, 5.2)),
        breath=float(rng.uniform(0.05, 0.35)),
        melody=float(rng.uniform(0.3, 1.3)),
        brightness=float(rng.uniform(0.0, 0.6)),
        room=float(rng.uniform(-45, -28)),
        expressivity=float(rng.uniform(0.8, 1.2)),
    )


def speak(
    speaker: Speaker,
    effects: Callable[[np.ndarray], np.ndarray],
    duration: float,
    rate: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """A recording of `duration` seconds at `rate` Hz: float32 (S,) in [-1, 1].

    effects: seconds (R,) -> what the expression adds to the speaker's baseline, (R, 8), columns EFFECTS. The voice is
    computed at no more than 16 kHz and then resampled.
    """
    inner_rate = min(rate, 16000)
    count = round(duration * inner_rate)
    times = np.arange(count) / inner_rate  # (S,)
    slow = np.arange(0, duration + 0.01, 0.01)  # (R,) times of the controls, which change slowly
    controls = effects(slow) * speaker.expressivity  # (R, 8)
    effect = dict(zip(EFFECTS, controls.T, strict=True))

    syllables = np.cumsum(speaker.rate * (1 + effect["rate"])) * 0.01 + rng.random()  # (R,) number spoken so far
    stress = rng.uniform(0.65, 1.0, int(syllables[-1]) + 2)
    loudness, tremor, laugh, burst = _loudness(effect, slow, syllables, stress, rng)
    pitch = _pitch(speaker, effect, slow, duration, tremor, laugh * burst, rng)  # (R,) Hz

    cycles = np.cumsum(np.interp(times, slow, pitch)) / inner_rate  # (S,)
    phase = cycles % 1  # (S,)
    brightness = np.interp(times, slow, np.clip(speaker.brightness + effect["brightness"], 0, 1.5))  # (S,)
    pulse = np.where(phase < 0.6, np.sin(np.pi * phase / 0.6) ** 2, 0) - 0.3  # (S,) about Rosenberg's glottal flow
    edge = np.diff(pulse, prepend=pulse[:1]) * 3  # (S,)
    noise = rng.standard_normal(count)  # (S,)
    breath = np.interp(times, slow, np.clip(speaker.breath + effect["breath"] + 0.5 * laugh, 0, 1.2))  # (S,)
    source = pulse * (1 - 0.5 * np.clip(breath, 0, 1)) + edge * (0.3 + 1.5 * brightness) + 0.4 * breath * noise  # (S,)

    vowels = rng.integers(0, len(VOWELS), len(stress))  # one per syllable
    vowel_now = vowels[syllables.astype(int)]  # (R,)
    voice = np.zeros(count)
    for index in np.unique(vowels):
        share = np.convolve(vowel_now == index, np.ones(5) / 5, mode="same") * loudness  # (R,)
        filtered = _formants(source * np.interp(times, slow, share), VOWELS[index] * speaker.tract, inner_rate)
        voice += filtered  # (S,)
    without_energy = 10 ** (-np.interp(times, slow, effect["energy"]) / 20)  # (S,)
    neutral_level = np.sqrt(np.mean((voice * without_energy) ** 2)) + 1e-9
    voice = voice / neutral_level + rng.standard_normal(count) * 10 ** (speaker.room / 20)  # (S,)
    voice = np.tanh(voice * 10 ** ((speaker.level + rng.normal(0, 2)) / 20))  # (S,)
    if inner_rate != rate:
        import soxr

        voice = soxr.resample(voice, inner_rate, rate)
    return voice.astype(np.float32)


def _loudness(
    effect: dict[str, np.ndarray],
    slow: np.ndarray,
    syllables: np.ndarray,
    stress: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Loudness, tremor, share of laughter and bursts of laughter at the times `slow`: (R,) each."""
    pause = (np.sin(2 * np.pi * 0.55 * slow + rng.uniform(0, 6)) < -0.9).astype(float)  # (R,)
    loudness = np.sin(np.pi * (syllables % 1)) ** 0.8 * stress[syllables.astype(int)] * (1 - pause)  # (R,)
    laugh = np.clip(effect["laughter"], 0, 1)  # (R,)
    burst = np.clip(np.sin(2 * np.pi * rng.uniform(4.6, 5.6) * slow), 0, 1) ** 0.7  # (R,) "ha" five times a second
    loudness = loudness * (1 - laugh) + burst * laugh  # (R,)
    tremor = np.sin(2 * np.pi * rng.uniform(6, 7.5) * slow + rng.uniform(0, 6)) * effect["tremor"]  # (R,)
    loudness = loudness * (1 + 0.8 * np.clip(tremor, -1, 1)) * 10 ** (effect["energy"] / 20)  # (R,)
    return loudness, tremor, laugh, burst


def _pitch(
    speaker: Speaker,
    effect: dict[str, np.ndarray],
    slow: np.ndarray,
    duration: float,
    tremor: np.ndarray,
    laughter: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The fundamental frequency in Hz at the times `slow`: (R,)."""
    semitones = speaker.melody * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * slow + rng.uniform(0, 6))  # (R,)
    semitones += effect["melody"] * np.sin(2 * np.pi * 2.2 * slow + rng.uniform(0, 6))  # (R,) sing-song
    semitones += effect["pitch"] + 0.9 * tremor + 4 * laughter - 1.0 * slow / duration  # (R,)
    return np.clip(speaker.pitch * 2 ** (semitones / 12), 55, 700)  # (R,)


def _formants(source: np.ndarray, formants: np.ndarray, rate: int) -> np.ndarray:
    """`source` (S,) through parallel resonators at the formants, in Hz: (S,)."""
    out = np.zeros_like(source)
    for frequency, bandwidth, gain in zip(formants, (90, 110, 160), (1.0, 0.6, 0.3), strict=True):
        radius = np.exp(-np.pi * bandwidth / rate)
        angle = 2 * np.pi * min(frequency, 0.45 * rate) / rate
        out += lfilter([gain * (1 - radius)], [1, -2 * radius * np.cos(angle), radius**2], source)
    return out
