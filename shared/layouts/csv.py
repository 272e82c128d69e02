"""Layout "csv": a table (.csv, .tsv, .txt or .jsonl) with one row per clip, or a folder with such a table.

Columns are named by options, or recognized by their usual names (shared/tables/columns.py). Paths are relative to the
table. A missing extension is completed; with only an id column, files are looked up by id. A row with too many cells
keeps its clip, without labels, if its file can be identified. A text-only table needs neither files nor ids: its rows
are then named by table and line.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from shared.dataset.clip import ClipSource, LeftOut
from shared.dataset.media_files import ids_from_paths
from shared.layouts.folder_tables import NAMES, folder_table, is_media_file
from shared.layouts.table_clips import ClipColumnOptions, ClipColumns, clips_from_rows, find_clip_columns
from shared.tables.cells import parse_number
from shared.tables.columns import Header
from shared.tables.formats import read_table
from shared.tables.media_finder import FoundMedia, MediaFinder
from shared.tables.missing_words import empty_missing_words
from shared.tables.text_table import TableRow
from shared.text import counted, first_few

SHOWN_ROWS = 10
"""Most omitted rows to name in a note."""


@dataclass
class Csv(ClipColumnOptions):
    encoding: str = ""
    """Encoding of the table, such as cp1252 or shift_jis; by default UTF-8, UTF-16 or, if it gives plausible text,
    Windows-1252."""

    def read(self, source: Path) -> ClipSource:
        """The clips of a table, or of the table in a folder. UserError names the line that cannot be read."""
        path = source / "labels.csv" if source.is_dir() else source
        if source.is_dir():
            path = folder_table(source) or path
        table = read_table(path, self.encoding)
        intact = [row for row in table.rows if not row.problem]
        header, cells = Header(table.header, str(path)), [row.cells for row in intact]
        root = self.root_or(path.parent)
        files = MediaFinder(root, hints=0)
        columns = find_clip_columns(
            self,
            header,
            cells,
            lambda i: f"line {intact[i].line}",
            is_file=lambda name: parse_number(name) is None and is_media_file(files.find(name).path),
        )
        all_cells, missing = empty_missing_words(
            table.header,
            [row.cells for row in table.rows],
            columns.texts,
            self.missing_words,
            lambda i: f"line {table.rows[i].line}",
            columns.split,
        )
        table.rows = [replace(row, cells=row_cells) for row, row_cells in zip(table.rows, all_cells, strict=True)]
        finder = MediaFinder(root)
        rows, left_out = _rows_with_known_file(table.rows, columns, finder)
        cells = [row.cells for row in rows]

        def media_file(row: int, column: int) -> FoundMedia:
            return finder.find(cells[row][column])

        ids = _ids(rows, columns, finder, path.stem)
        clip_source = clips_from_rows(
            columns, cells, ids, media_file, finder, lambda i: f"line {rows[i].line}", str(path)
        )
        for i, row in enumerate(rows):
            if row.problem:
                problem = f"{path.name} line {row.line}: {row.problem}; labels not read"
                clip = clip_source.clips[i]
                clip_source.clips[i] = replace(clip, problems=(problem, *clip.problems))
        if source.is_dir() and path.stem.lower() not in NAMES:
            clip_source.notes.insert(0, f"{path.name}, the only table of this folder, lists its clips")
        clip_source.notes = table.notes + missing + _note(left_out, columns) + clip_source.notes
        clip_source.left_out = [
            LeftOut(f"{path.name} line {row.line}", _file_name(row, columns), row.problem) for row in left_out
        ]
        return clip_source


def _ids(rows: list[TableRow], columns: ClipColumns, finder: MediaFinder, table: str) -> list[str]:
    """The name of each clip: its id, otherwise the stem of its file, otherwise table and line."""
    if columns.name_column is None:
        return [f"{table}-{row.line:06d}" for row in rows]
    names = [row.cells[columns.name_column] for row in rows]
    return ids_from_paths(_numbered(names, finder)) if columns.id is None else names


def _file_name(row: TableRow, columns: ClipColumns) -> str:
    """The file name in a row."""
    return "" if columns.file_column is None else row.cells[columns.file_column]


def _numbered(names: list[str], finder: MediaFinder) -> list[str]:
    """The names, with numbers spelled as in the file names: 00007 instead of 7.0 for 00007.mp4."""
    lookups = [finder.find(name) for name in names]
    return [
        file.path.name if file.by_number and file.path is not None else name
        for name, file in zip(names, lookups, strict=True)
    ]


def _rows_with_known_file(
    rows: list[TableRow], columns: ClipColumns, finder: MediaFinder
) -> tuple[list[TableRow], list[TableRow]]:
    """The rows with an identifiable file, and the others. A damaged row keeps the file in its cell if it exists and
    belongs to no other row. The cells before it are then in place; the cells after it, and the labels, are blanked."""
    key_column = columns.file_column
    if key_column is None:
        return [row for row in rows if not row.problem], [row for row in rows if row.problem]

    def file(row: TableRow) -> Path | None:
        name = row.cells[key_column]
        return (finder.find_by_id(name) if columns.media is None else finder.find(name)).path

    if not any(row.problem for row in rows):
        return rows, []
    taken = {file(row) for row in rows if not row.problem}
    kept, lost = [], []
    for row in rows:
        if row.problem:
            path = file(row)
            if path is None or path in taken or not os.path.isfile(path) or (columns.id or 0) > key_column:
                lost.append(row)
                continue
            taken.add(path)
            labels = columns.labels.values()
            row = replace(row, cells=["" if i > key_column or i in labels else c for i, c in enumerate(row.cells)])
        kept.append(row)
    return kept, lost


def _note(left_out: list[TableRow], columns: ClipColumns) -> list[str]:
    """A note on the rows that are left out."""
    if not left_out:
        return []
    lines = [f"line {row.line} ({row.problem})" for row in left_out]
    why = "" if columns.file_column is None else ", because their files cannot be identified"
    return [f"{counted(len(lines), 'row')} left out{why}: {first_few(lines, SHOWN_ROWS)}"]
