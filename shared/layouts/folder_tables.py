"""The table that describes the media of a folder, so that its labels are read or asked for, and never lost."""

from pathlib import Path, PurePath

from shared.dataset.media_files import files_under, is_media
from shared.errors import UserError
from shared.tables.cells import SPLITS, parse_number, split_name
from shared.tables.formats import READERS, SPREADSHEETS, is_table, read_table
from shared.tables.media_finder import MediaFinder
from shared.text import first_few

TRIED_ROWS = 50
"""Rows by which a table that names media files is recognized: looking for missing files takes time."""
NAMES = ("labels", "metadata")
"""Names of the table of a folder, in any case. Hugging Face calls it metadata."""
SUFFIXES = (*(suffix for suffix in READERS if suffix != ".txt"), *SPREADSHEETS, ".parquet", ".arrow", ".gz")
"""Files that are tables whatever their name. A .txt is a transcript, and a .json may be anything."""


def folder_table(folder: Path) -> Path | None:
    """The table of a folder: labels.csv or metadata.csv, in any case and format; None when there is no table.

    The only table is taken whatever its name if it has a column of media files that exist. A spreadsheet beside its
    export is left alone, and a table that is called like a media file belongs to that file.
    UserError when there are several, when its format is not read, or when only tables of other names are there, which
    may hold the labels.
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
        is_table(named[0])  # refuses formats that are not read
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
        f"{folder}: holds {which}, which may have the labels; name the one to read ({tables[0]}){join}, or set "
        "--layout folder to read the media alone"
    )


def is_media_file(path: Path | None) -> bool:
    """Whether a path is an existing media file."""
    return path is not None and is_media(path) and path.is_file()


def _names_media(path: Path) -> bool:
    """Whether most of the first cells of a column of a table name media files that exist."""
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
