"""Frames, sound and text that a caller passes as arrays: checked, and cut into windows as a media file would be."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.decode import MIN_TAIL_SECONDS, Media


@dataclass
class ClipArrays:
    """A clip in memory. None = the modality is missing: it is masked, never made up."""

    frames: Any = None
    """RGB uint8 (T, H, W, 3), upright. NumPy, or what `np.asarray` takes, such as a CPU tensor."""
    frame_times: Any = None
    """Seconds (T,), ascending; or give `frame_rate`."""
    frame_rate: float | None = None
    """Frames per second, when they are evenly spaced."""
    waveform: Any = None
    """float (S,), mono, in [-1, 1], at its original level: loudness carries intensity."""
    rate: int | None = None
    """Samples per second of the waveform."""
    text: str | None = None
    """What is said."""

    def __post_init__(self) -> None:
        if self.frames is not None:
            self.frames = check_frames(self.frames)
            self.frame_times = check_frame_times(self.frame_times, self.frame_rate, len(self.frames))
        elif self.frame_times is not None or self.frame_rate is not None:
            raise UserError("frame_times or frame_rate are given without frames")
        if self.waveform is not None:
            self.waveform = check_waveform(self.waveform)
            self.rate = check_rate(self.rate)
        elif self.rate is not None:
            raise UserError("rate is given without a waveform")
        if self.text is not None:
            self.text = check_text(self.text)


def check_frames(frames: Any) -> np.ndarray:
    """uint8 (T, H, W, 3). UserError says what was given instead."""
    array = _array(frames, "frames", "RGB uint8 of shape (T, H, W, 3)")
    hint = ""
    if array.ndim == 4 and array.shape[1] == 3 != array.shape[3]:
        hint = "; the channels come last: frames.transpose(0, 2, 3, 1)"
    elif array.ndim == 3 and array.shape[2] == 3:
        hint = "; for one picture, frames[None]"
    elif array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        hint = "; for values in [0, 1], (frames * 255).round().astype(np.uint8)"
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or min(array.shape[1:3]) < 1:
        raise UserError(f"frames are {_describe(array)}; expected RGB uint8 of shape (T, H, W, 3){hint}")
    return array


def check_frame_times(times: Any, frame_rate: float | None, count: int) -> np.ndarray:
    """Seconds float64 (T,) of `count` frames. UserError unless exactly one of times and rate is given and makes
    sense."""
    if (times is None) == (frame_rate is None):
        given = "both" if times is not None else "neither"
        raise UserError(
            f"frames need either frame_times (seconds of each) or frame_rate (per second); {given} is given"
        )
    if times is None:
        if not isinstance(frame_rate, int | float | np.number) or not 0 < float(frame_rate) < np.inf:
            raise UserError(f"frame_rate is {frame_rate!r}; expected frames per second, above 0")
        return np.arange(count) / float(frame_rate)  # (T,)
    array = _array(times, "frame_times", "seconds of shape (T,)")
    if array.shape != (count,) or array.dtype.kind not in "iuf":
        raise UserError(f"frame_times are {_describe(array)}; expected seconds of shape ({count},), one per frame")
    array = array.astype(np.float64)
    if count and (not np.isfinite(array).all() or array[0] < 0 or (np.diff(array) <= 0).any()):
        raise UserError("frame_times must be seconds from the start of the clip, each later than the one before")
    return array


def check_waveform(waveform: Any) -> np.ndarray:
    """float32 (S,). UserError says what was given instead."""
    expected = "mono float of shape (S,) in [-1, 1]"
    array, hint = _array(waveform, "waveform", expected), ""
    if array.dtype.kind in "iu":
        hint = f"; for {array.dtype} samples, waveform / {float(np.iinfo(array.dtype).max) + 1:g}"
    elif array.ndim == 2:
        hint = "; average the channels: waveform.mean(axis=...)"
    if array.dtype.kind != "f" or array.ndim != 1:
        raise UserError(f"waveform is {_describe(array)}; expected {expected}{hint}")
    if not np.isfinite(array).all():
        raise UserError(f"waveform holds values that are not finite; expected {expected}")
    peak = float(np.abs(array).max(initial=0))
    if peak > 2:  # resampling and codecs overshoot 1 a little
        raise UserError(f"waveform reaches {peak:g}; expected {expected}, at its original level")
    return array.astype(np.float32)


def check_rate(rate: Any) -> int:
    """Samples per second. UserError for anything else."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 1000 <= float(rate) <= 400_000:
        raise UserError(f"rate is {rate!r}; expected the samples per second of the waveform, such as 16000")
    return int(rate)


