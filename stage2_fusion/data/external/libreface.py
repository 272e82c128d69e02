"""LibreFace (Chang et al. 2024, WACV): action units and head pose of every frame, one CSV a video.

    frame_idx,frame_time_in_ms,pitch,yaw,roll,lm_mp_0_x,...,au_1,...,au_1_intensity,...,facial_expression

Names and units follow its Python package (libreface/__init__.py, libreface/utils.py). It states no confidence; a frame
without a face has no numbers. facial_expression is a word and is not read.
"""

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
    read_frame,
    values,
)
from stage2_fusion.data.external.tracks import Track, Wanted

TIME = "frame_time_in_ms"
UNITS = tuple(f"au_{unit}{kind}" for unit in range(1, 47) for kind in ("", "_intensity"))
COLUMNS = ("frame_idx", TIME, "pitch", "yaw", "roll", *UNITS)
OWN = ("au_*", "pitch", "yaw", "roll", "gaze_*")
"""Columns that describe behavior. Landmarks say where a face is and who it is."""


class LibreFace:
    title = "LibreFace"
    modalities: Sequence[str] = ("vision",)

    def recognizes(self, file: Sniffed) -> bool:
        names = {*as_written(file.header, COLUMNS)}
        return TIME in names and any(unit in names for unit in UNITS)

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        frame = read_frame(Sniffed(path), COLUMNS)
        columns = wanted.columns(numeric_columns(frame), OWN, (), str(path))
        if not columns:
            raise UserError(f"{path}: holds no action units or head pose")
        rows = Rows(
            values=values(frame, columns, path),
            columns=columns,
            usable=np.ones(len(frame), bool),
            times=numbers(frame, [TIME])[:, 0] / 1000 if TIME in frame else None,
            names=clip_names(frame, path, wanted),
        )
        return rows.tracks(path, name)

    def how(self, modality: str) -> str:
        return "libreface --input_path=clip.mp4 --output_path=libreface/clip.csv"
