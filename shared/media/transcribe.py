"""Transcribe clips with a speech recognizer that the user provides: `--transcribe /path/to/whisper`.

Recognizers invent sentences in silence. Therefore a clip without voice activity is not transcribed, and segments
without voice activity are dropped. The transcript of silence is empty, and text counts as missing.
"""

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shared.errors import UserError
from shared.files import digest, sample_digest, write_json
from shared.media.speech import CHUNK, RATE, speech_probability
from shared.media.storage import to_int16
from shared.media.waveform import resample
from shared.registry import Registry
from shared.text import one_line

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

RECOGNIZERS = Registry("speech recognizer", {"faster-whisper": "shared.media.transcribe:FasterWhisper"})
"""Given with a weight folder, as `faster-whisper:/path`; a bare path means faster-whisper."""

VERSION = 2
"""Incremented when the same recognizer gives different words, so that cached transcripts are not reused."""
COMPUTE_TYPES = {"cpu": "int8", "cuda": "default"}
"""Type of the weights by device. Published weights are float16, which a CPU converts to float32 with a warning at every
load; int8 is faster there and as accurate."""
THREADS = 1
"""Threads per process: with a process per core, more threads would wait for one another."""
NEEDED = ("config.json", "tokenizer.json")
"""Files next to the weights: without the first, every clip fails; the second would be downloaded."""
PLACES = 64
"""Bytes of a file to compare: a fine-tuned model has the size of the model it started from."""
NOT_TRANSCRIBED = "its sound could not be transcribed"
SPEECH_THRESHOLD = 0.5
"""Probability above which a step of 32 ms is speech."""
MIN_SPEECH_SECONDS = 0.2
"""A clip or segment with less speech counts as silent."""
SEGMENT_TOLERANCE = 0.2
"""Tolerance for the times of segments, in seconds."""


@dataclass
class Segment:
    """Recognized words; times in seconds."""

    start: float
    end: float
    text: str


class Recognizer(Protocol):
    """A speech recognizer."""

    digest: str
    """Depends on the weights."""

    def recognize(self, waveform: np.ndarray) -> list[Segment]:
        """Segments, in order, of float32 (S,) at 16 kHz."""
        ...

    def check(self) -> None:
        """Raises UserError if the weights cannot be loaded."""
        ...


class FasterWhisper:
    """Whisper in CTranslate2 (package `faster-whisper`), from a local folder; nothing is downloaded."""

    def __init__(self, path: str):
        folder = Path(path)
        if not (folder / "model.bin").is_file():
            raise UserError(f"{path}: no Whisper model here; --transcribe names a folder with CTranslate2's model.bin")
        for name in NEEDED:
            if not (folder / name).is_file():
                raise UserError(f"{path}: {name} of this Whisper model is missing; fetch the folder again")
        if importlib.util.find_spec("faster_whisper") is None:
            raise UserError("--transcribe needs the package faster-whisper: pip install 'emit-toolkit[asr]'")
        self.path = path
        files = sorted(file for file in folder.iterdir() if file.is_file())
        content = [(file.name, file.stat().st_size, sample_digest(file, PLACES)) for file in files]
        self.digest = digest(["faster-whisper", content])

    @functools.cached_property
    def model(self) -> "WhisperModel":
        """Loaded when the first clip needs it."""
        return self._load()

    def _load(self) -> "WhisperModel":
        from faster_whisper import WhisperModel

        device = "cuda" if _count_gpus() else "cpu"
        kind = COMPUTE_TYPES[device]
        return WhisperModel(self.path, device=device, compute_type=kind, cpu_threads=THREADS, local_files_only=True)

    def check(self) -> None:
        try:
            self._load()  # not kept: worker processes load their own
        except Exception as error:  # damaged weights may cause any error in a library
            reason = one_line(error, 200)
            raise UserError(f"{self.path}: this Whisper model cannot be loaded ({reason}); fetch it again") from None

    def recognize(self, waveform: np.ndarray) -> list[Segment]:
        # Not conditioned on previous text, because a misheard sentence would be repeated through the clip.
        segments, _ = self.model.transcribe(waveform, condition_on_previous_text=False)
        return [Segment(segment.start, segment.end, segment.text) for segment in segments]


def _count_gpus() -> int:
    """GPUs that CTranslate2 can use."""
    try:
        import ctranslate2
    except ImportError:  # faster-whisper brings it
        return 0
    return int(ctranslate2.get_cuda_device_count())


@functools.cache
def load_recognizer(spec: str) -> Recognizer:
    """The recognizer named by `spec`, built once per process. Raises UserError if it cannot be built."""
    return RECOGNIZERS.make(spec if spec.partition(":")[0] in RECOGNIZERS.parts else f"faster-whisper:{spec}")


def transcribe(waveform: np.ndarray, rate: int, model: Recognizer, cache: Path | None = None) -> tuple[str, str]:
    """The transcript of float32 (S,) at `rate` Hz and, if it is empty, the reason.

    cache: folder of results under a digest of the sound and the recognizer.
    """
    samples = resample(waveform, rate, RATE)
    file = cache / f"{digest([VERSION, model.digest, to_int16(samples).tobytes().hex()])}.json" if cache else None
    cached = _read(file) if file is not None and file.is_file() else None
    if cached is not None:
        return cached
    speech = speech_probability(samples, RATE) > SPEECH_THRESHOLD  # (N,) per 32 ms
    if not _has_speech(speech):
        text, reason = "", "nobody speaks"
    else:
        try:
            segments = model.recognize(samples)
        except Exception as error:  # a clip may cause any error in a library, but it keeps its frames and sound
            return "", f"{NOT_TRANSCRIBED} ({one_line(error, 120)})"
        spoken = [segment for segment in segments if _has_speech(_speech_during(speech, segment))]
        text = " ".join(" ".join(segment.text.split()) for segment in spoken).strip()
        reason = "" if text else "no words were recognized"
    if file is not None:
        write_json(file, {"text": text, "why": reason})
    return text, reason


def _has_speech(speech: np.ndarray) -> bool:
    return float(speech.sum()) * CHUNK / RATE >= MIN_SPEECH_SECONDS


def _speech_during(speech: np.ndarray, segment: Segment) -> np.ndarray:
    times = segment.start - SEGMENT_TOLERANCE, segment.end + SEGMENT_TOLERANCE
    first, last = (round(time * RATE / CHUNK) for time in times)
    return speech[max(0, first) : max(0, last)]


def _read(file: Path) -> tuple[str, str] | None:
    """A cached result; None if it is damaged."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        return str(result["text"]), str(result["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