def check_text(text: Any) -> str:
    """UserError for anything but a string."""
    if not isinstance(text, str):
        raise UserError(f"text is {type(text).__name__}; expected a string, or None when it is not known")
    return text.strip()


def _array(value: Any, name: str, expected: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # tensors on a GPU, and whatever else offers __array__
        raise UserError(f"{name} cannot be read as an array ({error}); expected {expected}") from None
    if array.dtype == object:
        raise UserError(f"{name} is {type(value).__name__}, not an array of one shape; expected {expected}")
    return array


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def array_windows(clip: ClipArrays, frame_rate: float, seconds: float, max_side: int) -> Iterator[Media]:
    """Windows of `seconds`, with frames, times and sound as `decode_windows` gives them for a file with the same
    content. Nothing for a clip without frames and sound."""
    frames = np.zeros((0, 0, 0, 3), np.uint8) if clip.frames is None else clip.frames
    waveform = np.zeros(0, np.float32) if clip.waveform is None else clip.waveform
    chosen, times, video_end = _resample_times(clip.frame_times, frame_rate) if len(frames) else _no_frames()
    end = max(video_end, len(waveform) / clip.rate if clip.rate else 0.0)
    absent = {"vision": "no frames are given", "audio": "no waveform is given"}
    number, yielded = 0, False
    while number * seconds < end:
        start, stop = number * seconds, (number + 1) * seconds
        number += 1
        if yielded and min(end, stop) - start < MIN_TAIL_SECONDS:
            break
        inside = (times >= start - 1e-6) & (times < stop - 1e-6)  # (G,)
        sound = waveform[int(start * clip.rate) : int(stop * clip.rate)] if clip.rate else waveform
        pictures = reduce_frames(frames[chosen[inside]], max_side) if inside.any() else frames[:0]
        if len(pictures) or len(sound):
            yielded = True
            missing = [name for name, part in (("vision", pictures), ("audio", sound)) if not len(part)]
            yield Media(
                frames=pictures,
                frame_times=(times[inside] - start).astype(np.float32),
                waveform=sound,
                sample_rate=clip.rate or 0 if len(sound) else 0,
                duration=min(end, stop) - start,
                start=start,
                more=end > stop + MIN_TAIL_SECONDS,
                absent={name: absent[name] for name in missing},
            )


def _no_frames() -> tuple[np.ndarray, np.ndarray, float]:
    return np.zeros(0, np.int64), np.zeros(0), 0.0


def _resample_times(frame_times: np.ndarray, frame_rate: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The frame (G,) nearest to each time k / frame_rate (G,) at which the frames (T,) are shown, and when they end."""
    gap = frame_times[-1] - frame_times[-2] if len(frame_times) > 1 else 1 / frame_rate
    end = float(frame_times[-1] + min(gap, 1.0))
    first = round(float(frame_times[0]) * frame_rate)
    times = np.arange(first, max(first + 1, int((end - 1e-6) * frame_rate) + 1)) / frame_rate  # (G,)
    middles = (frame_times[1:] + frame_times[:-1]) / 2  # (T - 1,)
    return np.searchsorted(middles, times, side="left"), times, end


def reduce_frames(frames: np.ndarray, max_side: int) -> np.ndarray:
    """Frames (T, H, W, 3) whose longer side is at most `max_side` pixels."""
    import cv2

    height, width = frames.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    if scale == 1:
        return frames
    size = max(2, round(width * scale)), max(2, round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
