"""A voice by source and filter (Klatt 1980): a glottal source through formant resonators, moved by the intensities.

Every speaker has a baseline of their own in pitch, level, rate, breath and timbre; an emotion moves the voice *away
from that baseline along the course of the clip*. So what a dimension does is heard in the change, not in the mean.
"""

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
"""What a full intensity of each dimension adds to the speaker's baseline at the apex."""

VOWELS = np.array([[730, 1090, 2440], [300, 2290, 3010], [320, 870, 2240], [530, 1840, 2480]], float)
"""Formants in Hz of a man's "ah", "ee", "oo", "eh" (Peterson and Barney 1952)."""


@dataclass(frozen=True)
class Speaker:
    """The voice of a subject."""

    pitch: float
    """Hz."""
    tract: float
    """Factor on the formants: small heads have high ones."""
    level: float
    """dB full scale (RMS while speaking)."""
    rate: float
    """Syllables a second."""
    breath: float
    melody: float
    """Semitones of everyday intonation."""
    brightness: float
    room: float
    """Level of the background noise below the voice, dB."""
    expressivity: float


def speaker(rng: np.random.Generator) -> Speaker:
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


def speak(who: Speaker, heard: np.ndarray, course, duration: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A recording: heard (6,) intensities, course: times (S,) -> share of the apex (S,) -> float32 (S,) in [-1, 1].

    `course` is a callable; rate in Hz. The voice is computed at 16 kHz and below, as that is where it lives.
    """
    inner = min(rate, 16000)
    count = round(duration * inner)
    times = np.arange(count) / inner  # (S,)
    slow = np.arange(0, duration + 0.01, 0.01)  # (R,) the controls change slowly
    stage = course(slow)[:, None] * (heard @ EFFECT) * who.expressivity  # (R, 8)
    c = dict(zip(EFFECTS, stage.T, strict=True))

    syllables = np.cumsum(who.rate * (1 + c["rate"])) * 0.01 + rng.random()  # (R,) how many were spoken so far
    stress = rng.uniform(0.65, 1.0, int(syllables[-1]) + 2)
    pause = (np.sin(2 * np.pi * 0.55 * slow + rng.uniform(0, 6)) < -0.9).astype(float)  # (R,)
    loud = np.sin(np.pi * (syllables % 1)) ** 0.8 * stress[syllables.astype(int)] * (1 - pause)  # (R,)
    laugh = np.clip(c["laughter"], 0, 1)  # (R,)
    burst = np.clip(np.sin(2 * np.pi * rng.uniform(4.6, 5.6) * slow), 0, 1) ** 0.7  # (R,) "ha" five times a second
    loud = loud * (1 - laugh) + burst * laugh  # (R,)
    quiver = np.sin(2 * np.pi * rng.uniform(6, 7.5) * slow + rng.uniform(0, 6)) * c["tremor"]  # (R,)
    loud = loud * (1 + 0.8 * np.clip(quiver, -1, 1)) * 10 ** (c["energy"] / 20)  # (R,)

    tune = who.melody * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * slow + rng.uniform(0, 6))  # (R,)
    tune += c["melody"] * np.sin(2 * np.pi * 2.2 * slow + rng.uniform(0, 6))  # (R,) sing-song
    tune += c["pitch"] + 0.9 * quiver + 4 * laugh * burst - 1.0 * slow / duration  # (R,)
    hertz = np.clip(who.pitch * 2 ** (tune / 12), 55, 700)  # (R,)

    cycles = np.cumsum(np.interp(times, slow, hertz)) / inner  # (S,)
    phase = cycles % 1  # (S,)
    shine = np.interp(times, slow, np.clip(who.brightness + c["brightness"], 0, 1.5))  # (S,)
    pulse = np.where(phase < 0.6, np.sin(np.pi * phase / 0.6) ** 2, 0) - 0.3  # (S,) Rosenberg's glottal flow, about
    edge = np.diff(pulse, prepend=pulse[:1]) * 3  # (S,)
    hiss = rng.standard_normal(count)  # (S,)
    air = np.interp(times, slow, np.clip(who.breath + c["breath"] + 0.5 * laugh, 0, 1.2))  # (S,)
    source = pulse * (1 - 0.5 * np.clip(air, 0, 1)) + edge * (0.3 + 1.5 * shine) + 0.4 * air * hiss  # (S,)

    which = rng.integers(0, len(VOWELS), len(stress))
    which_now = which[syllables.astype(int)]  # (R,)
    voice = np.zeros(count)
    for index in np.unique(which):
        share = np.convolve(which_now == index, np.ones(5) / 5, mode="same") * loud  # (R,)
        voice += _formants(source * np.interp(times, slow, share), VOWELS[index] * who.tract, inner)  # (S,)
    plain = 10 ** (-np.interp(times, slow, c["energy"]) / 20)  # (S,)
    rest = np.sqrt(np.mean((voice * plain) ** 2)) + 1e-9  # the level without the emotion
    voice = voice / rest + rng.standard_normal(count) * 10 ** (who.room / 20)  # (S,)
    voice = np.tanh(voice * 10 ** ((who.level + rng.normal(0, 2)) / 20))  # (S,)
    if inner != rate:
        import soxr

        voice = soxr.resample(voice, inner, rate)
    return voice.astype(np.float32)


def _formants(source: np.ndarray, formants: np.ndarray, rate: int) -> np.ndarray:
    """source (S,) through resonators in parallel, at the formants in Hz."""
    out = np.zeros_like(source)
    for frequency, bandwidth, gain in zip(formants, (90, 110, 160), (1.0, 0.6, 0.3), strict=True):
        radius = np.exp(-np.pi * bandwidth / rate)
        angle = 2 * np.pi * min(frequency, 0.45 * rate) / rate
        out += lfilter([gain * (1 - radius)], [1, -2 * radius * np.cos(angle), radius**2], source)
    return out
