"""Items of loose media from csv, hf and webdataset: pictures, sound or video, decoded when needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shared.media.channels import mix_of
from shared.media.decode import MediaError, decode
from shared.media.stills import decode_still
from shared.media.waveform import resample
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import FrameSelector, Sample

MAX_SIDE = 512
"""Pixels. Larger pictures are downscaled at once: no tower needs more, and augmentation costs grow with the size."""
MAX_SECONDS = 600.0
"""Most seconds of a file to decode, so that memory stays bounded."""


@dataclass(frozen=True)
class FileSlice:
    """Bytes inside a larger file."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset}"


Medium = Path | FileSlice | bytes


@dataclass
class Record:
    """An item not decoded yet."""

    annotations: TextAnnotations
    image: Medium | None = None
    audio: Medium | dict[str, Any] | None = None
    """A dictionary holds "array" (S,) or (C, S) and "sampling_rate"."""
    video: Medium | None = None
    """Pictures, and sound if `audio` is None."""


def decode_record(
    record: Record, sample_rate: int | None, select: FrameSelector | None, frame_rate: float = 8.0
) -> Sample:
    """See PairSource.sample. frame_rate: frames per second of a video that `select` selects from."""
    sample = Sample(np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32), record.annotations)
    damage: list[str] = []
    sound = record.video if record.audio is None else record.audio
    if select is not None and record.image is not None:
        try:
            sample.frames = decode_image(record.image)[None][select(1)]  # (1, H, W, 3)
        except (MediaError, OSError) as error:
            damage.append(f"{_describe(record.image)}: {error}")
    elif select is not None and record.video is not None:
        try:
            media = decode(_content(record.video), frame_rate, MAX_SECONDS, MAX_SIDE)
            if len(media.frames):
                sample.frames = media.frames[select(len(media.frames))]  # (T, H, W, 3)
            if sound is record.video and sample_rate is not None:
                sample.waveform = resample(media.waveform, media.sample_rate, sample_rate)  # (S,)
        except (MediaError, OSError) as error:
            damage.append(f"{_describe(record.video)}: {error}")
        sound = None if sound is record.video else sound
    if sample_rate is not None and sound is not None:
        try:
            sample.waveform = decode_sound(sound, sample_rate)  # (S,)
        except (MediaError, OSError) as error:
            damage.append(f"{_describe(sound)}: {error}")
    sample.damage = "; ".join(damage)
    return sample


def decode_image(image: Medium) -> np.ndarray:
    """RGB uint8 (H, W, 3), upright, no side longer than MAX_SIDE. MediaError if it cannot be decoded."""
    data = _content(image)
    if isinstance(data, Path) and not data.is_file():
        raise MediaError("no such file")
    try:
        picture = decode_still(data)  # (H, W, 3)
    except ValueError as error:
        raise MediaError(str(error)) from None
    scale = MAX_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture


def decode_sound(sound: Medium | dict[str, Any], sample_rate: int) -> np.ndarray:
    """float32 (S,) at `sample_rate` Hz, the channels mixed; S = 0 for a file without sound. MediaError if it cannot be
    decoded."""
    if not isinstance(sound, dict):
        media = decode(_content(sound), 0, MAX_SECONDS)
        return resample(media.waveform, media.sample_rate, sample_rate)
    if sound.get("array") is None:
        raise MediaError(f"sound as {{{', '.join(sound)}}}: bytes, path, or array and sampling_rate are needed")
    values = np.asarray(sound["array"])
    if values.dtype.kind == "i" and values.dtype.itemsize < 4:
        values = values / -float(np.iinfo(values.dtype).min)
    try:
        values = values.astype(np.float32)
    except (TypeError, ValueError):
        raise MediaError("the array of the sound is not numeric") from None
    if values.ndim == 2:
        channels = values if values.shape[0] <= values.shape[1] else values.T  # there are fewer channels than samples
        values = mix_of(channels).apply(channels) if np.isfinite(channels).all() else channels[0]
    own_rate = int(sound.get("sampling_rate") or 0)
    if values.ndim != 1 or own_rate < 1 or not np.isfinite(values).all():
        raise MediaError(f"sound of shape {values.shape} at {own_rate} Hz")
    return resample(values[: int(MAX_SECONDS * own_rate)], own_rate, sample_rate)


def _content(medium: Medium) -> Path | bytes:
    return medium.read() if isinstance(medium, FileSlice) else medium


def _describe(medium: Any) -> str:
    return str(medium) if isinstance(medium, FileSlice | Path) else "data in a column"
