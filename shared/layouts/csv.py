"""Layout "csv": a table with one row per clip, or a folder with a labels.csv. Columns are named by options, or
recognised by their usual names (shared/layouts/columns.py). Paths are relative to the table; a missing extension is
looked for, and so is the file itself where the table has an id column alone.
"""

from dataclasses import dataclass
from pathlib import Path

from shared.clips import Source
from shared.layouts.columns import ColumnOptions, choose, clips_of
from shared.layouts.table import Finder, ids_of, read_table


@dataclass
class Csv(ColumnOptions):
    def read(self, source: Path) -> Source:
        """The clips of a table, or of the labels.csv in a folder. UserError names the row of what cannot be read."""
        table = source / "labels.csv" if source.is_dir() else source
        header, rows = read_table(table)
        columns = choose(self, header, rows, str(table))
        finder = Finder(Path(self.root) if self.root else table.parent)

        def files(row: int, column: int | None) -> Path | None:
            if column is not None:
                return finder.find(rows[row][column])
            return finder.find_by_id(rows[row][columns.id])

        named = columns.media if columns.id is None else columns.id
        ids = [row[named] for row in rows]
        if columns.id is None:
            ids = ids_of(ids)
        return clips_of(columns, rows, ids, files, lambda row: f"{table}: row {row + 2}")
