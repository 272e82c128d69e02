"""OpenFace 2 (Baltrušaitis et al. 2018, FG): action units, gaze and head pose of every frame, one CSV a clip.

    frame, face_id, timestamp, confidence, success, gaze_0_x, ..., pose_Tx, ..., AU01_r, ..., AU01_c, ...

Names and numbers follow a comma and a space (lib/local/Utilities/src/RecorderCSV.cpp). In rows without success all
numbers are 0 or those of the last face, so they count as missing. OpenFace 1 has no face_id; FaceLandmarkVidMulti
writes a row for each face of a frame.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.errors import UserError
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tool_csv import Rows, numbers, one_face, read_csv, texts
from stage2_fusion.data.external.tracks import Track, Wanted

ACTION_UNIT = re.compile(r"AU\d\d_[rc]")
ROLES = ("frame", "face_id", "timestamp", "confidence", "success")
PICTURES = ("face", "confidence")
"""How the header of FaceLandmarkImg begins."""
LEFT_OUT = (*ROLES, "Unnamed: *", "x_*", "y_*", "X_*", "Y_*", "Z_*", "eye_lmk_*", "p_*")
"""Landmarks in pixels and millimeters, and parameters of the face's shape: where a face is and whose it is."""


class OpenFace:
    title = "OpenFace"
    modalities: Sequence[str] = ("vision",)

    def recognizes(self, file: Sniffed) -> bool:
        header = file.header
        found = {"confidence", "success"} <= {*header} and bool({"frame", "timestamp"} & {*header})
        return found or tuple(header[:2]) == PICTURES or self._details(file.path)

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        if self._details(path):
            return []
        file = Sniffed(path)
        if "success" not in file.header:
            raise UserError(f"{path}: OpenFace's output for single pictures, without times; run FeatureExtraction")
        frame = read_csv(path, file.delimiter)
        columns = wanted.columns(frame.columns, LEFT_OUT, str(path))
        if not columns:
            raise UserError(f"{path}: holds no action units, gaze or head pose; run FeatureExtraction -aus -gaze -pose")
        usable = numbers(frame, ["success"])[:, 0] == 1  # (N,)
        confidence = numbers(frame, ["confidence"])[:, 0]
        notes, kept = [], np.ones(len(frame), bool)
        if "face_id" in frame and "frame" in frame:
            kept = one_face(numbers(frame, ["frame"])[:, 0], texts(frame, "face_id"), usable, confidence)
            notes += [] if kept.all() else [f"{(~kept).sum()} rows of other faces are left out"]
        times = numbers(frame, ["timestamp"])[:, 0] if "timestamp" in frame else None
        rows = Rows(
            values=numbers(frame, columns)[kept],
            columns=columns,
            usable=usable[kept],
            times=None if times is None else times[kept],
            confidence=confidence[kept],
            unusable="without success",
            notes=notes,
        )
        return rows.tracks(path, name)

    def how(self, modality: str) -> str:
        return "FeatureExtraction -f clip.mp4 -out_dir openface"

    @staticmethod
    def _details(path: Path) -> bool:
        """Whether a file is what OpenFace writes beside its CSV."""
        return path.name.endswith("_of_details.txt")
