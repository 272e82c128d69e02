"""OpenFace 2 (Baltrušaitis et al. 2018, FG): action units, gaze and head pose of every frame, one CSV a clip.

    frame, face_id, timestamp, confidence, success, gaze_0_x, ..., pose_Tx, ..., AU01_r, ..., AU01_c, ...

Cells are separated by a comma and a space (lib/local/Utilities/src/RecorderCSV.cpp). Rows without success hold zeros or
the numbers of the last face, so they count as missing. OpenFace 1 has no face_id; FaceLandmarkVidMulti writes a row for
each face of a frame.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.errors import UserError
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tool_csv import (
    Rows,
    as_written,
    clip_names,
    numbers,
    numeric_columns,
    one_face,
    read_frame,
    rows_by_name,
    texts,
    values,
)
from stage2_fusion.data.external.tracks import Track, Wanted

ACTION_UNIT = re.compile(r"AU\d\d_[rc]", re.IGNORECASE)
COLUMNS = (
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *(f"gaze_{which}" for which in ("0_x", "0_y", "0_z", "1_x", "1_y", "1_z", "angle_x", "angle_y")),
    *(f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"),
    *(f"AU{unit:02d}_{kind}" for unit in range(1, 46) for kind in "rc"),
)
"""The columns that are read, with action units that OpenFace might add."""
PICTURES = ("face", "confidence")
"""How the header of FaceLandmarkImg begins."""
OWN = ("gaze_*", "pose_*", "AU[0-9][0-9]_[rc]")
"""Columns that describe behavior. Landmarks, in pixels and millimeters, and face shape parameters say where a face is
and who it is."""


def is_beside(path: Path) -> bool:
    """Whether this is a file that OpenFace writes beside its features."""
    return path.name.endswith("_of_details.txt")


class OpenFace:
    title = "OpenFace"
    modalities: Sequence[str] = ("vision",)

    def recognizes(self, file: Sniffed) -> bool:
        header = as_written(file.header, COLUMNS)
        has_columns = {"confidence", "success"} <= {*header} and bool({"frame", "timestamp"} & {*header})
        return has_columns or tuple(header[:2]) == PICTURES or is_beside(file.path)

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        if is_beside(path):
            raise UserError(
                f"{path}: not the features of OpenFace, but a file beside them; give the CSV, or the folder"
            )
        file = Sniffed(path)
        header = as_written(file.header, COLUMNS)
        if tuple(header[:2]) == PICTURES:
            raise UserError(f"{path}: OpenFace's output for single pictures, without times; run FeatureExtraction")
        if lacking := [each for each in ("confidence", "success") if each not in header]:
            raise UserError(
                f"{path}: has no {' and no '.join(lacking)}, which FeatureExtraction writes; name no format"
            )
        frame = read_frame(file, COLUMNS)
        columns = wanted.columns(numeric_columns(frame), OWN, (), str(path))
        if not columns:
            raise UserError(f"{path}: holds no action units, gaze or head pose; run FeatureExtraction -aus -gaze -pose")
        usable = numbers(frame, ["success"])[:, 0] > 0  # (N,)
        confidence = numbers(frame, ["confidence"])[:, 0]  # (N,)
        names, kept = clip_names(frame, path, wanted), np.ones(len(frame), bool)
        if "face_id" in frame and "frame" in frame:
            faces, number = texts(frame, "face_id"), numbers(frame, ["frame"])[:, 0]
            for own in rows_by_name(names or [""] * len(frame)).values():
                kept[own] = one_face(number[own], [faces[i] for i in own], usable[own], confidence[own])
        rows = Rows(
            values=values(frame, columns, path)[kept],
            columns=columns,
            usable=usable[kept],
            times=numbers(frame, ["timestamp"])[kept, 0] if "timestamp" in frame else None,
            confidence=confidence[kept],
            unusable="without success",
            names=[name for name, keep in zip(names, kept, strict=True) if keep] if names else None,
            notes=[] if kept.all() else [f"{(~kept).sum()} rows of other faces are left out"],
        )
        return rows.tracks(path, name)

    def how(self, modality: str) -> str:
        return "FeatureExtraction -f clip.mp4 -out_dir openface"
