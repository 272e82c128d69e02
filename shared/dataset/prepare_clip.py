"""One clip to one row of the clip dataset: decode, follow the face, crop, listen, judge the quality."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.decode_clip import Material, gather, gather_windows, words_alone
from shared.dataset.recipe import Recipe
from shared.media.decode import Media, MediaError, resample
from shared.media.faces import Faces, crop_faces, detector, find_faces, smooth
from shared.media.quality import audio_quality, clip_quality, text_quality, vision_quality
from shared.media.storage import decode_jpeg, encode_jpeg, from_int16, to_int16
from shared.media.transcribe import recogniser, transcribe

POSED = 8
"""Crops, about, of which a clip's pose is judged."""


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
    """In words: why it failed, why each modality is missing, what else a person should know."""
    digest: str = ""
    """Of the row's content."""
    quality: list[float | None] = field(default_factory=list)
    """The columns of shared.media.quality.CLIP_QUALITY; empty when it failed."""
    content: str = ""
    """Of its pictures and sound alone: equal where those are; "" without any."""
    longer: bool = False
    """Whether it goes on after `max_seconds`."""


def failed(clip: Clip, reason: str) -> Verdict:
    """The verdict on a clip that gives no row: one without words."""
    detail = "; ".join([reason, *clip.remarks])
    return Verdict(clip.id, str(clip.media or ""), "failed", ["vision", "audio", "text"], detail)


def prepare_clip(clip: Clip, recipe: Recipe, transcripts: Path | None = None) -> tuple[dict | None, Verdict]:
    """A row (None when it failed; columns: see clip_dataset.py) and the verdict. Media problems never raise.

    transcripts: folder in which transcripts made here are kept."""
    try:
        found = gather(clip, recipe.frame_rate, recipe.max_seconds, recipe.max_side, recipe.frame_size)
    except MediaError as error:
        return prepare_words(clip, recipe, str(error))
    return _row(clip, found, recipe, transcripts)


def prepare_words(clip: Clip, recipe: Recipe, reason: str) -> tuple[dict | None, Verdict]:
    """Row and verdict of a clip whose files give nothing, for this reason: its words stay, without them it failed."""
    if not clip.transcript:
        return None, failed(clip, reason)
    return _row(clip, words_alone(clip, reason), recipe, None)


def prepare_windows(clip: Clip, recipe: Recipe) -> Iterator[tuple[float, dict | None, str]]:
    """(start in seconds, row, "") of all of a clip that `decode_clip.gather_windows` gives, window after window of
    `recipe.max_seconds`, then (0, None, why) where it, or the rest of it, cannot be used. Words that are given have no
    times: every window has all of them, and where there is none, they are one without picture and sound."""
    given = False
    sizes = recipe.frame_rate, recipe.max_seconds, recipe.max_side, recipe.frame_size
    try:
        for found in gather_windows(clip, *sizes):
            yield found.media.start, _row(clip, found, recipe, None)[0], ""
            given = True
    except MediaError as error:
        words, _ = (None, None) if given else prepare_words(clip, recipe, str(error))
        if words is not None:
            yield 0.0, words, ""
        yield 0.0, None, str(error)


def _row(clip: Clip, found: Material, recipe: Recipe, transcripts: Path | None) -> tuple[dict, Verdict]:
    media = found.media
    words, absent = clip.transcript or "", dict(media.absent)
    if not words:
        absent["text"] = "no transcript"
        if recipe.transcribe and len(media.waveform):
            listener = recogniser(recipe.transcribe)
            words, absent["text"] = transcribe(media.waveform, media.sample_rate, listener, transcripts)
    vision, faces = _vision(found, recipe)
    row = {
        "id": clip.id,
        "split": clip.split,
        "duration": float(media.duration),
        "transcript": words,
        "labels": [float(np.float32(value)) for value in clip.labels],
        **{f"group_{name}": value for name, value in clip.groups.items()},
        **vision,
        **_audio(media, recipe),
        "text_quality": text_quality(words).tolist(),
    }
    return row, _verdict(clip, row, found, faces, absent)


