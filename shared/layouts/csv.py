"""Layout "csv": a table (.csv, .tsv, .txt or .jsonl) with one row per clip, or a folder with a labels.csv.

Columns are named by options, or recognized by their usual names (shared/tables/columns.py). Paths are relative to the
table. A missing extension is completed, and a table that has an id column alone has its files looked up. A row with too
many cells keeps its clip, without labels, if its file can be identified.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from shared.dataset.clip import ClipSource
from shared.dataset.media_files import ids_from_paths
from shared.layouts.table_clips import ClipColumnOptions, ClipColumns, clips_from_rows, find_clip_columns
from shared.tables.columns import Header
from shared.tables.formats import read_table
from shared.tables.media_finder import MediaFinder
from shared.tables.text_table import TableRow
from shared.text import first_few

SHOWN_ROWS = 10
"""Rows left out that a note names."""


@dataclass
class Csv(ClipColumnOptions):
    def read(self, source: Path) -> ClipSource:
        """The clips of a table, or of the labels.csv in a folder. UserError names the line that cannot be read."""
        path = source / "labels.csv" if source.is_dir() else source
        table = read_table(path)
        intact = [row for row in table.rows if not row.problem]
        header, cells = Header(table.header, str(path)), [row.cells for row in intact]
        columns = find_clip_columns(self, header, cells, lambda i: f"line {intact[i].line}")
        finder = MediaFinder(self.root_or(path.parent))
        rows, notes = _rows_with_known_file(table.rows, columns, finder)
        cells = [row.cells for row in rows]

        def media_file(row: int, column: int) -> Path | None:
            return finder.find(cells[row][column])

        ids = [row[columns.name_column] for row in cells]
        ids = ids_from_paths(ids) if columns.id is None else ids
        clip_source = clips_from_rows(columns, cells, ids, media_file, finder, lambda i: f"{path}: line {rows[i].line}")
        for i, row in enumerate(rows):
            if row.problem:
                problem = f"{path.name} line {row.line}: {row.problem}; labels not read"
                clip = clip_source.clips[i]
                clip_source.clips[i] = replace(clip, problems=(problem, *clip.problems))
        clip_source.notes = table.notes + notes + clip_source.notes
        return clip_source


def _rows_with_known_file(
    rows: list[TableRow], columns: ClipColumns, finder: MediaFinder
) -> tuple[list[TableRow], list[str]]:
    """The rows whose file can be identified, and a note about the others. The file of a damaged row is the one its cell
    names, if that file exists and belongs to no other row. The cells before it are then in place; those after it, and
    the labels, are blanked."""
    key_column = columns.file_column

    def file(row: TableRow) -> Path | None:
        name = row.cells[key_column]
        return finder.find_by_id(name)[0] if columns.media is None else finder.find(name)

    if not any(row.problem for row in rows):
        return rows, []
    taken = {file(row) for row in rows if not row.problem}
    kept, lost = [], []
    for row in rows:
        if row.problem:
            path = file(row)
            if path is None or path in taken or not os.path.isfile(path) or (columns.id or 0) > key_column:
                lost.append(f"line {row.line} ({row.problem})")
                continue
            taken.add(path)
            labels = columns.labels.values()
            row = replace(row, cells=["" if i > key_column or i in labels else c for i, c in enumerate(row.cells)])
        kept.append(row)
    if not lost:
        return kept, []
    return kept, [f"{len(lost)} rows left out, whose files cannot be identified: {first_few(lost, SHOWN_ROWS)}"]
