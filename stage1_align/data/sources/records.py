"""Items of loose media, as csv, hf and webdataset give them: pictures, sound or video that is decoded when needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.media.decode import MediaError, decode, resample
from stage1_align.data.captions import Words
from stage1_align.data.sources.base import Choose, Sample

MAX_SIDE = 512
"""Pixels. Larger pictures are reduced to it at once: no tower looks at more, and changing light costs by the pixel."""
LONGEST = 600.0
"""Seconds of a file that are decoded at most, so that memory stays bounded."""


@dataclass(frozen=True)
class Part:
    """Bytes that lie inside a larger file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass
class Record:
    """An item that is not decoded yet. Media are a Path, a Part, bytes, or None; sound may be a dictionary of "array"
    (S,) or (C, S) and "sampling_rate" as well."""

    words: Words
    image: Any = None
    audio: Any = None
    video: Any = None
    """Pictures, and sound where `audio` is None."""


def decode_record(record: Record, rate: int | None, choose: Choose | None, frame_rate: float = 8.0) -> Sample:
    """See Source.sample. frame_rate: pictures a second that `choose` chooses from in a video."""
    sample = Sample(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32), record.words)
    damage = []
    if choose is not None and record.image is not None:
        try:
            sample.frames = decode_image(record.image)[None][choose(1)]  # (1, H, W, 3)
        except (MediaError, OSError) as error:
            damage.append(f"{_place(record.image)}: {error}")
    sound = record.video if record.audio is None else record.audio
    moving = choose is not None and record.video is not None and record.image is None
    if moving:
        try:
            media = decode(_media(record.video), frame_rate, LONGEST, MAX_SIDE)
            if len(media.frames):
                sample.frames = media.frames[choose(len(media.frames))]  # (T, H, W, 3)
            if sound is record.video and rate is not None:
                sample.waveform = resample(media.waveform, media.sample_rate, rate)  # (S,)
        except (MediaError, OSError) as error:
            damage.append(f"{_place(record.video)}: {error}")
    if rate is not None and sound is not None and not (moving and sound is record.video):
        try:
            sample.waveform = decode_sound(sound, rate)  # (S,)
        except (MediaError, OSError) as error:
            damage.append(f"{_place(sound)}: {error}")
    sample.damage = "; ".join(damage)
    return sample


def decode_image(image: Path | Part | bytes) -> np.ndarray:
    """RGB uint8 (H, W, 3), upright, no side longer than MAX_SIDE. MediaError when it cannot be decoded."""
    import cv2

    data = _media(image)
    if isinstance(data, Path):
        if not data.is_file():
            raise MediaError("no such file")
        data = data.read_bytes()
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # (H, W, 3), turned as EXIF says
    except cv2.error:
        picture = None
    if picture is None:
        raise MediaError("not a readable picture")
    scale = MAX_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def decode_sound(sound: Path | Part | bytes | dict, rate: int) -> np.ndarray:
    """float32 (S,) at `rate` Hz, the mean of the channels; S = 0 for a file of pictures alone. MediaError when it
    cannot be decoded."""
    if not isinstance(sound, dict):
        media = decode(_media(sound), 0, LONGEST)
        return resample(media.waveform, media.sample_rate, rate)
    if sound.get("array") is None:
        raise MediaError(f"sound as {{{', '.join(sound)}}}: bytes, path, or array and sampling_rate are needed")
    values = np.asarray(sound["array"])
    if values.dtype.kind == "i" and values.dtype.itemsize < 4:
        values = values / -float(np.iinfo(values.dtype).min)
    try:
        values = values.astype(np.float32)
    except (TypeError, ValueError):
        raise MediaError("the array of the sound is not of numbers") from None
    if values.ndim == 2:
        values = values.mean(axis=int(np.argmin(values.shape)))  # there are fewer channels than samples
    own_rate = int(sound.get("sampling_rate") or 0)
    if values.ndim != 1 or own_rate < 1 or not np.isfinite(values).all():
        raise MediaError(f"sound of shape {values.shape} at {own_rate} Hz")
    return resample(values[: int(LONGEST * own_rate)], own_rate, rate)


def _media(value: Path | Part | bytes) -> Path | bytes:
    return value.read() if isinstance(value, Part) else value


def _place(value: Any) -> str:
    if isinstance(value, Part):
        return f"{value.path} at byte {value.offset}"
    return str(value) if isinstance(value, Path) else "data in a column"