def _vision(found: Material, recipe: Recipe) -> tuple[dict, Faces | None]:
    """Columns of the pictures, and the face that was followed; None where the pictures are crops already."""
    _one_thread()
    crops, seen, faces = found.media.frames, np.ones(len(found.media.frames), bool), None
    if not found.cropped:
        faces = find_faces(crops, recipe.face_every, detector(recipe.detector))
        upright = np.rot90(crops, faces.turns, axes=(1, 2))  # (T, H, W, 3)
        crops, seen = crop_faces(upright, smooth(faces.boxes, recipe.frame_rate), recipe.frame_size), faces.found
    jpegs = [encode_jpeg(crop) for crop in crops]
    # Of what is stored, so that whoever reads the dataset computes the same.
    stored = np.stack([decode_jpeg(jpeg) for jpeg in jpegs]) if jpegs else crops
    columns = {
        "frames": jpegs,
        "frame_times": found.media.frame_times.tolist(),
        "vision_quality": vision_quality(stored, seen).tobytes(),
    }
    return columns, faces


def _audio(media: Media, recipe: Recipe) -> dict:
    sounds = {rate: to_int16(resample(media.waveform, media.sample_rate, rate)) for rate in recipe.sample_rates}
    rate = max(recipe.sample_rates)  # the one that has lost least
    return {
        **{f"waveform_{rate}": samples.tobytes() for rate, samples in sounds.items()},
        "audio_quality": audio_quality(from_int16(sounds[rate]), rate).tobytes(),
    }


def _verdict(clip: Clip, row: dict, found: Material, faces: Faces | None, absent: dict[str, str]) -> Verdict:
    """ok or partial, and what a person should know. Missing words alone leave a clip ok: see prepare.py."""
    media = found.media
    lacking = {"vision": not len(media.frames), "audio": not len(media.waveform), "text": not row["transcript"]}
    missing = [name for name, lacks in lacking.items() if lacks]
    short = {"vision": "no picture", "audio": "no sound", "text": "no words"}
    wrong = [f"{short[name]}: {absent[name]}" for name in missing if name != "text"] + found.remarks
    if faces is not None and len(media.frames) and not faces.found.any():
        wrong.append("no face found; the middle of the picture is kept")
    if media.cancelled:
        wrong.append("the channels of its sound cancel each other; their mean, which is heard, is silent")
    if media.damaged_packets:
        wrong.append(f"{media.damaged_packets} damaged packets left out")
    notes = [f"{short['text']}: {absent['text']}"] if "text" in missing else []
    if faces is not None and faces.turns:
        notes.append(f"people lay on their side; turned by {90 * faces.turns} degrees")
    if faces is not None and faces.others:
        notes.append(f"{1 + faces.others} faces: {_where(faces, media)} is followed, the largest and most persistent")
    if media.more:
        notes.append(f"longer than {media.duration:g} s, of which the rest is left out")
    looks = np.arange(len(row["frames"])) if faces is None else np.flatnonzero(faces.found)
    some = [decode_jpeg(row["frames"][i]) for i in looks[:: max(1, len(looks) // POSED)]]
    quality = clip_quality(row, media.frames.shape[1:3], faces, some)
    word = "partial" if wrong else "ok"
    detail = "; ".join(wrong + notes)
    heard = {name: value for name, value in row.items() if name in ("frames", "frame_times") or "waveform" in name}
    content = "" if {"vision", "audio"} <= set(missing) else row_digest(heard)
    about = str(clip.media or ""), word, missing, detail
    return Verdict(clip.id, *about, row_digest(row), quality, content, media.more)


def _where(faces: Faces, media: Media) -> str:
    height, width = media.frames.shape[1:3][:: -1 if faces.turns % 2 else 1]
    x, y = np.mean(faces.boxes[faces.found], axis=0)[:2] / (width, height)
    return f"the one {x:.0%} from the left and {y:.0%} from the top"


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


@functools.cache
def _one_thread() -> None:
    """OpenCV's threads would fight the other processes for the cores."""
    import multiprocessing

    if multiprocessing.parent_process() is not None:
        import cv2

        cv2.setNumThreads(1)
