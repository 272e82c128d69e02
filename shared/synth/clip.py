"""One clip from its number: truth, picture, sound, words, damage, file. What a worker process runs."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shared.media.damage import damage_frames, damage_waveform
from shared.synth import face, media, voice, words
from shared.synth.baseline import statistics
from shared.synth.config import SynthConfig
from shared.synth.truth import ClipTruth, clip_truth, seed_said
from shared.training.sampling import derive_seed

SIZES = ((240, 180), (256, 192), (192, 256), (224, 224))
FRAME_RATES = (12.0, 15.0, 20.0, 25.0)
AUDIO_RATES = (16000, 24000, 48000)
"""Rates that both AAC and Opus take."""
VARIABLE = 0.2
"""Share of clips whose frames are not evenly spaced, as phones record them."""
WEBM = 0.35
"""Share of WebM files."""
STEREO = 0.15


@dataclass(frozen=True)
class Format:
    """How a clip is filmed and stored."""

    suffix: str
    size: tuple[int, int]
    frame_rate: float
    variable: bool
    audio_rate: int
    stereo: bool


def clip_format(config: SynthConfig, index: int) -> Format:
    """Decide the file format of clip `index`."""
    rng = np.random.default_rng(derive_seed("synth", config.seed, "format", index))
    return Format(
        suffix=".webm" if rng.random() < WEBM else ".mp4",
        size=SIZES[rng.integers(len(SIZES))],
        frame_rate=FRAME_RATES[rng.integers(len(FRAME_RATES))],
        variable=bool(rng.random() < VARIABLE),
        audio_rate=AUDIO_RATES[rng.integers(len(AUDIO_RATES))],
        stereo=bool(rng.random() < STEREO),
    )


def frame_times(how: Format, duration: float, rng: np.random.Generator) -> np.ndarray:
    """Seconds (T,) at which frames are taken: even, or with gaps and jitter when the rate is variable."""
    times = np.arange(int(duration * how.frame_rate)) / how.frame_rate  # (T,)
    if how.variable:
        slow = np.sin(2 * np.pi * 0.4 * times + rng.uniform(0, 6)) > 0.2  # (T,) a busy phone drops frames
        keep = ~slow | (np.arange(len(times)) % 3 == 0)
        keep[0] = True
        times = times[keep]
        times[1:] += rng.uniform(-0.2, 0.2, len(times) - 1) / how.frame_rate
    return np.round(times, 3)


def draw(config: SynthConfig, truth: ClipTruth, how: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The undamaged picture: frames RGB uint8 (T, H, W, 3), seconds (T,), face units (T, 12)."""
    who = face.person(np.random.default_rng(derive_seed("synth", config.seed, "face", truth.subject)))
    rng = np.random.default_rng(derive_seed("synth", config.seed, "picture", truth.index))
    times = frame_times(how, truth.course.duration, rng)
    units = face.units_over_time(truth.seen, truth.course.at(times), times, who, rng)
    return face.render(who, units, times, how.size, rng), times, units


def record(config: SynthConfig, truth: ClipTruth, rate: int) -> np.ndarray:
    """The undamaged sound: float32 (S,) in [-1, 1] at `rate` Hz."""
    who = voice.speaker(np.random.default_rng(derive_seed("synth", config.seed, "voice", truth.subject)))
    rng = np.random.default_rng(derive_seed("synth", config.seed, "sound", truth.index))
    return voice.speak(who, truth.heard, truth.course.at, truth.course.duration, rate, rng)


def transcribe(config: SynthConfig, truth: ClipTruth) -> str:
    """The undamaged words. Clips that repeat the line of their seed video share it to the letter."""
    seed_rng = np.random.default_rng(derive_seed("synth", config.seed, "line", truth.seed_video))
    about = words.topic(seed_rng)
    if truth.repeats_line:
        return words.line(seed_said(config.seed, truth.seed_video), about, seed_rng)
    rng = np.random.default_rng(derive_seed("synth", config.seed, "words", truth.index))
    return words.line(truth.said, about, rng)


@dataclass
class Made:
    """A clip as it is filmed, damage and all. What is missing is None."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3)."""
    times: np.ndarray
    """Seconds (T,)."""
    channels: np.ndarray | None
    """float32 (S, channels) at the format's audio rate."""
    words: str | None

    def statistics(self, rate: int) -> np.ndarray:
        """What the baseline sees of picture and sound: float32 (336,)."""
        return statistics(self.frames, None if self.channels is None else self.channels.mean(axis=1), rate)


def film(config: SynthConfig, truth: ClipTruth, how: Format) -> Made:
    """Draw, record, transcribe and damage a clip."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(derive_seed("synth", config.seed, "damage", truth.index))
    frames, times, _ = draw(config, truth, how)
    waveform = record(config, truth, how.audio_rate)
    if truth.damage["vision"]:
        frames = damage_frames(frames, truth.damage["vision"], rng, float(rng.uniform(0.85, 1.0)))
    if truth.damage["audio"] not in ("", "no_track"):
        waveform = damage_waveform(waveform, how.audio_rate, truth.damage["audio"], rng, float(rng.uniform(0.85, 1.0)))
    balance = np.array([1.0, rng.uniform(0.6, 1.0)] if how.stereo else [1.0])
    mute = truth.damage["audio"] == "no_track"
    return Made(
        frames=frames,
        times=times,
        channels=None if mute else waveform[:, None] * balance.astype(np.float32),
        words=None if truth.damage["text"] else transcribe(config, truth),
    )


def make(config: SynthConfig, index: int, folder: Path, notes: Path) -> None:
    """Write `folder`/<id>.<suffix> and, unless its words are missing, <id>.txt.

    Last comes `notes`/<id>.npy, the plain statistics for the baseline: where it is, the clip is complete.
    """
    truth, how = clip_truth(config, index), clip_format(config, index)
    made = film(config, truth, how)
    if made.words is not None:
        (folder / f"{truth.id}.txt").write_text(made.words + "\n")
    partial = folder / f".{truth.id}{how.suffix}"
    media.write(partial, made.frames, made.times, how.frame_rate, made.channels, how.audio_rate)
    partial.replace(folder / f"{truth.id}{how.suffix}")
    note(notes, truth.id, made.statistics(how.audio_rate))


def note(notes: Path, name: str, values: np.ndarray) -> None:
    """Write `notes`/<name>.npy, whole or not at all: the clip is complete."""
    partial = notes / f".{name}.npy"
    np.save(partial, values)
    partial.replace(notes / f"{name}.npy")
