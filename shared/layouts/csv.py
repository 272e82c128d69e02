"""Layout "csv": a table with one row per clip, or a folder with a labels.csv. Columns are named by options, or
recognised by their usual names (shared/tables/columns.py). Paths are relative to the table; a missing extension is
looked for, and so is the file itself where the table has an id column alone.

A row with too many cells keeps its clip, without labels, where its file can be told.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from shared.dataset.clip import ClipSource
from shared.dataset.media_files import ids_from_paths
from shared.tables.columns import ColumnOptions, Columns, choose, clips_of
from shared.tables.table import Finder, Row, read_table, some

SHOWN = 10
"""Rows left out that a note names."""


@dataclass
class Csv(ColumnOptions):
    def read(self, source: Path) -> ClipSource:
        """The clips of a table, or of the labels.csv in a folder. UserError names the line of what cannot be read."""
        table = source / "labels.csv" if source.is_dir() else source
        found = read_table(table)
        whole = [row for row in found.rows if not row.wrong]
        cells = [row.cells for row in whole]
        columns = choose(self, found.header, cells, str(table), lambda row: f"line {whole[row].line}")
        finder = Finder(Path(self.root) if self.root else table.parent)
        rows, notes = _trusted(found.rows, columns, finder)
        cells = [row.cells for row in rows]

        def files(row: int, column: int) -> Path | None:
            return finder.find(cells[row][column])

        ids = [row[columns.media if columns.id is None else columns.id] for row in cells]
        if columns.id is None:
            ids = ids_from_paths(ids)
        out = clips_of(columns, cells, ids, files, finder, lambda row: f"{table}: line {rows[row].line}")
        for i, row in enumerate(rows):
            if row.wrong:
                said = f"{table.name} line {row.line}: {row.wrong}; labels not read"
                out.clips[i] = replace(out.clips[i], remarks=(said, *out.clips[i].remarks))
        out.notes = found.notes + notes + out.notes
        return out


def _trusted(rows: list[Row], columns: Columns, finder: Finder) -> tuple[list[Row], list[str]]:
    """Rows whose file can be told, and which are left out. Of a row that is not whole, the file is what its cell says
    if that file exists and is no other row's; cells before it are in place then, those after it and labels are
    blanked."""
    last = columns.id if columns.media is None else columns.media

    def file(row: Row) -> Path | None:
        return finder.find_by_id(row.cells[last])[0] if columns.media is None else finder.find(row.cells[last])

    if not any(row.wrong for row in rows):
        return rows, []
    taken = {file(row) for row in rows if not row.wrong}
    kept, lost = [], []
    for row in rows:
        if row.wrong:
            path = file(row)
            if path is None or path in taken or not os.path.isfile(path) or (columns.id or 0) > last:
                lost.append(f"line {row.line} ({row.wrong})")
                continue
            taken.add(path)
            labels = columns.labels.values()
            cells = ["" if i > last or i in labels else cell for i, cell in enumerate(row.cells)]
            row = replace(row, cells=cells)
        kept.append(row)
    return kept, [f"{len(lost)} rows left out, whose files cannot be told: {some(lost, SHOWN)}"] if lost else []
