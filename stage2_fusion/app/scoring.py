"""Score the clips of a request: one model, files read in isolated processes."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.prepare_dataset import ClipReader
from shared.media.remarks import Remarks, all_lines
from stage2_fusion.app.jobs import Job
from stage2_fusion.app.transcripts import SentClip
from stage2_fusion.prediction.preparing import Prepared, collect_failures
from stage2_fusion.prediction.result import NOTHING, UNKNOWN_WORDS, Prediction, Window, merge_windows

if TYPE_CHECKING:
    from stage2_fusion.predictor import Predictor

BATCH_SIZE = 16
"""Windows per forward pass."""
CURVE_SECONDS = 1.0
"""Seconds of the window that moves along a clip for its curves: an expression takes a third of a second or longer."""
CURVE_POINTS = 40
"""Most points of the curves within one window; they are at least CURVE_STEP apart."""
CURVE_STEP = 0.25
"""Seconds."""
MANY_WINDOWS = 6
"""A clip with more windows gets its curves only from these."""
COVERAGE = 0.9
"""Coverage of the intervals, for people like those in the training data."""
STRIP_FACES = 12
"""Most pictures of the face under the curves."""
STRIP_SIDE = 96
"""Most pixels per side."""
CURVE = "curve of "
"""Prefix of the id of a clip, for the windows of its curves."""


@dataclass
class FaceStrip:
    """Some face crops of a clip, for browsers that cannot play the file."""

    every: float = 0.0
    """Seconds between two of `pictures`."""
    pictures: list[tuple[float, str]] = field(default_factory=list)
    """(time in seconds, JPEG as base64)."""

    def add(self, sample: ClipSample) -> None:
        """Take crops from a window. If there are too many, every second one is dropped."""
        self.every = self.every or max(sample.duration / STRIP_FACES, 0.05)
        for time, frame in zip(sample.frame_times, sample.frames, strict=True):
            if not self.pictures or sample.start + time >= self.pictures[-1][0] + self.every - 1e-3:
                self.pictures.append((round(float(sample.start + time), 3), jpeg(frame)))
                if len(self.pictures) > 2 * STRIP_FACES:
                    self.pictures, self.every = self.pictures[::2], 2 * self.every


@dataclass
class ScoredClip:
    """The result for a clip on the page and in the API."""

    name: str
    """The sender's name for it."""
    prediction: Prediction
    path: str = ""
    """Where its upload was stored."""
    curves: list[tuple[float, np.ndarray]] = field(default_factory=list)
    """(time in seconds, float32 (K,)), in order."""
    strip: FaceStrip = field(default_factory=FaceStrip)


