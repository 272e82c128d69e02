"""The tables of Hume-Vidmimic2, also when something is wrong with them: a bad row costs its labels, not the others."""

import csv
import math
import re
from collections import Counter
from pathlib import Path

from shared.dataset.clip import EMI, Clip
from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.tables.cells import parse_number
from shared.tables.columns import normalize_name
from shared.tables.text_table import guess_delimiter, read_text

NO_LABELS = (math.nan,) * len(EMI)
ROUNDING = 1e-6
"""By which a label may lie outside [0, 1]."""


def clip_id(cell: str) -> str | None:
    """Five digits, however a copy writes them: 00007, 7, 7.0, raw/00007.mp4. Other names stay; None for none."""
    name = cell.strip().replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in MEDIA_SUFFIXES:
        name = stem
    if re.fullmatch(r"\d+(\.0*)?", name):
        return name.split(".")[0].zfill(5)
    return name if name and name.lower() != "nan" and "\ufffd" not in name else None


def read_split(table: Path, is_test: bool) -> tuple[dict[str, Clip], list[str]]:
    """{id: clip without files} and notes. Labels of a row that cannot be read are NaN, and remarked on."""
    name = table.name
    try:
        text = read_text(table, errors="replace")
    except FileNotFoundError:
        return {}, [] if is_test else [f"{name}: not there"]
    except OSError as error:
        return {}, [f"{name}: cannot be read ({error.strerror or error})"]
    lines = [(i + 1, line) for i, line in enumerate(text.splitlines()) if line.strip()]
    if not lines:
        return {}, [f"{name}: empty"]
    delimiter = guess_delimiter(lines[0][1])
    header = _cells(lines[0][1], delimiter)
    columns, notes = _columns(header, name)
    if columns is None:
        return {}, notes
    rows = [_Row(f"{name} line {i}", line, delimiter, len(header)) for i, line in lines]
    rows = rows if notes and header[0][:1].isdigit() else rows[1:]
    clips: dict[str, Clip] = {}
    times = Counter(row.id(columns) for row in rows)
    for row in rows:
        identifier = row.id(columns)
        if identifier is None:
            notes.append(f"{row.where}: names no clip; left out")
            continue
        clip = row.clip(identifier, columns)
        before = clips.get(identifier)
        if before is None:
            clips[identifier] = clip
        elif repr(before.labels) == repr(clip.labels):
            clips[identifier] = _again(before, f"is {times[identifier]} times in {name}", before.labels)
        else:
            said = f"is {times[identifier]} times in {name} with different labels; none is read"
            clips[identifier] = _again(before, said, NO_LABELS)
    if is_test and clips and all(value == 0 for clip in clips.values() for value in clip.labels):
        clips = {key: Clip(key, None, labels=NO_LABELS, remarks=clip.remarks) for key, clip in clips.items()}
        notes.append(f"{name}: zeros throughout, which are no labels")
    if not clips:
        notes.append(f"{name}: no rows")
    return clips, notes


def _again(clip: Clip, remark: str, labels: tuple[float, ...]) -> Clip:
    remarks = clip.remarks if remark in clip.remarks else (*clip.remarks, remark)
    return Clip(clip.id, None, labels=labels, remarks=remarks)


def _cells(line: str, delimiter: str) -> list[str]:
    """One line at a time: a stray quotation mark must not swallow the lines after it."""
    try:
        found = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        found = line.split(delimiter)
    return [cell.strip() for cell in found]


def _columns(header: list[str], name: str) -> tuple[dict[str, int] | None, list[str]]:
    """Position of "Filename" and of the labels, whatever their case; "Empathic Pain" with a space, an underscore or
    neither. None when there is no telling."""
    there = [normalize_name(cell) for cell in header]
    wanted = {column: normalize_name(column) for column in ("Filename", *EMI)}
    found = {column: there.index(word) for column, word in wanted.items() if word in there}
    absent = [column for column in wanted if column not in found]
    if not absent:
        return found, []
    if len(header) == len(wanted) and len(absent) > len(wanted) // 2:
        return {column: i for i, column in enumerate(wanted)}, [
            f"{name}: its header is not readable ({', '.join(header)[:80]}); the official order of columns is assumed"
        ]
    if "Filename" in absent:
        return None, [f"{name}: no column Filename, so its rows are left out (columns: {', '.join(header)[:80]})"]
    return found, [f"{name}: no column for {', '.join(absent)}"]


class _Row:
    """A line of a table of `width` columns."""

    def __init__(self, where: str, line: str, delimiter: str, width: int):
        self.where, self.delimiter, self.width = where, delimiter, width
        self.remarks: list[str] = []
        self.cells = _cells(line, delimiter)
        while len(self.cells) > width and self.cells[-1] == "":
            self.cells.pop()  # a trailing separator
        others = [other for other in ",;\t" if other != delimiter and len(_cells(line, other)) == width]
        if not self.whole and others:
            self.delimiter, self.cells = others[0], _cells(line, others[0])
            self.remarks.append(f"{where}: separated by {others[0]!r}, unlike the header")

    @property
    def whole(self) -> bool:
        return len(self.cells) == self.width

    def id(self, columns: dict[str, int]) -> str | None:
        """None where the row names no clip; of a row that is not whole, digits alone are a name."""
        place = columns["Filename"]
        found = clip_id(self.cells[place]) if place < len(self.cells) else None
        return found if found and (self.whole or found.isdigit()) else None

    def clip(self, identifier: str, columns: dict[str, int]) -> Clip:
        """With the row's labels; NaN, with a remark, for those that are no shares of raters."""
        remarks = list(self.remarks)
        if not self.whole:
            remarks.append(f"{self.where}: {len(self.cells)} cells instead of {self.width}; labels not read")
            return Clip(identifier, None, labels=NO_LABELS, remarks=tuple(remarks))
        labels = []
        for column in EMI:
            cell = self.cells[columns[column]] if column in columns else ""
            value = parse_number(cell.replace(",", ".") if self.delimiter == ";" else cell)
            if value is None or value < -ROUNDING or value > 1 + ROUNDING:
                remarks.append(f"{self.where}: {column} is {cell!r}, no number in [0, 1]; not read")
                value = math.nan
            elif math.isnan(value) and column in columns:
                remarks.append(f"{self.where}: {column} is empty")
            labels.append(value if math.isnan(value) else min(1.0, max(0.0, value)))
        return Clip(identifier, None, labels=tuple(labels), remarks=tuple(remarks))
