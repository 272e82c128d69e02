"""Words of clips nobody wrote down, by a recogniser that a person brings: `--transcribe /path/to/whisper`.

Recognisers invent sentences where nobody speaks. So one is asked only where voice activity is heard, and of what it
says only the segments in which somebody does speak are kept: silence has no words, and text counts as missing.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from shared.errors import UserError
from shared.files import digest, write_json
from shared.media.decode import resample
from shared.media.speech import CHUNK, RATE, speech_probability
from shared.registry import Registry
from shared.text import one_line

RECOGNISERS = Registry("speech recogniser", {"faster-whisper": "shared.media.transcribe:FasterWhisper"})
"""Named with the folder of their weights, as `faster-whisper:/path`; a bare path means faster-whisper."""

VERSION = 1
"""Raised whenever the same recogniser gives other words, so that kept transcripts are not used again."""
NOT_TRANSCRIBED = "its sound could not be transcribed"
SPEAKS = 0.5
"""Probability above which a step of 32 ms is speech."""
LEAST_SPEECH = 0.2
"""Seconds of speech, of a clip or of a segment, below which nobody speaks."""
SLACK = 0.2
"""Seconds by which the bounds of segments may be off."""


@dataclass
class Segment:
    """A stretch of recognised words, times in seconds."""

    start: float
    end: float
    text: str


class Recogniser(Protocol):
    """What can write down speech."""

    digest: str
    """Changes with the weights."""

    def recognise(self, waveform: np.ndarray) -> list[Segment]:
        """float32 (S,) at 16 kHz -> segments in order."""
        ...

    def check(self) -> None:
        """UserError when its weights cannot be loaded."""
        ...


class FasterWhisper:
    """Whisper by CTranslate2 (package `faster-whisper`), from a folder on the disk; no hub is asked."""

    def __init__(self, path: str):
        folder = Path(path)
        if not (folder / "model.bin").is_file():
            raise UserError(f"{path}: no Whisper model here; --transcribe names a folder with CTranslate2's model.bin")
        if importlib.util.find_spec("faster_whisper") is None:
            raise UserError("--transcribe needs the package faster-whisper: pip install 'emit-toolkit[asr]'")
        self.path = path
        files = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
        self.digest = digest(["faster-whisper", files])

    @functools.cached_property
    def model(self):
        """Loaded when the first clip needs it."""
        return self._load()

    def _load(self):
        from faster_whisper import WhisperModel

        return WhisperModel(self.path, local_files_only=True)

    def check(self) -> None:
        try:
            self._load()  # and forgotten: other processes load their own
        except Exception as error:  # whatever damaged weights do to a library
            reason = one_line(error, 200)
            raise UserError(f"{self.path}: this Whisper model cannot be loaded ({reason}); fetch it again") from None

    def recognise(self, waveform: np.ndarray) -> list[Segment]:
        # Without the words before it: a misheard sentence would be repeated through the clip.
        segments, _ = self.model.transcribe(waveform, condition_on_previous_text=False)
        return [Segment(segment.start, segment.end, segment.text) for segment in segments]


@functools.cache
def recogniser(spec: str) -> Recogniser:
    """The recogniser that `spec` names, built once a process; UserError when it cannot be."""
    return RECOGNISERS.make(spec if spec.partition(":")[0] in RECOGNISERS.parts else f"faster-whisper:{spec}")


def transcribe(waveform: np.ndarray, rate: int, listener: Recogniser, kept: Path | None = None) -> tuple[str, str]:
    """What is said in float32 (S,) at `rate` Hz, and "" or, where that is nothing, why.

    kept: folder in which each answer is kept under a digest of the sound and the recogniser, and looked for first.
    """
    samples = resample(waveform, rate, RATE)
    content = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
    file = kept / f"{digest([VERSION, listener.digest, content.hex()])}.json" if kept is not None else None
    if file is not None and file.is_file():
        known = _read(file)
        if known is not None:
            return known
    speech = speech_probability(samples, RATE) > SPEAKS  # (N,) per 32 ms
    if not _enough(speech):
        text, why = "", "nobody speaks"
    else:
        try:
            segments = listener.recognise(samples)
        except Exception as error:  # whatever a clip does to a library, it keeps its picture and sound
            return "", f"{NOT_TRANSCRIBED} ({one_line(error, 120)})"
        text = " ".join(" ".join(part.text.split()) for part in segments if _enough(_during(speech, part))).strip()
        why = "" if text else "no words were recognised"
    if file is not None:
        write_json(file, {"text": text, "why": why})
    return text, why


def _enough(speech: np.ndarray) -> bool:
    return float(speech.sum()) * CHUNK / RATE >= LEAST_SPEECH


def _during(speech: np.ndarray, segment: Segment) -> np.ndarray:
    first, last = (round(time * RATE / CHUNK) for time in (segment.start - SLACK, segment.end + SLACK))
    return speech[max(0, first) : max(0, last)]


def _read(file: Path) -> tuple[str, str] | None:
    """A kept answer; None when it is damaged."""
    import json

    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return str(known["text"]), str(known["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
