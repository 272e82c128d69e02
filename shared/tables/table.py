"""Tables of text: separators, encodings, numbers, and files named in cells."""

import contextlib
import csv
import io
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shared.dataset.media_files import MEDIA_SUFFIXES, media_files
from shared.errors import UserError

NOT_LABELLED = ("", "nan", "na", "n/a", "none", "null")
SPLITS = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid"}
"""What else the splits are called."""
SHOWN = 3
"""Examples in a note."""
LEFT_OPEN = "a quotation mark is left open"


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    line: int
    """In which it begins, counted from 1."""
    cells: list[str]
    """Stripped; as many as there are columns."""
    wrong: str = ""
    """Why cells may stand under the wrong column; "" for a whole row."""


@dataclass
class Table:
    """A table as it was read."""

    header: list[str]
    rows: list[Row]
    notes: list[str]
    """What a person should look at."""


def read_table(table: Path) -> Table:
    """Column names, and the rows that are not blank. A row that has more cells than the header says so; one that has
    fewer is counted in the notes, and empty at its end; a quotation mark left open costs its own row alone. UserError
    when it is not a table, or a name stands twice in its header."""
    try:
        text = read_text(table)
    except FileNotFoundError:
        raise UserError(f"{table}: no such table; name a .csv, or a folder that holds a labels.csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a readable UTF-8 table ({error})") from None
    # A line more: a quotation mark open in the last line goes beyond it.
    lines = [*io.StringIO(text, newline=""), ""]
    at = next((i for i, line in enumerate(lines) if line.strip("\r\n")), 0)
    delimiter = guess_delimiter(lines[at])
    header, taken, wrong = _record(lines, at, delimiter)
    header = [name.strip() for name in header]
    if wrong:
        raise UserError(f"{table}: line {at + 1}: {wrong}; close it")
    twice = [name for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise UserError(f"{table}: two columns are called {twice[0]!r}; rename one")
    rows, odd, short, at = [], [], [], at + taken
    while at < len(lines) - 1:
        cells, taken, wrong = _record(lines, at, delimiter)
        inner = [
            line for line in lines[at + 1 : at + taken] if len(header) > 1 and _fits(_alone(line, delimiter), header)
        ]
        if inner and not _fits(cells, header):  # the quotation mark closes in another row
            cells, taken, wrong = _alone(lines[at], delimiter), 1, LEFT_OPEN
        elif inner:
            odd.append(at + 1)
        if any(cell.strip() for cell in cells):
            if not wrong and len(cells) <= len(header) and not _fits(cells, header):
                short.append(at + 1)
            elif not _fits(cells, header):
                wrong = wrong or f"{len(cells)} cells instead of {len(header)}"
            cells = [cell.strip() for cell in cells[: len(header)]]
            rows.append(Row(at + 1, cells + [""] * (len(header) - len(cells)), wrong))
        at += taken
    if not rows:
        raise UserError(f"{table}: needs a header and at least one row")
    notes = []
    if odd:
        said = f"{len(odd)} rows of several lines hold what looks like further rows, such as line {odd[0]}"
        notes.append(f"{said}; see whether a quotation mark is astray")
    if short:
        said = f"{len(short)} rows have fewer cells than the header, such as line {short[0]}"
        notes.append(f"{said}; those at their ends are taken for empty")
    return Table(header, rows, notes)


def _record(lines: list[str], at: int, delimiter: str) -> tuple[list[str], int, str]:
    """Cells of what begins in line `at`, the lines it takes, and what is wrong with it. A cell in quotation marks may
    have several lines; one whose mark is not closed as it should be has the rest of its own."""
    reader = csv.reader((lines[i] for i in range(at, len(lines))), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num, ""
    except csv.Error:
        return _alone(lines[at], delimiter), 1, LEFT_OPEN if reader.line_num > 1 else ""


def _alone(line: str, delimiter: str) -> list[str]:
    """The cells of a line, whatever its quotation marks."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # longer than csv reads
        return line.split(delimiter)


def _fits(cells: list[str], header: list[str]) -> bool:
    """Whether there are as many cells as columns, blank ones at the end aside."""
    most = max((i + 1 for i, cell in enumerate(cells) if cell.strip()), default=0)
    least = max((i + 1 for i, name in enumerate(header) if name), default=0)
    return most <= len(header) and least <= len(cells)


def read_text(path: Path, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 where the file says so; without the byte order mark."""
    data = Path(path).read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors=errors)
    return data.decode("utf-8-sig", errors=errors)


def guess_delimiter(text: str) -> str:
    """The comma, semicolon or tab of which the first line has most."""
    return max(",;\t", key=text.split("\n", 1)[0].count)


def some(items: list[str], most: int = SHOWN, between: str = ", ") -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return between.join(items[:most]) + more


def plain(name: str) -> str:
    """A column's name without spaces, underscores, hyphens and capitals, in which copies of a table differ."""
    return re.sub(r"[\s_-]", "", name).lower()


def number(cell) -> float | None:
    """The number in a cell; NaN where it says that there is none; None when it is something else."""
    if cell is None or str(cell).strip().lower() in NOT_LABELLED:
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def split_name(cell: str) -> str:
    """train, valid, test or "", whatever a table calls them; other names stay."""
    return SPLITS.get(cell.strip().lower(), cell.strip())


class Finder:
    """Finds media files named in a table; a folder is listed once, however many files are looked for in it."""

    def __init__(self, base: Path):
        self.base, self.listed, self.tails = base, {}, None

    def find(self, name: str) -> Path | None:
        """The file, with the first known extension that exists if it has none; None for an empty name."""
        if not name:
            return None
        path = self.base / name.replace("\\", "/")
        folder = self.listed.get(path.parent)
        if folder is None:
            folder = set()
            with contextlib.suppress(OSError, ValueError):  # ValueError: no folder can be called so
                folder.update(os.listdir(path.parent))
            self.listed[path.parent] = folder
        if path.name in folder:
            return path
        return next((path.parent / (path.name + s) for s in MEDIA_SUFFIXES if path.name + s in folder), path)

    def find_by_id(self, name: str) -> tuple[Path | None, str]:
        """The media file under the folder whose path is `name`, with or without its extension, or the one whose path
        ends so; None, and why, where there are several. Of files that differ in nothing but their extension it is the
        one whose extension comes first, as in `find`."""
        if self.tails is None:
            self.tails = {}
            for path in media_files(self.base):
                for whole in {path, path.with_suffix("")}:
                    for depth in range(len(whole.parts)):
                        self.tails.setdefault("/".join(whole.parts[depth:]), []).append(path)
        found = self.tails.get(name, [])
        # In the folder itself no longer name could tell a file from those further down.
        found = [path for path in found if name in (path.as_posix(), path.with_suffix("").as_posix())] or found
        found = sorted(found, key=lambda path: MEDIA_SUFFIXES.index(path.suffix.lower()))
        files = {path.with_suffix(""): path for path in reversed(found)}
        if len(files) > 1:
            files = {os.path.realpath(self.base / path): path for path in files.values()}  # links to one file
        several = sorted(path.as_posix() for path in files.values())
        if len(several) > 1:
            return None, (
                f"{name!r} may be {some(several)}; none is taken: name it in a path column, or by "
                f"a longer id as {Path(several[0]).with_suffix('').as_posix()}"
            )
        return next((self.base / path for path in files.values()), None), ""
