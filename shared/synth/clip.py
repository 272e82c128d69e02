"""One clip from its index: truth, frames, sound, words, damage, file. Worker processes run this module."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shared.dataset.clip import EMI
from shared.media.damage import damage_frames, damage_waveform
from shared.synth import media, voice, words
from shared.synth.config import SynthConfig
from shared.synth.face import expression_units, invent_person, moved_units
from shared.synth.render import render
from shared.synth.truth import ClipTruth, clip_truth, seed_line_intensities
from shared.training.sampling import derive_seed

SIZES = ((240, 180), (256, 192), (192, 256), (224, 224))
"""Width and height in pixels."""
FRAME_RATES = (12.0, 15.0, 20.0, 25.0)
AUDIO_RATES = (16000, 24000, 48000)
"""Rates that AAC and Opus both support."""
VARIABLE = 0.2
"""Share of clips with a variable frame rate, as recorded by phones."""
WEBM = 0.35
"""Share of WebM files."""
STEREO = 0.15
"""Share of clips with two channels."""


@dataclass(frozen=True)
class MediaFormat:
    """The format of a clip's file."""

    suffix: str
    size: tuple[int, int]
    """Width and height in pixels."""
    frame_rate: float
    variable: bool
    audio_rate: int
    stereo: bool


def media_format(config: SynthConfig, index: int) -> MediaFormat:
    """The file format of clip `index`."""
    rng = np.random.default_rng(derive_seed("synth", config.seed, "format", index))
    return MediaFormat(
        suffix=".webm" if rng.random() < WEBM else ".mp4",
        size=SIZES[rng.integers(len(SIZES))],
        frame_rate=FRAME_RATES[rng.integers(len(FRAME_RATES))],
        variable=bool(rng.random() < VARIABLE),
        audio_rate=AUDIO_RATES[rng.integers(len(AUDIO_RATES))],
        stereo=bool(rng.random() < STEREO),
    )


def frame_times(form: MediaFormat, duration: float, rng: np.random.Generator) -> np.ndarray:
    """Seconds (T,) of the frames: evenly spaced, or with gaps and jitter if the rate is variable."""
    times = np.arange(int(duration * form.frame_rate)) / form.frame_rate  # (T,)
    if form.variable:
        slow = np.sin(2 * np.pi * 0.4 * times + rng.uniform(0, 6)) > 0.2  # (T,) a busy phone drops frames
        kept = ~slow | (np.arange(len(times)) % 3 == 0)  # (T,)
        kept[0] = True
        times = times[kept]
        times[1:] += rng.uniform(-0.2, 0.2, len(times) - 1) / form.frame_rate
    return np.round(times, 3)


def clean_frames(config: SynthConfig, truth: ClipTruth, form: MediaFormat) -> tuple[np.ndarray, np.ndarray]:
    """The undamaged frames, RGB uint8 (T, H, W, 3), and their times in seconds (T,)."""
    person = invent_person(np.random.default_rng(derive_seed("synth", config.seed, "face", truth.subject)))
    rng = np.random.default_rng(derive_seed("synth", config.seed, "picture", truth.index))
    times = frame_times(form, truth.duration, rng)
    if truth.timing:
        moved = moved_units(truth.timing.levels("vision", times), person)  # (T, 12)
    else:
        moved = truth.envelope.at(times)[:, None] * moved_units(truth.vision, person)  # (T, 12)
    units = expression_units(moved, times, person, rng)
    return render(person, units, times, form.size, rng), times


def clean_waveform(config: SynthConfig, truth: ClipTruth, rate: int) -> np.ndarray:
    """The undamaged sound: float32 (S,) in [-1, 1] at `rate` Hz."""
    speaker = voice.invent_speaker(np.random.default_rng(derive_seed("synth", config.seed, "voice", truth.subject)))
    rng = np.random.default_rng(derive_seed("synth", config.seed, "sound", truth.index))

    def effects(times: np.ndarray) -> np.ndarray:
        if truth.timing:
            return truth.timing.levels("audio", times) @ voice.EFFECT  # (R, 8)
        return truth.envelope.at(times)[:, None] * (truth.audio @ voice.EFFECT)  # (R, 8)

    return voice.speak(speaker, effects, truth.duration, rate, rng)


