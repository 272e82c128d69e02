"""Layout "csv": a table with one row per clip. Columns are recognised by their names, whatever their case.

media        path, file, media, filename, video      relative to the table; a missing extension is looked for
id           id, clip                                else the stem of the media file
words        transcript, text, words                 else `<stem>.txt` beside the media file
split        split                                   train, valid, test
groups       subject, speaker, actor, seed, group    what clips have in common
labels       the six EMI names if any is there       else every other column that holds numbers
"""

import csv
import io
import math
from pathlib import Path, PurePosixPath

from shared.clips import EMI, MEDIA_SUFFIXES, Clip, Source, sidecar
from shared.errors import UserError
from shared.layouts.folder import shortest_ids

MEDIA = ("path", "file", "media", "filename", "video")
ID = ("id", "clip")
WORDS = ("transcript", "text", "words")
GROUPS = ("subject", "speaker", "actor", "seed", "group")
NOT_LABELLED = ("", "nan", "na", "n/a", "none", "null")


def read(source: Path) -> Source:
    """The clips of a table, or of the labels.csv in a folder. UserError names the row of what cannot be read."""
    table = Path(source) / "labels.csv" if Path(source).is_dir() else Path(source)
    header, rows = read_table(table)
    columns = {name.lower(): i for i, name in reversed(list(enumerate(header)))}
    media = _first(columns, MEDIA)
    if media is None:
        raise UserError(f"{table}: no column for the media files; call it one of: {', '.join(MEDIA)}")
    identifier, words, split = (_first(columns, names) for names in (ID, WORDS, ("split",)))
    groups = {name: columns[name] for name in GROUPS if name in columns}
    labels, notes = _label_columns(header, rows, {media, identifier, words, split, *groups.values()})

    finder = _Finder(table.parent)
    paths = [finder.find(row[media]) for row in rows]
    ids = [row[identifier] for row in rows] if identifier is not None else _ids([row[media] for row in rows])
    clips = []
    for i, row in enumerate(rows):
        if not ids[i]:
            raise UserError(f"{table}: row {i + 2} names neither a file nor an id")
        clips.append(
            Clip(
                id=ids[i],
                media=paths[i],
                transcript=(row[words] if words is not None else "") or sidecar(paths[i]),
                labels=tuple(_label(row, column, name, f"{table}: row {i + 2}") for name, column in labels.items()),
                groups={name: row[column] for name, column in groups.items()},
                split=row[split] if split is not None else "",
            )
        )
    return Source(clips, tuple(labels), tuple(groups), notes)


def read_table(table: Path) -> tuple[list[str], list[list[str]]]:
    """Column names, and rows as wide as the header, every cell stripped."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{table}: no such table; name a .csv, or a folder that holds a labels.csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a readable UTF-8 table ({error})") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{table}: not a table ({error})") from None
    rows = [[cell.strip() for cell in row] for row in found if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise UserError(f"{table}: needs a header and at least one row")
    width = len(rows[0])
    return rows[0], [(row + [""] * width)[:width] for row in rows[1:]]


def _first(columns: dict[str, int], names: tuple[str, ...]) -> int | None:
    """Position of the first of `names` that is a column."""
    return next((columns[name] for name in names if name in columns), None)


def _label_columns(header: list[str], rows: list[list[str]], taken: set) -> tuple[dict[str, int], list[str]]:
    """{label name: position}, and what a person should know of it. Where any EMI dimension is a column, the labels are
    those that are; else every numeric column not taken."""
    known = {name.lower(): name for name in EMI}
    emi = {known[name.lower()]: i for i, name in enumerate(header) if name.lower() in known}
    if emi:
        missing = [name for name in EMI if name not in emi]
        note = [f"no column for {', '.join(missing)}"] if missing else []
        return {name: emi[name] for name in EMI if name in emi}, note
    free = [i for i in range(len(header)) if i not in taken]
    labels = {header[i]: i for i in free if _is_numeric([row[i] for row in rows])}
    note = [f"labels are the numeric columns {', '.join(labels)}"] if labels else ["no label columns found"]
    return labels, note


def _is_numeric(cells: list[str]) -> bool:
    values = [_number(cell) for cell in cells]
    return None not in values and not all(math.isnan(value) for value in values)


def _number(cell: str) -> float | None:
    """The number in a cell; NaN where it says that there is none; None when it is something else."""
    if cell.lower() in NOT_LABELLED:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _label(row: list[str], column: int | None, name: str, where: str) -> float:
    value = math.nan if column is None else _number(row[column])
    if value is None:
        raise UserError(f"{where}, column {name}: {row[column]!r} is not a number; leave it empty if there is no label")
    return value


def _ids(files: list[str]) -> list[str]:
    """The stems of the files, or more of their paths where stems repeat."""
    paths = [PurePosixPath(file.replace("\\", "/")) for file in files]
    stems = [path.stem if path.suffix.lower() in MEDIA_SUFFIXES else path.name for path in paths]
    whole = [path.with_name(stem).as_posix() if path.name else "" for path, stem in zip(paths, stems, strict=True)]
    return shortest_ids([path.as_posix() if path.name else "" for path in paths], whole, stems)


class _Finder:
    """Finds media files named in a table; a folder is listed once, however many files are looked for in it."""

    def __init__(self, base: Path):
        self.base, self.listed = base, {}

    def find(self, name: str) -> Path | None:
        """The file, with the first known extension that exists if it has none; None for an empty name."""
        if not name:
            return None
        path = self.base / name.replace("\\", "/")
        folder = self.listed.get(path.parent)
        if folder is None:
            folder = {p.name for p in path.parent.iterdir()} if path.parent.is_dir() else set()
            self.listed[path.parent] = folder
        if path.name in folder:
            return path
        return next((path.with_name(path.name + s) for s in MEDIA_SUFFIXES if path.name + s in folder), path)
