"""Prepare one clip: decode it, track and crop the face, transcribe it, measure its quality, and build its row."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.decode_clip import DecodedClip, decode_clip, decode_clip_windows, undecoded_clip
from shared.dataset.recipe import Recipe
from shared.dataset.verdicts import Verdict, failed
from shared.media.decode import Media, MediaError
from shared.media.faces import FaceTrack, crop_clip, load_detector
from shared.media.quality import audio_quality, clip_quality, text_quality, vision_quality
from shared.media.remarks import Remark, Remarks, note_lines, problem_lines
from shared.media.storage import decode_jpeg, encode_jpeg, from_int16, to_int16
from shared.media.transcribe import load_recognizer, transcribe
from shared.media.waveform import resample
from shared.text import has_words, repair_surrogates

POSE_CROPS = 8
"""Approximate number of crops to measure a clip's pose from."""
NOT_PRESENT = {"vision": "no video", "audio": "no audio", "text": "no transcript"}

Row = dict[str, Any]
"""A row of the clip dataset; columns: see clip_dataset.py."""

NO_FACE = Remark("no face found; using a center crop", is_problem=True)
DAMAGED = Remark("{} damaged packet(s) left out", is_problem=True)
SEVERAL_FACES = Remark("several faces: the largest and most persistent is followed")


class PreparedWindow(NamedTuple):
    """A window of a recording, or None and the reason why it or the rest of the recording cannot be used."""

    start: float
    """Seconds of the recording before it."""
    row: Row | None
    reason: str
    remarks: Remarks = Remarks()
    """What was repaired, chosen or left out."""


def prepare_clip(clip: Clip, recipe: Recipe, transcripts: Path | None = None) -> tuple[Row | None, Verdict]:
    """The row of a clip, None if it failed, and the verdict. Never raises because of a file's content.

    transcripts: folder that caches transcripts made here.
    """
    try:
        decoded = decode_clip(clip, recipe)
    except MediaError as error:
        return prepare_from_transcript(clip, recipe, str(error))
    return clip_row(clip, decoded, recipe, transcripts)[:2]


def prepare_from_transcript(clip: Clip, recipe: Recipe, reason: str) -> tuple[Row | None, Verdict]:
    """Fall back to the transcript if media is unusable; fail if there is none."""
    if not has_words(clip.transcript):
        return None, failed(clip, reason)
    return clip_row(clip, undecoded_clip(clip, reason), recipe)[:2]


def prepare_windows(clip: Clip, recipe: Recipe, max_seconds: float | None = None) -> Iterator[PreparedWindow]:
    """Prepare all of a recording in windows of `recipe.max_seconds`, or the windows that begin in its first
    `max_seconds`.

    If the recording or the rest of it cannot be used, a window without a row follows. A given transcript has no times,
    so each window contains all of it; if no window can be decoded, there is one window with only the transcript.
    """
    any_window = False
    try:
        for decoded in decode_clip_windows(clip, recipe):
            if max_seconds is not None and decoded.media.start >= max_seconds:
                yield PreparedWindow(decoded.media.start, None, f"longer than {max_seconds:g} s: the rest is left out")
                return
            row, remarks = window_row(clip, decoded, recipe)
            yield PreparedWindow(decoded.media.start, row, "", remarks)
            any_window = True
    except MediaError as error:
        words = None if any_window else prepare_from_transcript(clip, recipe, str(error))[0]
        if words is not None:
            yield PreparedWindow(0.0, words, "")
        yield PreparedWindow(0.0, None, str(error))


def clip_row(
    clip: Clip, decoded: DecodedClip, recipe: Recipe, transcripts: Path | None = None
) -> tuple[Row, Verdict, Remarks]:
    """Row and verdict of a decoded clip, and the remarks that apply to both a window and a whole recording."""
    row, faces, reasons = _row(clip, decoded, recipe, transcripts)
    return row, _verdict(clip, row, decoded, faces, reasons), _remarks(clip, decoded, faces, reasons)


def window_row(clip: Clip, decoded: DecodedClip, recipe: Recipe) -> tuple[Row, Remarks]:
    """The same without the verdict, which a window does not need."""
    row, faces, reasons = _row(clip, decoded, recipe)
    return row, _remarks(clip, decoded, faces, reasons)


def _row(
    clip: Clip, decoded: DecodedClip, recipe: Recipe, transcripts: Path | None = None
) -> tuple[Row, FaceTrack | None, dict[str, str]]:
    """The row, the tracked face, and why modalities are missing."""
    media = decoded.media
    transcript, reasons = repair_surrogates(clip.transcript or ""), dict(media.absence_reasons)
    if not has_words(transcript):
        reasons["text"] = f"no transcript: {transcript[:20]!r} says nothing" if transcript else "no transcript"
        transcript = ""
        if recipe.transcribe and len(media.waveform):
            model = load_recognizer(recipe.transcribe)
            transcript, reasons["text"] = transcribe(media.waveform, media.sample_rate, model, transcripts)
    vision, faces = _vision_columns(decoded, recipe)
    row = {
        "id": clip.id,
        "split": clip.split,
        "duration": float(media.duration),
        "transcript": transcript,
        "labels": [float(np.float32(value)) for value in clip.labels],
        **{f"group_{name}": value for name, value in clip.groups.items()},
        **vision,
        **_audio_columns(media, recipe),
        "text_quality": text_quality(transcript).tolist(),
    }
    return row, faces, reasons


