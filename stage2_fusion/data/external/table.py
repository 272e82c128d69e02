"""The user's own tables, in any format that labels may have (shared/tables/formats.py).

A table has one row per clip, named in a column of ids or paths; or, with a column of times, several rows per clip.
Without a column of ids or paths, a table belongs to the clip that it is named after. All columns of numbers are
features, except columns that say who, when or how sure, the labels of the clips, and columns that are not labels either
(age, fold: shared/tables/columns.py). A column of number lists, as pandas writes embeddings, becomes a column for each
number (number_lists.py).
"""

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.tables.arrow import read_rows
from shared.tables.cells import parse_number
from shared.tables.columns import ROW_NUMBERS, Header, is_not_label, normalize_name
from shared.tables.formats import READERS, is_table, read_table
from shared.tables.json_lines import read_json_lines
from shared.tables.text_table import TableRow, TextTable
from shared.text import first_few, one_line
from stage2_fusion.data.external.number_lists import LIST, lists_apart
from stage2_fusion.data.external.sniff import ARROW, TEXT, Sniffed
from stage2_fusion.data.external.tool_csv import Rows, naming_column, segment_names
from stage2_fusion.data.external.tracks import ANY, EVERY, Track, Wanted

TIMES = ("time", "times", "timestamp", "timestamps", "seconds", "frametime")
MILLISECONDS = ("ms", "milliseconds", "timems", "timestampms", "frametimeinms", "timeinms", "timemilliseconds")
FRAMES = ("frame", "frameindex", "frameidx", "framenumber", "frameid")
TARGETS = ("label", "labels", "target", "targets", "class")
NO_FEATURES = (*TIMES, *MILLISECONDS, *FRAMES, *TARGETS, "end", "faceid", "split", "success")
CONFIDENCE = ("confidence", "facescore")
ROLES = (*TIMES, *MILLISECONDS, "start", "end", "success", *CONFIDENCE)
"""Columns that describe the rows."""
TRUTH = {"true": 1.0, "false": 0.0}


class Table:
    title = "a table"
    modalities: Sequence[str] = ANY

    def recognizes(self, file: Sniffed) -> bool:
        return file.suffix in ARROW or (file.suffix in TEXT and is_table(file.path))

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        table = lists_apart(_read(path))
        _refuse_numbers(table.header, path)
        intact = [row for row in table.rows if not row.problem]
        columns_of = [[row.cells[i] for row in intact] for i in range(len(table.header))]
        cells = {each: columns_of[i] for i, each in enumerate(table.header) if each}
        header = Header(table.header, str(path))
        named = naming_column(header, columns_of.__getitem__)
        names = segment_names(header, columns_of.__getitem__, wanted) or (None if named is None else columns_of[named])
        values = {each: _numbers(column) for each, column in cells.items()}
        columns = _features(table, named, values, wanted, str(path))
        roles = {normalize_name(each): values[each] for each in reversed(table.header) if each}
        success, times = roles.get("success"), _times(roles)
        timeless = _timeless(roles) if times is None else []
        rows = Rows(
            values=np.stack([values[each] for each in columns], axis=1),
            columns=columns,
            usable=np.ones(len(intact), bool) if success is None else success == 1,
            times=times,
            confidence=next((roles[n] for n in CONFIDENCE if n in roles and np.isfinite(roles[n]).any()), None),
            unusable="without success",
            names=names,
            notes=table.notes + _damaged(table) + _not_read(table, named, columns, values, wanted) + timeless,
        )
        tracks = rows.tracks(path, name)
        for track in tracks:
            if named is None and not name and len(track.values) > 1:
                track.where += " (no column of ids, so that it is one clip)"
            if len(track.values) == 1:  # its times say when the clip was recorded
                track.times = None
            if names is not None and times is None and len(track.values) > 1:
                track.problem = f"{len(track.values)} rows of one clip, and no column that says their times, in seconds"
        return tracks

    def how(self, modality: str) -> str:
        return ""


def _read(path: Path) -> TextTable:
    """The cells of a table, with lists as strings. UserError when it cannot be read."""
    if path.suffix.lower() in ARROW:
        return _read_arrow(path)
    if READERS.get(path.suffix.lower()) is read_json_lines:
        return read_json_lines(path, lists=True)
    return read_table(path)


def _read_arrow(path: Path) -> TextTable:
    """The rows of an Arrow or parquet file. UserError when it cannot be read."""
    try:
        content = read_rows(path)
    except Exception as error:  # Arrow raises errors of many types
        raise UserError(f"{path}: not a readable table ({one_line(error, 120)}); write it again") from None
    if not content.rows:
        raise UserError(f"{path}: a table without rows; write it again")
    rows = [TableRow(i, [_text(cell) for cell in cells]) for i, cells in enumerate(content.rows, 1)]
    return TextTable(content.header, rows, [])


