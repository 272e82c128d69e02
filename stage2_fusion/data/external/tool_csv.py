"""Tables as tools write them: large, with numbers in known columns; CSV, or Arrow and parquet converted from it."""

import csv
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.tables.arrow import read_columns
from shared.tables.cells import parse_number
from shared.tables.columns import MEDIA_ROLES, ROW_NUMBERS, USUAL_NAMES, Header, normalize_name
from shared.text import counted, one_line
from stage2_fusion.data.external.sniff import ARROW, Sniffed, names_of
from stage2_fusion.data.external.tracks import Track, Wanted

if TYPE_CHECKING:
    import pandas as pd

NOT_NUMBERS = ("nan(ind)", "-nan(ind)", "-1.#IND", "1.#QNAN", "-inf(ind)")
"""How Windows writes NaN."""
DECIMAL = r"[+-]?\d*,?\d+([eE][+-]?\d+)?"
"""A number with or without a decimal comma."""

NAMES = (
    *dict.fromkeys(name for role in ("id", *MEDIA_ROLES) for name in USUAL_NAMES[role]),
    *("name", "clipid", "videoid", "fileid", "mediaid", "recording", "utterance", "utteranceid"),
    *("segment", "segmentid", "sample", "sampleid", "key"),
)
"""Columns that name clips, without spaces, underscores and capitals; the first one present wins."""
SEGMENTS = ("clipid", "segmentid", "utteranceid")
"""Columns that number the segments of a video."""
TOOLS_NAMES = ("input", "identity")
"""More columns in which tools write names."""
PLAIN_NUMBER = re.compile(r"0|[1-9]\d*")
"""An entry of an index; 0012 is a name."""


def read_frame(file: Sniffed, known: Sequence[str]) -> "pd.DataFrame":
    """The table, with column names without outer spaces, and `known` names in the tool's spelling. Decimal commas,
    which tools and spreadsheets write in much of Europe, become points. Headers among the rows, from a second run of
    the tool, are dropped. UserError, in one line, when the file cannot be read, is cut off within its header or has no
    rows."""
    path = file.path
    frame, has_long_rows = (_arrow_frame(path), False) if file.suffix in ARROW else _parse(file, path)
    if has_long_rows:  # fine if the extra cells are empty; otherwise the columns are ambiguous
        if text := _with_decimal_points(file):
            frame, _ = _parse(file, StringIO("\n" * file.lines_before + text))
        else:
            _refuse_long_rows(file)
    frame.columns = as_written(names_of(frame.columns), known)
    _refuse_repeated(frame, known, path)
    frame = _without_headers(frame)
    if not len(frame):
        raise UserError(f"{path}: a header without rows; make it again")
    return frame if file.suffix in ARROW or file.delimiter == "," else _without_decimal_commas(frame)


