"""openSMILE (Eyben et al. 2010, ACM MM): functionals, one row a clip, or low-level descriptors, a hundred a second.

SMILExtract    name;frameIndex;frameTime;frameLength;F0...    the first four are optional, 'names' stand in quotation
                                                              marks (src/iocore/csvSink.cpp)
opensmile      file,start,end,F0...                           the index of the Python package: "0 days 00:00:00.020000"

One file may hold several clips. The time of functionals is the middle of the segment that they describe.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.tables.columns import is_not_label, normalize_name
from stage2_fusion.data.external.openface import ACTION_UNIT
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.times import repeats
from stage2_fusion.data.external.tool_csv import (
    NAMES,
    Rows,
    clip_names,
    numbers,
    numeric_columns,
    read_frame,
    texts,
    values,
)
from stage2_fusion.data.external.tracks import EVERY, Track, Wanted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "frameIndex", "frameTime", "frameLength", "file", "start", "end")
ROLES = (
    *(*COLUMNS, "class", "label"),
    *("Unnamed: *", "__index_level_*", ""),
)
DESCRIPTOR = re.compile(r"_sma|_de\b|semitone|^pcm_|^mfcc|^F0|^audspec", re.IGNORECASE)
NUMBERED = re.compile(r"(.*)_(\d+)")
"""A name that SMILExtract numbers row by row (instanceBase)."""


class OpenSmile:
    title = "openSMILE"
    modalities: Sequence[str] = ("audio",)

    def recognizes(self, file: Sniffed) -> bool:
        header = file.header
        if any(ACTION_UNIT.fullmatch(name) for name in header):  # OpenFace's, written like openSMILE's (AVEC)
            return False
        if "frameTime" in header or "frameIndex" in header or file.suffix == ".arff":
            return True
        columns = [name for name in header if not any(fnmatchcase(name, role) for role in ROLES)]
        return len(header) > 1 and sum(bool(DESCRIPTOR.search(name)) for name in columns) > len(columns) / 2

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        file = Sniffed(path)
        if file.suffix == ".arff":
            raise UserError(f"{path}: ARFF is not read; run SMILExtract with -csvoutput, or -lldcsvoutput")
        frame = read_frame(file, COLUMNS)
        others = [escape(each) for each in frame.columns if normalize_name(each) in NAMES or is_not_label(each)]
        columns = wanted.columns(numeric_columns(frame), EVERY, [*ROLES, *others], str(path))
        if not columns:
            raise UserError(f"{path}: holds no descriptors")
        names = _names(frame, path, wanted)
        times = _times(frame, path, names)
        descriptors = values(frame, columns, path)  # (N, C)
        if names is not None and not any(names) and (clips := _count(times, descriptors)) > 1:
            raise UserError(
                f"{path}: {clips} clips without a name; run SMILExtract with -instname clip, or write a file for each"
            )
        rows = Rows(
            values=descriptors,
            columns=columns,
            usable=np.ones(len(frame), bool),
            times=times,
            names=names,
        )
        return rows.tracks(path, name)

    def how(self, modality: str) -> str:
        return "SMILExtract -C eGeMAPSv02.conf -I clip.wav -csvoutput opensmile/clip.csv"


def _names(frame: "pd.DataFrame", path: Path, wanted: Wanted) -> list[str] | None:
    """The clip of each row; "" for the name that SMILExtract writes without -instname. The column may have another name
    than in SMILExtract and its package."""
    column = next((name for name in ("file", "name") if name in frame), None)
    names = clip_names(frame, path, wanted) if column is None else texts(frame, column)
    if names is None:
        return None
    counted = [NUMBERED.fullmatch(name) for name in names]
    if len(names) > 1 and all(match and int(match[2]) == i for i, match in enumerate(counted)):
        names = [match[1] for match in counted if match]
    return ["" if name in ("unknown", "noname") else name for name in names]


def _times(frame: "pd.DataFrame", path: Path, names: list[str] | None) -> np.ndarray | None:
    """Seconds (N,) of the rows; None for functionals, which describe a whole clip, and without a column of times."""
    clips = len({*names}) if names else 1
    if "start" in frame:
        start = seconds(frame, "start", path)  # (N,)
        if len(frame) == clips and not start.any():  # functionals of whole clips
            return None
        end = seconds(frame, "end", path) if "end" in frame else start
        return np.where(np.isnan(end), start, (start + end) / 2)
    if "frameTime" not in frame or len(frame) == clips:
        return None
    times = numbers(frame, ["frameTime"])[:, 0]
    return times + (numbers(frame, ["frameLength"])[:, 0] / 2 if "frameLength" in frame else 0)


def _count(times: np.ndarray | None, descriptors: np.ndarray) -> int:
    """The number of clips in rows at `times` (N,) with descriptors (N, C): times grow within a clip, so a new clip
    begins when they go back. Rows repeated by a second run of the tool do not count as another clip."""
    if times is None or not np.diff(times).any():
        return len(descriptors)
    return 1 + int((np.diff(times[~repeats(times, descriptors)]) < 0).sum())


def seconds(frame: "pd.DataFrame", name: str, path: Path) -> np.ndarray:
    """Seconds (N,) of a column of numbers, or of durations as pandas writes them; NaN for none. UserError for
    others."""
    import pandas as pd

    given = numbers(frame, [name])[:, 0]
    if np.isfinite(given).any():
        return given
    given = pd.to_timedelta(frame[name].astype(str), errors="coerce").dt.total_seconds().to_numpy()
    if not np.isfinite(given).any() and name == "start":
        raise UserError(f"{path}: {name} is {str(frame[name].iloc[0])!r:.40}, no time; write seconds")
    return given
