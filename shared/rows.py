"""One clip to one row of the clip dataset: decode, follow the face, crop, listen, judge the quality."""

import functools
import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from shared.clips import Clip
from shared.faces import FACE_FINDERS, crop_faces, find_faces, finder, smooth
from shared.material import Material, gather
from shared.media import Media, MediaError, resample
from shared.quality import audio_quality, text_quality, vision_quality


@dataclass(kw_only=True)
class Recipe:
    """Everything that decides what a prepared clip looks like; datasets and models carry it with them."""

    frame_size: int = 96
    """Side of the square face crops, in pixels. Small towers see no more; use 224 for pretrained ones."""
    frame_rate: float = 8.0
    """Pictures per second. An expression takes a third of a second or longer; more frames cost more time only."""
    max_seconds: float = 20.0
    """The rest of a longer clip is not looked at."""
    sample_rates: list[int] = field(default_factory=lambda: [16000])
    """Hz; sound is stored at each of them. 16000 suits speech models, laion-clap's wants 48000."""
    face_finder: str = "haar"
    """What finds faces: a name from shared/faces.py."""
    face_every: int = 3
    """Faces are looked for in every so manyeth picture and interpolated in between: heads move slowly."""
    max_side: int = 480
    """Pixels. Larger pictures are reduced to it before faces are looked for, so that memory stays bounded."""

    def __post_init__(self):
        for name in ("frame_size", "frame_rate", "max_seconds", "face_every", "max_side"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        if not self.sample_rates or any(rate < 1000 for rate in self.sample_rates):
            raise ValueError(f"sample_rates is {self.sample_rates}: one or more rates in Hz are needed, as in [16000]")
        FACE_FINDERS.get(self.face_finder)
        self.sample_rates = list(dict.fromkeys(self.sample_rates))

    def recipe(self) -> dict[str, Any]:
        """The options above alone, also of a class that adds others."""
        values = asdict(self)
        return {name: values[name] for name in Recipe.__dataclass_fields__}


@dataclass
class Verdict:
    """How preparing a clip went."""

    id: str
    media: str
    verdict: str
    """ok, partial (something is missing or damaged), or failed."""
    missing: list[str]
    """Modalities the clip does not have."""
    detail: str
    """In words; the reason when it failed."""
    digest: str = ""
    """Of the row's content."""


def failed(clip: Clip, reason: str) -> Verdict:
    """The verdict on a clip that gives no row."""
    return Verdict(clip.id, str(clip.media or ""), "failed", ["vision", "audio", "text"], reason)


def prepare_clip(clip: Clip, recipe: Recipe) -> tuple[dict | None, Verdict]:
    """A row (None when it failed; columns: see shared/dataset.py) and the verdict. Media problems never raise."""
    if clip.media is clip.audio is clip.crops is None and not clip.transcript:
        return None, failed(clip, "; ".join(["neither a file nor words", *clip.remarks]))
    try:
        found = gather(clip, recipe.frame_rate, recipe.max_seconds, recipe.max_side, recipe.frame_size)
    except MediaError as error:
        return None, failed(clip, str(error))
    media = found.media
    vision, remarks = _vision(found, recipe)
    row = {
        "id": clip.id,
        "split": clip.split,
        "duration": float(media.duration),
        "transcript": clip.transcript or "",
        "labels": [float(np.float32(value)) for value in clip.labels],
        **{f"group_{name}": value for name, value in clip.groups.items()},
        **vision,
        **_audio(media, recipe),
        "text_quality": text_quality(clip.transcript or "").tolist(),
    }
    return row, _verdict(clip, row, media, remarks)


def _vision(found: Material, recipe: Recipe) -> tuple[dict, list[str]]:
    """Columns of the pictures, and remarks on them."""
    _one_thread()
    crops, seen, remarks = found.media.frames, np.ones(len(found.media.frames), bool), list(found.remarks)
    if not found.cropped:
        crops, seen, turns = _follow(crops, recipe)
        remarks += [f"people lay on their side; turned by {90 * turns} degrees"] if turns else []
        if len(crops) and not seen.any():
            remarks.append("no face found; the middle of the picture is kept")
    jpegs = [encode_jpeg(crop) for crop in crops]
    # Of what is stored, so that whoever reads the dataset computes the same.
    stored = np.stack([decode_jpeg(jpeg) for jpeg in jpegs]) if jpegs else crops
    columns = {
        "frames": jpegs,
        "frame_times": found.media.frame_times.tolist(),
        "vision_quality": vision_quality(stored, seen).tobytes(),
    }
    return columns, remarks


def _follow(frames: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, int]:
    """Crops (T, S, S, 3) that follow the face in pictures (T, H, W, 3), where it was seen (T,), and the quarter turns
    that the pictures needed."""
    faces = find_faces(frames, recipe.face_every, finder(recipe.face_finder))
    upright = np.rot90(frames, faces.turns, axes=(1, 2))  # (T, H, W, 3)
    return crop_faces(upright, smooth(faces.boxes, recipe.frame_rate), recipe.frame_size), faces.found, faces.turns


def _audio(media: Media, recipe: Recipe) -> dict:
    sounds = {rate: to_int16(resample(media.waveform, media.sample_rate, rate)) for rate in recipe.sample_rates}
    rate = max(recipe.sample_rates)  # the one that has lost least
    return {
        **{f"waveform_{rate}": samples.tobytes() for rate, samples in sounds.items()},
        "audio_quality": audio_quality(from_int16(sounds[rate]), rate).tobytes(),
    }


def _verdict(clip: Clip, row: dict, media: Media, remarks: list[str]) -> Verdict:
    present = {"vision": len(media.frames) > 0, "audio": len(media.waveform) > 0, "text": bool(clip.transcript)}
    missing = [name for name, there in present.items() if not there]
    remarks = [{"vision": "no picture", "audio": "no sound"}[name] for name in missing if name != "text"] + remarks
    if media.damaged_packets:
        remarks.append(f"{media.damaged_packets} damaged packets left out")
    word = "partial" if remarks else "ok"
    return Verdict(clip.id, str(clip.media or ""), word, missing, "; ".join(remarks), row_digest(row))


def row_digest(row: dict) -> str:
    """Sixteen hexadecimal digits of a row's content."""
    content = hashlib.sha256()
    for name in sorted(row):
        value = row[name]
        parts = value if isinstance(value, list) else [value]
        content.update(f"{name}:{len(parts)};".encode())
        for part in parts:
            data = part if isinstance(part, bytes) else repr(part).encode()
            content.update(f"{len(data)}:".encode() + data)
    return content.hexdigest()[:16]


# --- how pictures and sound are stored -----------------------------------------------------------------------------


def encode_jpeg(frame: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) -> JPEG, quality 95."""
    import cv2

    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG -> RGB uint8 (H, W, 3)."""
    import cv2

    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] -> little-endian int16; what lies beyond is clipped."""
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype("<i2")


def from_int16(samples: np.ndarray) -> np.ndarray:
    """int16 -> float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(32768)


@functools.cache
def _one_thread() -> None:
    """OpenCV's threads would fight the other processes for the cores."""
    import multiprocessing

    if multiprocessing.parent_process() is not None:
        import cv2

        cv2.setNumThreads(1)
