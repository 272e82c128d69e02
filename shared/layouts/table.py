"""Tables of text: separators, encodings, numbers, and files named in cells."""

import contextlib
import csv
import io
import math
import os
from pathlib import Path, PurePosixPath

from shared.clips import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.layouts.folder import shortest_ids

NOT_LABELLED = ("", "nan", "na", "n/a", "none", "null")
SPLITS = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid"}
"""What else the splits are called."""


def read_table(table: Path) -> tuple[list[str], list[list[str]]]:
    """Column names, and rows as wide as the header, every cell stripped. UserError when it is not a table."""
    try:
        text = read_text(table)
    except FileNotFoundError:
        raise UserError(f"{table}: no such table; name a .csv, or a folder that holds a labels.csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a readable UTF-8 table ({error})") from None
    try:
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter=guess_delimiter(text)))
    except csv.Error as error:
        raise UserError(f"{table}: not a table ({error})") from None
    rows = [[cell.strip() for cell in row] for row in found if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise UserError(f"{table}: needs a header and at least one row")
    width = len(rows[0])
    return rows[0], [(row + [""] * width)[:width] for row in rows[1:]]


def read_text(path: Path, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 where the file says so; without the byte order mark."""
    data = Path(path).read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors=errors)
    return data.decode("utf-8-sig", errors=errors)


def guess_delimiter(text: str) -> str:
    """The comma, semicolon or tab of which the first line has most."""
    return max(",;\t", key=text.split("\n", 1)[0].count)


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


def ids_of(files: list[str]) -> list[str]:
    """The stems of the files, or more of their paths where stems repeat."""
    paths = [PurePosixPath(file.replace("\\", "/")) for file in files]
    stems = [path.stem if path.suffix.lower() in MEDIA_SUFFIXES else path.name for path in paths]
    whole = [path.with_name(stem).as_posix() if path.name else "" for path, stem in zip(paths, stems, strict=True)]
    return shortest_ids([path.as_posix() if path.name else "" for path in paths], whole, stems)


class Finder:
    """Finds media files named in a table; a folder is listed once, however many files are looked for in it."""

    def __init__(self, base: Path):
        self.base, self.listed, self.stems = base, {}, None

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

    def find_by_id(self, name: str) -> Path | None:
        """The media file under the folder whose path, with or without folders and extension, is `name`."""
        if self.stems is None:
            from shared.layouts.folder import media_files

            self.stems = {}
            for path in media_files(self.base):
                for key in (path.stem, path.name, path.with_suffix("").as_posix(), path.as_posix()):
                    self.stems.setdefault(key, self.base / path)
        return self.stems.get(name)