def _refuse_numbers(header: Sequence[str], path: Path) -> None:
    """UserError for a table without a header: its first row would be lost. pandas names columns 0, 1, 2, ..."""
    named = [each for each in header if each]
    decimals = [each for each in named if _is_of_a_row(each)]
    if decimals and 2 * len(decimals) >= len(named):
        shown = first_few([each[:20] for each in decimals])
        raise UserError(
            f"{path}: begins with numbers ({shown}); add a line with the names of the columns, or save .npy"
        )


def _is_of_a_row(name: str) -> bool:
    """Whether a column name is a number with a decimal point, or several numbers."""
    parts = name.split()
    return ("." in name or len(parts) > 1) and all(parse_number(part) is not None for part in parts)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _numbers(column: list[str]) -> np.ndarray:
    """(N,), NaN for an empty cell or one that is not a number; true and false are 1 and 0."""
    parsed = [TRUTH.get(cell.lower(), parse_number(cell)) for cell in column]
    return np.array([np.nan if value is None else value for value in parsed], np.float64)


def _features(
    table: TextTable, named: int | None, values: dict[str, np.ndarray], wanted: Wanted, where: str
) -> list[str]:
    """The feature columns. UserError when there are none, or a label is requested."""
    numeric = [
        each
        for i, each in enumerate(table.header)
        if each and i != named and not ROW_NUMBERS.fullmatch(each) and np.isfinite(values[each]).any()
    ]
    others = [escape(each) for each in numeric if _is_no_feature(each)]
    columns = wanted.columns(numeric, EVERY, others, where)
    if not columns:
        if lists := [each for each in table.header if each and _holds_lists(table, each)]:
            raise UserError(f"{where}: {_about_lists(lists)}")
        known = first_few([each for each in table.header if each], 6)
        raise UserError(f"{where}: none of its columns ({known}) holds numbers that are features; add them")
    return columns


def _is_no_feature(name: str) -> bool:
    """Whether a column says who, when or how sure by its name, or is a column that is not a label either."""
    return is_not_label(name) or normalize_name(name) in (*NO_FEATURES, *CONFIDENCE)


def _not_read(
    table: TextTable, named: int | None, columns: list[str], values: dict[str, np.ndarray], wanted: Wanted
) -> list[str]:
    """Notes about the columns of numbers that are not features."""
    rest = [
        each
        for i, each in enumerate(table.header)
        if each and i != named and each not in columns and normalize_name(each) not in ROLES
    ]
    others = [each for each in rest if np.isfinite(values[each]).any()]
    labels = [each for each in others if wanted.is_label(each)]
    notes = [f"columns that are labels of the clips are no features: {first_few(labels)}"] if labels else []
    others = [each for each in others if each not in labels]
    notes += [f"columns not read: {first_few(others, 6)}"] if others else []
    lists = [each for each in rest if _holds_lists(table, each)]
    return notes + ([_about_lists(lists)] if lists else [])


def _about_lists(names: list[str]) -> str:
    return (
        f"lists that differ in length, are cut off (...) or hold lists are not read: {first_few(names)}; "
        "write a column a number, or sequences as .npz or parquet"
    )


def _holds_lists(table: TextTable, name: str) -> bool:
    """Whether a column holds lists of numbers, as pandas writes arrays."""
    place = table.header.index(name)
    cells = [cell for row in table.rows if not row.problem and (cell := row.cells[place])]
    return bool(cells) and all(LIST.fullmatch(cell) for cell in cells)


def _times(roles: dict[str, np.ndarray]) -> np.ndarray | None:
    """Seconds (N,) of the rows; None if no column holds them."""
    known = {name: column for name, column in roles.items() if np.isfinite(column).any()}
    if "start" in known and "end" in known:
        return (known["start"] + known["end"]) / 2
    if (milliseconds := next((known[each] for each in MILLISECONDS if each in known), None)) is not None:
        return milliseconds / 1000
    return next((known[each] for each in (*TIMES, "start") if each in known), None)


def _timeless(roles: dict[str, np.ndarray]) -> list[str]:
    """A note about time columns without numbers."""
    empty = [name for name in (*TIMES, *MILLISECONDS, "start") if name in roles]
    return [f"{first_few(empty)}: no numbers of seconds, so that the rows have no times"] if empty else []


def _damaged(table: TextTable) -> list[str]:
    """A note about the rows that are not read."""
    lines = [f"line {row.line} ({row.problem})" for row in table.rows if row.problem]
    return [f"rows not read: {first_few(lines)}"] if lines else []