class Scorer:
    """One model and its reading processes. `score` is for one thread at a time."""

    def __init__(self, predictor: "Predictor", max_seconds: float, workers: int = 0, timeout: float = 60.0):
        """max_seconds: of a clip; the rest of a longer one is left out, with a remark. workers: reading processes, 0:
        one per core. timeout: seconds per window of a clip, after which the file fails."""
        self.predictor = predictor
        self.reader = ClipReader(predictor.recipe, workers, timeout, max_seconds=max_seconds)

    def score(self, sent: list[SentClip], job: Job) -> list[ScoredClip]:
        """Score the clips of a request, in order. A file that cannot be read, or that crashes its process, has an
        `error` instead. Raises Cancelled if nobody is waiting."""
        clips = [Clip(str(i), clip.upload.path, clip.transcript) for i, clip in enumerate(sent)]
        names = [clip.upload.name for clip in sent]
        scored = [ScoredClip(name, Prediction(name), str(clip.media)) for name, clip in zip(names, clips, strict=True)]
        failures: dict[str, str] = {}
        remarks: dict[str, Remarks] = {}
        windows: dict[str, list[Window]] = {}
        prepared = collect_failures(_reporting(self.reader.read(clips), job, len(clips)), failures, remarks)
        for window in self.predictor.predict_windows(self._with_curves(prepared, scored), BATCH_SIZE):
            windows.setdefault(window.clip, []).append(window)
        for clip, result in zip(clips, scored, strict=True):
            self._finish(result, windows.get(clip.id, []), failures.get(clip.id), bool(clip.transcript))
            result.prediction.remarks[:0] = all_lines(remarks.get(clip.id, Remarks()))
            many = len(windows.get(clip.id, [])) > MANY_WINDOWS
            moving = sorted(windows.get(clip.id if many else CURVE + clip.id, []), key=lambda window: window.start)
            result.curves = [((window.start + window.end) / 2, window.values) for window in moving]
        return scored

    def close(self) -> None:
        """End the reading processes."""
        self.reader.close()

    def _with_curves(self, samples: Iterable[ClipSample], scored: list[ScoredClip]) -> Iterator[ClipSample]:
        """Each window, and the short windows that move along it."""
        rate = self.predictor.recipe.sample_rates[0]
        for sample in samples:
            scored[int(sample.id)].strip.add(sample)
            yield sample
            if sample.start < MANY_WINDOWS * self.predictor.recipe.max_seconds:
                yield from moving_windows(sample, rate)

    def _finish(self, result: ScoredClip, windows: list[Window], failure: str | None, given_words: bool) -> None:
        windows = sorted(windows, key=lambda window: window.start)
        if not windows:
            result.prediction = Prediction(result.name, error=failure or NOTHING)
            return
        if self.predictor.encoders.text is not None and windows[0].has_unknown_words():
            failure = "; ".join(filter(None, [failure, UNKNOWN_WORDS]))
        config = self.predictor.config
        result.prediction = merge_windows(result.name, windows, config.label_names, config.quality, failure)
        self.predictor.add_trust(result.prediction, windows, transcribed=not given_words, coverage=COVERAGE)


def _reporting(prepared: Iterable[Prepared], job: Job, total: int) -> Iterator[Prepared]:
    """Report reading progress to the job, and end when it is cancelled."""
    begun: dict[str, float] = {}
    job.report(0, total, 0.0)
    for clip, sample, reason in prepared:
        begun[clip.id] = begun.get(clip.id, 0.0) + (sample.duration if sample else 0.0)
        job.report(len(begun), total, sum(begun.values()))
        yield clip, sample, reason


def moving_windows(sample: ClipSample, rate: int) -> Iterator[ClipSample]:
    """Parts of CURVE_SECONDS of a window, for curves. rate: of its waveform, in Hz."""
    if not len(sample.frames) and not len(sample.waveform):
        return  # text has no curve over time
    step = max(CURVE_STEP, sample.duration / CURVE_POINTS)
    count = max(1, round(sample.duration / step))
    for center in (np.arange(count) + 0.5) * sample.duration / count:
        low, high = max(0.0, center - CURVE_SECONDS / 2), min(sample.duration, center + CURVE_SECONDS / 2)
        yield cut(sample, float(low), float(high), rate)


def cut(sample: ClipSample, low: float, high: float, rate: int) -> ClipSample:
    """The part of a window from `low` to `high`, in seconds from its start, under the id of its curve."""
    frames = (sample.frame_times >= low) & (sample.frame_times < high)  # (T,)
    steps = len(sample.audio_quality) / max(sample.duration, 1e-6)  # per second
    return replace(
        sample,
        id=CURVE + sample.id,
        start=sample.start + low,
        duration=high - low,
        frames=sample.frames[frames],
        frame_times=sample.frame_times[frames] - np.float32(low),
        vision_quality=sample.vision_quality[frames],
        waveform=sample.waveform[round(low * rate) : round(high * rate)],
        audio_quality=sample.audio_quality[round(low * steps) : max(round(high * steps), round(low * steps) + 1)],
    )


def jpeg(frame: np.ndarray) -> str:
    """A picture (H, W, 3), scaled down, as base64 of a JPEG."""
    import cv2

    scale = STRIP_SIDE / max(frame.shape[:2])
    if scale < 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(data.tobytes()).decode()