def clean_transcript(config: SynthConfig, truth: ClipTruth) -> str:
    """The undamaged words. All clips that repeat the line of a seed video have the same words; with `dynamics`, words
    reveal neither the intensities nor the seed video."""
    if truth.timing:
        own_rng = np.random.default_rng(derive_seed("synth", config.seed, "words", truth.index))
        return words.write_line(np.zeros(len(EMI)), words.draw_topic(own_rng), own_rng)
    seed_rng = np.random.default_rng(derive_seed("synth", config.seed, "line", truth.seed_video))
    topic = words.draw_topic(seed_rng)
    if truth.repeats_line:
        return words.write_line(seed_line_intensities(config.seed, truth.seed_video), topic, seed_rng)
    rng = np.random.default_rng(derive_seed("synth", config.seed, "words", truth.index))
    return words.write_line(truth.text, topic, rng)


@dataclass
class SynthClip:
    """The content of a clip, with its damage. A missing modality is None."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3)."""
    times: np.ndarray
    """Seconds (T,)."""
    channels: np.ndarray | None
    """float32 (S, channels) at the audio rate of the format."""
    transcript: str | None


def make_clip(config: SynthConfig, truth: ClipTruth, form: MediaFormat) -> SynthClip:
    """Generate frames, sound and words of a clip, and damage them."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(derive_seed("synth", config.seed, "damage", truth.index))
    frames, times = clean_frames(config, truth, form)
    waveform = clean_waveform(config, truth, form.audio_rate)
    vision_damage, audio_damage = truth.damage["vision"], truth.damage["audio"]
    if vision_damage:
        for rows in _damaged(truth, "vision", times):
            frames[rows] = damage_frames(frames[rows], vision_damage, rng, float(rng.uniform(0.85, 1.0)))
    if audio_damage not in ("", "no_track"):
        for rows in _damaged(truth, "audio", np.arange(len(waveform)) / form.audio_rate):
            severity = float(rng.uniform(0.85, 1.0))
            waveform[rows] = damage_waveform(waveform[rows], form.audio_rate, audio_damage, rng, severity)
    gains = np.array([1.0, rng.uniform(0.6, 1.0)] if form.stereo else [1.0])  # (channels,)
    return SynthClip(
        frames=frames,
        times=times,
        channels=None if audio_damage == "no_track" else waveform[:, None] * gains.astype(np.float32),
        transcript=None if truth.damage["text"] else clean_transcript(config, truth),
    )


def _damaged(truth: ClipTruth, modality: str, times: np.ndarray) -> list[np.ndarray]:
    """The spans of `times` (T,) seconds with damage to a modality: bool (T,) each."""
    if truth.damage_spans is None:
        return [np.ones(len(times), bool)]
    return [span.holds(times) for span in truth.damage_spans if span.modality == modality]


def write_clip(config: SynthConfig, index: int, folder: Path, progress: Path) -> None:
    """Write `folder`/<id>.<suffix> and, unless the words are missing, `folder`/<id>.txt; at the end, mark it in
    `progress` (`mark_complete`)."""
    truth, form = clip_truth(config, index), media_format(config, index)
    clip = make_clip(config, truth, form)
    if clip.transcript is not None:
        (folder / f"{truth.id}.txt").write_text(clip.transcript + "\n")
    partial = folder / f".{truth.id}{form.suffix}"
    media.write_video(partial, clip.frames, clip.times, form.frame_rate, clip.channels, form.audio_rate)
    partial.replace(folder / f"{truth.id}{form.suffix}")
    mark_complete(progress, truth.id)


def mark_complete(progress: Path, name: str) -> None:
    """Write the empty `progress`/<name>.done: all files of the clip are in place."""
    (progress / f"{name}.done").touch()


def is_complete(progress: Path, name: str) -> bool:
    """Whether `mark_complete` has been called for a clip. Earlier versions marked it by <name>.npy."""
    return any((progress / f"{name}{suffix}").is_file() for suffix in (".done", ".npy"))
