"""Py-Feat (Cheong et al. 2023, Affective Science 4): action units, emotions and head pose of every frame, one CSV a
video.

    frame,FaceRectX,...,FaceScore,x_0,...,Pitch,Roll,Yaw,AU01,...,anger,...,input,approx_time,Identity

approx_time is in whole seconds, as 01:23, so the frame rate is estimated from all of them; in clips shorter than a
second, the rows are spread over the clip. A frame without a face is a row without FaceScore; a frame with several faces
has a row for each. If the column FaceScore was removed, a frame without a face is a row without numbers.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from stage2_fusion.data.action_units import BLENDSHAPES
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tool_csv import (
    Rows,
    as_written,
    numbers,
    numeric_columns,
    one_face,
    read_frame,
    rows_by_name,
    texts,
    values,
)
from stage2_fusion.data.external.tracks import Track, Wanted

if TYPE_CHECKING:
    import pandas as pd

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
LATER_EMOTIONS = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")
OWN = (
    *("AU[0-9][0-9]", "Pitch", "Roll", "Yaw", "gaze_*", "valence", "arousal"),
    *(*EMOTIONS, *LATER_EMOTIONS, *BLENDSHAPES),
)
"""Columns of all its detectors that describe behavior. Landmarks, the face box and the identity embedding say where a
face is and who it is."""
COLUMNS = (
    *("frame", "input", "time", "approx_time", "Identity", "FaceScore", "Pitch", "Roll", "Yaw", "valence", "arousal"),
    *(*(f"AU{unit:02d}" for unit in range(1, 47)), *EMOTIONS, *LATER_EMOTIONS),
)
UNIT = re.compile(r"AU\d\d")
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


class PyFeat:
    title = "Py-Feat"
    modalities: Sequence[str] = ("vision",)

    def recognizes(self, file: Sniffed) -> bool:
        names = {*as_written(file.header, COLUMNS)}
        units = sum(bool(UNIT.fullmatch(name)) for name in names)
        return ("FaceScore" in names and len(names) > 2) or (units > 1 and {"frame", "input"} <= names)

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        frame = read_frame(Sniffed(path), COLUMNS)
        columns = wanted.columns(numeric_columns(frame), OWN, (), str(path))
        if not columns:
            raise UserError(f"{path}: holds no action units, emotions or head pose")
        names = texts(frame, "input") if "input" in frame else None
        has_score = "FaceScore" in frame
        score = numbers(frame, ["FaceScore"])[:, 0] if has_score else _complete_rows(frame, columns)  # (N,)
        kept, times, notes = np.ones(len(frame), bool), np.full(len(frame), np.nan), []
        for own in rows_by_name(names or [""] * len(frame)).values():
            part, seconds = frame.iloc[own], _times(frame.iloc[own])
            kept[own] = _main_face(part, score[own])
            times[own] = np.nan if seconds is None else seconds
        notes += [] if kept.all() else [f"{(~kept).sum()} rows of other faces are left out"]
        rows = Rows(
            values=values(frame, columns, path)[kept],
            columns=columns,
            usable=(score > 0)[kept],  # NaN or 0 without a face
            times=None if np.isnan(times).all() else times[kept],
            confidence=score[kept] if has_score else None,
            unusable="without a face",
            names=[name for name, keep in zip(names, kept, strict=True) if keep] if names else None,
            notes=notes,
        )
        return rows.tracks(path, name)

    def how(self, modality: str) -> str:
        return "python -c \"from feat import Detector; Detector().detect_video('clip.mp4').to_csv('pyfeat/clip.csv')\""


def _complete_rows(frame: "pd.DataFrame", columns: Sequence[str]) -> np.ndarray:
    """A substitute for FaceScore (N,): 1 for a row with numbers in all columns, NaN for others."""
    return np.where(np.isfinite(numbers(frame, columns)).all(axis=1), 1.0, np.nan)


def _main_face(frame: "pd.DataFrame", score: np.ndarray) -> np.ndarray:
    """bool (N,): one row per frame, of the person seen most; without identities, of the face with the highest score."""
    if "frame" not in frame:
        return np.ones(len(frame), bool)
    number = numbers(frame, ["frame"])[:, 0]
    if "Identity" in frame and frame["Identity"].notna().any():
        kept = one_face(number, texts(frame, "Identity"), np.isfinite(score), score)
        return kept | ~np.isfinite(score)  # rows without a face have no identity
    best: dict[float, int] = {}
    for row, frame_number in enumerate(number):
        current = best.get(frame_number)
        if current is None or np.nan_to_num(score[row], nan=-1) > np.nan_to_num(score[current], nan=-1):
            best[frame_number] = row
    kept = np.zeros(len(frame), bool)
    kept[[*best.values()]] = True
    return kept


def _times(frame: "pd.DataFrame") -> np.ndarray | None:
    """Seconds (N,) of the rows of a video; None if no column holds them."""
    column = next((name for name in ("time", "approx_time") if name in frame), None)
    if column is None:
        return None
    given = numbers(frame, [column])[:, 0]
    if np.isfinite(given).any():
        return given
    clocks = [CLOCK.fullmatch(text) for text in texts(frame, column)]
    whole = np.array([float(m[1] or 0) * 3600 + float(m[2]) * 60 + float(m[3]) if m else np.nan for m in clocks])
    if "frame" not in frame or np.isnan(whole).all() or (whole % 1 > 0).any():
        return None if np.isnan(whole).all() else whole
    return timed_frames(numbers(frame, ["frame"])[:, 0], whole)


def timed_frames(number: np.ndarray, whole: np.ndarray) -> np.ndarray | None:
    """Seconds (N,) of frames from their numbers (N,) and their times in whole seconds, rounded down (N,): the rate is
    the middle of the range that fits all frames. None for less than a second, which does not determine the rate, and if
    no rate fits."""
    known = np.isfinite(number) & np.isfinite(whole)
    low = max((number[known] / (whole[known] + 1)).max(initial=0), 1e-9)
    late = known & (whole > 0)
    if not late.any():
        return None
    high = (number[late] / whole[late]).min()
    return None if high < low else number / ((low + high) / 2)
