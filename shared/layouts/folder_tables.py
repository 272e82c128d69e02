"""The table that describes the media of a folder: its labels are read, or the user is asked, but never lost."""

from pathlib import Path, PurePath

from shared.dataset.media_files import files_under, is_media
from shared.errors import UserError
from shared.tables.cells import SPLITS, parse_number, split_name
from shared.tables.formats import READERS, SPREADSHEETS, is_table, read_table
from shared.tables.media_finder import MediaFinder
from shared.text import first_few

TRIED_ROWS = 50
"""Rows to check when looking for a table of media files: looking for missing files takes time."""
NAMES = ("labels", "metadata")
"""Names of a folder's table, in any case. Hugging Face calls it metadata."""
SUFFIXES = (*(suffix for suffix in READERS if suffix != ".txt"), *SPREADSHEETS, ".parquet", ".arrow", ".gz")
"""Suffixes that always mean a table. A .txt is a transcript, and a .json may be anything."""


def folder_table(folder: Path) -> Path | None:
    """The table of a folder: labels.csv or metadata.csv, in any case and format; None if there is no table.

    A single table with any other name is used if it has a column of existing media files. A spreadsheet next to its
    export is ignored, and a table named like a media file belongs to that file.
    UserError if there are several, if the format cannot be read, or if only tables with other names exist, which may
    have the labels.
    """
    direct = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    named = [path for path in direct if path.stem.lower() in NAMES and (is_table_file(path) or path.suffix == ".json")]
    named += [path for path in direct if path.stem.lower() in NAMES and path.suffix.lower() == ".txt"]
    files = files_under(folder)
    stems = {path.stem for path in files if is_media(path)}
    named = [path for path in named if path.stem not in stems]
    read = {path.stem.lower() for path in named if path.suffix.lower() in READERS}
    named = [path for path in named if path.suffix.lower() in READERS or path.stem.lower() not in read]
    if len(named) == 1:
        if named[0].suffix.lower() in (".parquet", ".arrow"):
            return named[0]
        is_table(named[0])  # refuses unsupported formats
        return named[0]
    tables = named or [folder / path for path in files if is_table_file(path) and PurePath(path.name).stem not in stems]
    if not tables:
        return None
    if len(tables) == 1 and tables[0].parent == folder and _names_media(tables[0]):
        return tables[0]
    names = [path.relative_to(folder).as_posix() for path in tables]
    which = f"the table {names[0]}" if len(names) == 1 else f"the tables {first_few(names)}"
    are_splits = len(names) > 1 and {split_name(path.stem) for path in tables} <= {*SPLITS}
    join = ", join them into one with a column split" if are_splits else ""
    raise UserError(
        f"{folder}: has {which}, which may contain the labels; name the one to read ({tables[0]}){join}, or set "
        "--layout folder to read only the media"
    )


def is_media_file(path: Path | None) -> bool:
    """Whether a path is an existing media file."""
    return path is not None and is_media(path) and path.is_file()


def _names_media(path: Path) -> bool:
    """Whether a table has a column where most of the first cells name existing media files."""
    if path.suffix.lower() not in READERS:
        return False
    try:
        rows = [row.cells for row in read_table(path, "").rows if not row.problem][:TRIED_ROWS]
    except UserError:
        return False
    finder = MediaFinder(path.parent, hints=0)
    columns = [[cell for cell in cells if cell and parse_number(cell) is None] for cells in zip(*rows, strict=True)]
    return any(sum(is_media_file(finder.find(cell).path) for cell in cells) > len(cells) / 2 for cells in columns)


def is_table_file(path: Path) -> bool:
    """Whether a file is a table, by its suffix."""
    return path.suffix.lower() in SUFFIXES and (path.suffix.lower() != ".gz" or ".tar" not in path.suffixes)