def _vision_columns(decoded: DecodedClip, recipe: Recipe) -> tuple[Row, FaceTrack | None]:
    """Columns of the frames, and the tracked face; None if the frames are already face crops."""
    _limit_threads()
    crops, faces = decoded.media.frames, None
    face_found = np.ones(len(crops), bool)  # (T,)
    if not decoded.cropped:
        detector, rate, size = load_detector(recipe.detector), recipe.frame_rate, recipe.frame_size
        crops, faces = crop_clip(crops, recipe.face_every, detector, rate, size)  # crops (T, size, size, 3)
        face_found = faces.detected
    jpegs = [encode_jpeg(crop) for crop in crops]
    # Quality is measured on the stored crops, so that it can be recomputed from the dataset.
    stored = np.stack([decode_jpeg(jpeg) for jpeg in jpegs]) if jpegs else crops
    columns = {
        "frames": jpegs,
        "frame_times": decoded.media.frame_times.tolist(),
        "vision_quality": vision_quality(stored, face_found).tobytes(),
    }
    return columns, faces


def _audio_columns(media: Media, recipe: Recipe) -> Row:
    waveforms = {rate: to_int16(resample(media.waveform, media.sample_rate, rate)) for rate in recipe.sample_rates}
    rate = max(recipe.sample_rates)  # the highest rate has the least loss
    return {
        **{f"waveform_{rate}": samples.tobytes() for rate, samples in waveforms.items()},
        "audio_quality": audio_quality(from_int16(waveforms[rate]), rate).tobytes(),
    }


def _verdict(clip: Clip, row: Row, decoded: DecodedClip, faces: FaceTrack | None, reasons: dict[str, str]) -> Verdict:
    """ok or partial, with the reason. A clip that lacks only a transcript stays ok; see `require_transcripts`."""
    media = decoded.media
    is_missing = {"vision": not len(media.frames), "audio": not len(media.waveform), "text": not row["transcript"]}
    missing = [name for name, value in is_missing.items() if value]
    expected = [name for name in missing if name == "text" or not clip.words_alone]
    problems, notes = _problems(decoded, expected, faces, reasons), _notes(media, missing, faces, reasons)
    face_frames = np.arange(len(row["frames"])) if faces is None else np.flatnonzero(faces.detected)
    crops = [decode_jpeg(row["frames"][i]) for i in face_frames[:: max(1, len(face_frames) // POSE_CROPS)]]
    content = {name: value for name, value in row.items() if name in ("frames", "frame_times") or "waveform" in name}
    return Verdict(
        id=clip.id,
        media=str(clip.media or ""),
        verdict="partial" if problems else "ok",
        missing=missing,
        detail="; ".join(problems + notes),
        digest=row_digest(row),
        quality=clip_quality(row, min(media.frames.shape[1:3]), faces, crops),
        content="" if {"vision", "audio"} <= set(missing) else row_digest(content),
        longer=media.more,
        has_remarks=bool(media.remarks),
    )


def _problems(decoded: DecodedClip, missing: list[str], faces: FaceTrack | None, reasons: dict[str, str]) -> list[str]:
    """What makes a clip partial."""
    media = decoded.media
    problems = [_missing(name, reasons) for name in missing if name != "text"] + decoded.problems
    if faces is not None and len(media.frames) and not faces.detected.any():
        problems.append(NO_FACE.text)
    if media.damaged_packets:
        problems.append(f"{media.damaged_packets} damaged packets left out")
    return problems + problem_lines(media.remarks)


def _remarks(clip: Clip, decoded: DecodedClip, faces: FaceTrack | None, reasons: dict[str, str]) -> Remarks:
    """Remarks with amounts that add up over the windows of a recording."""
    media = decoded.media
    held = {} if clip.words_alone else {"vision": len(media.frames), "audio": len(media.waveform)}
    texts = [_missing(name, reasons) for name, count in held.items() if not count] + decoded.problems
    remarks = Remarks({Remark(text, is_problem=True): 1 for text in texts})
    if faces is not None and len(media.frames) and not faces.detected.any():
        remarks[NO_FACE] = 1
    if media.damaged_packets:
        remarks[DAMAGED] = media.damaged_packets
    if faces is not None and faces.quarter_turns:
        remarks[Remark(_turned(faces))] = 1
    if faces is not None and faces.other_faces:
        remarks[SEVERAL_FACES] = 1
    return remarks + media.remarks


def _turned(faces: FaceTrack) -> str:
    return f"faces are on their side: frames rotated by {90 * faces.quarter_turns} degrees"


def _missing(name: str, reasons: dict[str, str]) -> str:
    """The line that a modality is missing, and why."""
    what, reason = NOT_PRESENT[name], reasons[name]
    return reason if reason.startswith(what) else f"{what}: {reason}"


def _notes(media: Media, missing: list[str], faces: FaceTrack | None, reasons: dict[str, str]) -> list[str]:
    """What a person should know about a clip without a problem."""
    notes = [_missing("text", reasons)] if "text" in missing else []
    notes += note_lines(media.remarks)
    if faces is not None and faces.quarter_turns:
        notes.append(_turned(faces))
    if faces is not None and faces.other_faces:
        height, width = media.frames.shape[1:3][:: -1 if faces.quarter_turns % 2 else 1]
        x, y = np.mean(faces.boxes[faces.detected], axis=0)[:2] / (width, height)
        position = f"the one {x:.0%} from the left and {y:.0%} from the top"
        notes.append(f"{1 + faces.other_faces} faces: {position} is followed, the largest and most persistent")
    if media.more:
        notes.append(f"longer than {media.duration:g} s: the rest is left out")
    return notes


def row_digest(row: Row) -> str:
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
def _limit_threads() -> None:
    """Stop OpenCV's threads in worker processes from competing for the cores."""
    import multiprocessing

    if multiprocessing.parent_process() is not None:
        import cv2

        cv2.setNumThreads(1)
