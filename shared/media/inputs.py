"""A clip in memory: its arrays are checked and cut into windows like a media file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.arrays import (
    PIXEL_CHANNELS,
    check_text,
    describe,
    reject,
    to_array,
    to_frames,
    to_sample_rate,
    to_waveform,
)
from shared.media.decode import MIN_TAIL_SECONDS, Media
from shared.media.timeline import BREAK
from shared.media.tracks import EARLY, MAX_LAST_FRAME

MAX_GAP = 10.0
"""Seconds; with larger gaps between frames, times must be in another unit."""
MAX_END = 86400.0
"""Seconds; later times must count from an epoch or be in another unit."""


@dataclass
class ClipArrays:
    """A clip in memory. None = the modality is missing: it is masked, never invented. Arrays are NumPy arrays or torch
    tensors, checked and converted on construction; UserError says what was given and what is expected."""

    frames: Any = None
    """Upright RGB (T, H, W, 3) or (T, 3, H, W), uint8, or float in [0, 1]; gray and RGBA are converted. Becomes RGB
    uint8 (T, H, W, 3)."""
    frame_times: Any = None
    """Seconds (T,) from the start of the clip, ascending; or give `frame_rate`. Becomes float64 (T,)."""
    frame_rate: float | None = None
    """Frames per second, for evenly spaced frames."""
    waveform: Any = None
    """Samples (S,), or up to 8 channels, which are averaged; float in [-1, 1], or int16, int32 or uint8. Keep the
    original level: loudness carries intensity. Becomes float32 (S,)."""
    rate: int | None = None
    """Samples per second of the waveform."""
    text: str | None = None
    """What is said."""

    def __post_init__(self) -> None:
        if self.frames is not None:
            array = to_array(self.frames)
            if array is not None and array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in PIXEL_CHANNELS:
                raise reject("frames", array, "a gray clip or one RGB image? Give (T, H, W, 1) or (1, C, H, W)")
            self.frames = to_frames("frames", self.frames)
            self.frame_times = check_frame_times(self.frame_times, self.frame_rate, len(self.frames))
        elif self.frame_times is not None or self.frame_rate is not None:
            raise UserError("frame_times or frame_rate are given without frames")
        if self.waveform is not None:
            self.waveform = to_waveform("waveform", self.waveform)
            self.rate = to_sample_rate("waveform", self.rate)
        elif self.rate is not None:
            raise UserError("rate is given without a waveform")
        if self.text is not None:
            if not isinstance(self.text, str):
                raise UserError(f"text: got {describe(self.text)}: give a string, or None if it is not known")
            check_text("text", self.text)
            self.text = self.text.strip()


def check_frame_times(times: Any, frame_rate: float | None, count: int) -> np.ndarray:
    """Seconds float64 (T,) of `count` frames. UserError unless exactly one of times and rate is given and valid."""
    if (times is None) == (frame_rate is None):
        given = "both" if times is not None else "neither"
        raise UserError(
            f"frames need either frame_times (seconds of each) or frame_rate (per second); {given} is given"
        )
    if times is None:
        if not isinstance(frame_rate, int | float | np.number) or not 1 / MAX_GAP <= float(frame_rate) < np.inf:
            raise UserError(f"frame_rate is {frame_rate!r}; give frames per second, {1 / MAX_GAP:g} or more")
        return np.arange(count) / float(frame_rate)  # (T,)
    array = to_array(times)
    try:
        values = np.asarray(times if array is None else array, np.float64)
    except (TypeError, ValueError):
        raise reject("frame_times", times, "give seconds") from None
    if values.shape != (count,):
        raise reject("frame_times", values, f"give seconds of shape ({count},), one for each frame")
    if not np.isfinite(values).all() or values[0] < 0 or (np.diff(values) <= 0).any():
        raise UserError("frame_times must be seconds from the start of the clip, each later than the one before")
    gap = float(np.median(np.diff(values))) if count > 1 else 0.0
    if gap > MAX_GAP or values[-1] > MAX_END:
        raise UserError(
            f"frame_times run from {values[0]:g} to {values[-1]:g}, {gap:g} apart; give seconds from the start of the "
            "clip: not milliseconds, and not from an epoch"
        )
    return values


def array_windows(clip: ClipArrays, frame_rate: float, seconds: float, max_side: int) -> Iterator[Media]:
    """Windows of `seconds`, with frames, times and sound as from `decode_windows` for a file with the same content.
    Nothing for a clip without frames and sound."""
    frames = np.zeros((0, 0, 0, 3), np.uint8) if clip.frames is None else clip.frames
    waveform = np.zeros(0, np.float32) if clip.waveform is None else clip.waveform
    chosen, times, video_end = _resample_times(clip.frame_times, frame_rate) if len(frames) else _no_frames()
    end = max(video_end, len(waveform) / clip.rate if clip.rate else 0.0)
    absence_reasons = {"vision": "no frames are given", "audio": "no waveform is given"}
    tail = min(MIN_TAIL_SECONDS, seconds / 2)
    number, stop = 0, 0.0
    while stop < end:
        start, stop = number * seconds, (number + 1) * seconds
        stop += tail if end <= stop + tail else 0  # a short rest is added to the last window
        number += 1
        inside = (times >= start - 1e-6) & (times < stop - 1e-6)  # (G,)
        sound = waveform[int(start * clip.rate) : int(stop * clip.rate)] if clip.rate else waveform
        pictures = reduce_frames(frames[chosen[inside]], max_side) if inside.any() else frames[:0]
        if len(pictures) or len(sound):
            missing = [name for name, part in (("vision", pictures), ("audio", sound)) if not len(part)]
            yield Media(
                frames=pictures,
                frame_times=(times[inside] - start).astype(np.float32),
                waveform=sound,
                sample_rate=clip.rate or 0 if len(sound) else 0,
                duration=min(end, stop) - start,
                start=start,
                more=end > stop,
                absence_reasons={name: absence_reasons[name] for name in missing},
            )


def _no_frames() -> tuple[np.ndarray, np.ndarray, float]:
    return np.zeros(0, np.int64), np.zeros(0), 0.0


def _resample_times(frame_times: np.ndarray, frame_rate: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The frame (G,) shown at each time k / frame_rate (G,), the last one at or before it, and the end of the last
    one."""
    gap = frame_times[-1] - frame_times[-2] if len(frame_times) > 1 else 1 / frame_rate
    end = float(frame_times[-1] + min(gap, MAX_LAST_FRAME))
    first = round(float(frame_times[0]) * frame_rate)
    times = np.arange(first, max(first + 1, int((end - 1e-6) * frame_rate) + 1)) / frame_rate  # (G,)
    shown = np.searchsorted(frame_times - EARLY + 1e-6, times, side="right") - 1  # (G,)
    chosen, inside = shown.clip(0), np.ones(len(times), bool)
    for i in np.flatnonzero(np.diff(frame_times) > BREAK):  # a break: frame i is not held
        held = frame_times[i] + min(frame_times[i] - frame_times[i - 1] if i else 1 / frame_rate, MAX_LAST_FRAME)
        inside &= (shown != i) | (times < held - 1e-6)
    return chosen[inside], times[inside], end


def reduce_frames(frames: np.ndarray, max_side: int) -> np.ndarray:
    """Downscale frames (T, H, W, 3) so that the longer side is at most `max_side` pixels."""
    import cv2

    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    if scale == 1:
        return frames
    size = max(2, round(width * scale)), max(2, round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