def as_written(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names of columns, with `known` names in the tool's spelling, also if their capitals, spaces or underscores were
    changed, or R converted them: it renames " AU01_r" to X.AU01_r."""
    written = {normalize_name(name): name for name in reversed(known)}
    plain = [normalize_name(name.removeprefix("X.")) for name in names]
    return [name if name in known else written.get(key, name) for name, key in zip(names, plain, strict=True)]


def _arrow_frame(path: Path) -> "pd.DataFrame":
    """The columns of an Arrow or parquet file, including those that pandas treats as an index; durations become
    strings, as in a CSV. UserError when it cannot be read."""
    import pandas as pd

    try:
        frame = read_columns(path).to_pandas(ignore_metadata=True)
    except Exception as error:  # Arrow raises errors of many types
        raise UserError(f"{path}: not a readable table ({one_line(error, 120)}); write it again") from None
    for name in frame.columns:
        if pd.api.types.is_timedelta64_dtype(frame[name]):
            frame[name] = frame[name].astype(str)
    return frame


def _parse(file: Sniffed, content: Path | StringIO) -> tuple["pd.DataFrame", bool]:
    """The table as pandas reads it, and whether it has rows with more cells than its header. UserError when it cannot
    be read."""
    import pandas as pd

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", pd.errors.ParserWarning)
            frame = pd.read_csv(
                content,
                sep=file.delimiter,
                skiprows=file.lines_before,
                skipinitialspace=True,
                na_values=list(NOT_NUMBERS),
                index_col=False,
                low_memory=False,
                encoding=file.encoding,
                encoding_errors="replace",
                converters=_texts_of(file.header),
            )
    except (OSError, ValueError, pd.errors.ParserError) as error:  # EmptyDataError is a ValueError
        reason = one_line(error, 160).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{file.path}: not a readable table ({reason}); make it again") from None
    return frame, bool(caught)


def _texts_of(header: Sequence[str]) -> dict[int, Callable[[str], str]]:
    """Converters that keep columns that may name clips as strings: parsed as numbers, 12e4 and 120000 would be the same
    clip, twenty digits would not fit, and NA would be missing."""
    return {i: str.strip for i, name in enumerate(header) if normalize_name(name) in (*NAMES, *TOOLS_NAMES)}


def _with_decimal_points(file: Sniffed) -> str:
    """The text of a file with ", " between cells and decimal commas in its numbers, with decimal points instead; "" for
    any other file."""
    if file.delimiter != ",":
        return ""
    lines = file.path.read_text(encoding=file.encoding, errors="replace").splitlines()[file.lines_before :]
    rows = [line.split(", ") for line in lines if line.strip()]
    if not rows or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return ""
    return "\n".join(", ".join(cell.replace(",", ".") for cell in row) for row in rows)


def _refuse_long_rows(file: Sniffed) -> None:
    """UserError for a row with more cells than the header has."""
    with file.path.open(encoding=file.encoding, errors="replace", newline="") as content:
        for _ in range(file.lines_before):
            next(content)
        reader = csv.reader(content, delimiter=file.delimiter, skipinitialspace=True)
        width = len(next(filter(None, reader), []))
        for row in reader:
            if any(cell.strip() for cell in row[width:]):
                where = f"line {file.lines_before + reader.line_num} has {len(row)} cells, its header {width}"
                raise UserError(f"{file.path}: not a readable table ({where}); make it again")


def _without_headers(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows that do not repeat the names of the first two columns."""
    first = list(frame.columns[:2])
    is_header = np.ones(len(frame), bool)
    for name in first:
        is_header &= (frame[name].astype(str).str.strip() == name).to_numpy(bool)
    return frame[~is_header] if len(first) == 2 and is_header.any() else frame


def _without_decimal_commas(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Replace decimal commas by points in columns that hold only numbers."""
    import pandas as pd

    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name]):
            continue
        cells = frame[name].dropna().astype(str).str.strip()
        if len(cells) and cells.str.contains(",").any() and cells.str.fullmatch(DECIMAL).all():
            frame[name] = pd.to_numeric(cells.str.replace(",", "."))
    return frame


def _refuse_repeated(frame: "pd.DataFrame", names: Sequence[str], path: Path) -> None:
    """UserError when two columns have the same of these names; pandas renames the second one to x.1."""
    for name in names:
        if f"{name}.1" in frame or (frame.columns == name).sum() > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one")


def values(frame: "pd.DataFrame", names: Sequence[str], path: Path) -> np.ndarray:
    """float64 (N, C) of the feature columns. UserError when two have the same name. Other columns may: OpenFace's x_0
    and X_0, if their capitals were changed."""
    _refuse_repeated(frame, names, path)
    return numbers(frame, names)


def numbers(frame: "pd.DataFrame", names: Sequence[str]) -> np.ndarray:
    """float64 (N, C) of these columns, NaN for a cell that is not a number."""
    import pandas as pd

    parts = [pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan) for name in names]
    return np.stack(parts, axis=1) if parts else np.zeros((len(frame), 0))


def numeric_columns(frame: "pd.DataFrame") -> list[str]:
    """The names of the columns that hold numbers, or nothing."""
    import pandas as pd

    def holds_numbers(name: str) -> bool:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) or column.isna().all():
            return True
        return bool(np.isfinite(numbers(frame, [name])).any())

    return [name for name in frame.columns if holds_numbers(name)]


def clip_names(frame: "pd.DataFrame", where: object, wanted: Wanted) -> list[str] | None:
    """The clip of each row, from a column of names; None without one."""
    names = list(frame.columns)
    header = Header(names, str(where))
    if joined := segment_names(header, lambda i: texts(frame, names[i]), wanted):
        return joined
    column = naming_column(header, lambda i: texts(frame, names[i]))
    return None if column is None else texts(frame, names[column])


def segment_names(header: Header, cells: Callable[[int], Sequence[str]], wanted: Wanted) -> list[str]:
    """The clip of each row as video/segment, from the two columns of MMSA's tables, if these name the clips; [] for
    other tables."""
    video, segment = header.first(["videoid"]), header.first(SEGMENTS)
    if video is None or segment is None:
        return []
    names = [f"{first}/{second}" for first, second in zip(cells(video), cells(segment), strict=True)]
    return names if wanted.name_clips({*names}) else []


def naming_column(header: Header, cells: Callable[[int], Sequence[str]]) -> int | None:
    """The column that names the clip of each row: the first of NAMES, unless it only counts the rows and another column
    names each row; otherwise a column without a name, as pandas writes an index, if it holds more than numbers. None
    without one. cells: the strings of a column."""
    candidates = [i for name in NAMES if (i := header.first([name])) is not None]
    named = [i for i in dict.fromkeys(candidates) if any(_is_filled(cell) for cell in cells(i))]
    if named and _counts(cells(named[0])):
        named = [i for i in named if len({*cells(i)}) == len(cells(i)) and not _counts(cells(i))] or named
    if named:
        return named[0]
    indexes = [i for i, name in enumerate(header.names) if ROW_NUMBERS.fullmatch(name)]
    return next((i for i in indexes if any(_is_filled(c) and not PLAIN_NUMBER.fullmatch(c) for c in cells(i))), None)


def _is_filled(cell: str) -> bool:
    value = parse_number(cell)
    return value is None or value == value


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    return len(cells) > 1 and any(
        cell_of == [*cells] for cell_of in ([str(i + first) for i in range(len(cells))] for first in (0, 1))
    )


def texts(frame: "pd.DataFrame", name: str) -> list[str]:
    """The cells of a column as strings, without quotation marks around them; "" = empty."""
    cells = frame[name].astype(str).where(frame[name].notna(), "")
    return [str(cell).strip().strip("'\"") for cell in cells]


@dataclass(eq=False)
class Rows:
    """The N rows of a table of one or more clips."""

    values: np.ndarray
    """(N, C)."""
    columns: list[str]
    usable: np.ndarray
    """bool (N,)."""
    times: np.ndarray | None = None
    """(N,) seconds."""
    confidence: np.ndarray | None = None
    """(N,)."""
    unusable: str = ""
    names: list[str] | None = None
    """N names of clips, "" where a row has none; None for the rows of one clip."""
    notes: list[str] = field(default_factory=list)

    def tracks(self, path: Path, name: str) -> list[Track]:
        """One track per clip, in the order of their first rows. name: see `ExternalFormat.read`."""
        by_name = rows_by_name(self.names or [""] * len(self.values))
        distinct = [each for each in by_name if each]
        if distinct and "" in by_name:
            unnamed = len(by_name.pop(""))
            self.notes = [*self.notes, f"{counted(unnamed, 'row')} without a clip's name left out"]
        own = [name] if name else [path.stem]
        if len(by_name) == 1:
            return [self._track(rows, [*own, *distinct], str(path)) for rows in by_name.values()]
        if len(distinct) == len(self.values):  # means over whole clips
            self.times = None
        return [
            self._track(rows, [each, f"{own[0]}/{each}", f"{own[0]}_{each}"], f"{path}: {each[:80]}")
            for each, rows in by_name.items()
        ]

    def _track(self, rows: np.ndarray, names: list[str], where: str) -> Track:
        return Track(
            names=names,
            where=where,
            values=self.values[rows],
            columns=self.columns,
            times=None if self.times is None else self.times[rows],
            usable=self.usable[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            unusable=self.unusable,
            notes=self.notes,
        )


def rows_by_name(names: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows of each name, int (n,), in the order of their first rows."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    return {name: np.array(own) for name, own in rows.items()}


def one_face(frames: np.ndarray, faces: Sequence[str], usable: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Rows of one face in a table with a row for every face of a frame: bool (N,).

    The face found in the most frames is kept; a tie goes to the higher score. All others are other people. frames: (N,)
    numbers; faces: N names of faces; score: (N,).
    """
    if len(np.unique(frames)) == len(frames):
        return np.ones(len(frames), bool)
    rows = rows_by_name(faces)
    best = max(rows, key=lambda face: (usable[rows[face]].sum(), np.nansum(score[rows[face]])))
    kept = np.zeros(len(frames), bool)
    kept[rows[best]] = True
    return kept
