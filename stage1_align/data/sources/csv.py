"""Source "csv": a table (.csv, .tsv, .txt or .jsonl), one row per item. A separator (comma, semicolon, tab) is guessed.

Columns are named by options or recognized by their usual names (shared/tables/columns.py). Rows that name the same
files are one item with several captions, as in tables with one row per caption. A split column says which rows belong
to a split. Without a transcript column, the transcript is `<stem>.txt` beside a file with sound.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.dataset.clip import sidecar_transcript
from shared.errors import UserError
from shared.files import digest
from shared.tables.cells import split_name
from shared.tables.formats import read_table
from shared.tables.media_finder import MediaFinder
from shared.tables.missing_words import empty_missing_words
from shared.tables.text_table import TableRow
from shared.text import counted
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import FrameSelector, Sample, TableSource, check_split
from stage1_align.data.sources.columns import PairColumnOptions, PairColumns
from stage1_align.data.sources.records import Record, decode_record

CHECKED_ITEMS = 100
"""Items to look up files for when the source is opened: with a wrong folder, all of them fail."""
SHOWN_PROBLEMS = 3


@dataclass
class CsvOptions(PairColumnOptions):
    encoding: str = ""
    """Encoding of the table, such as cp1252 or shift_jis; by default UTF-8, UTF-16 or, if it gives plausible text,
    Windows-1252."""


class Csv(TableSource):
    """Media are paths relative to the table's folder, or to the option `root`."""

    def __init__(self, path: str, split: str, options: CsvOptions):
        table_path = Path(path.replace("{split}", split))
        table = read_table(table_path, options.encoding)
        rows = [row for row in table.rows if not row.problem]
        cells = [row.cells for row in rows]
        self.name, self.frame_rate = str(table_path), options.frame_rate

        def row_name(row: int) -> str:
            return f"line {rows[row].line}"

        self.columns = PairColumns(options, table.header, cells, self.name, row_name=row_name)
        self.digest = digest([table.header, cells])
        self.finder = MediaFinder(options.root_or(table_path.parent))
        texts = self.columns.texts(table.header)
        cells, missing = empty_missing_words(table.header, cells, texts, options.missing_words, row_name)
        rows = [replace(row, cells=row_cells) for row, row_cells in zip(rows, cells, strict=True)]
        notes = [*table.notes, *_rows_left_out(table.rows), *self.columns.notes, *missing]
        rows = self._rows_of_split(path, split, table.header, rows)
        self.items = self._items(table.header, rows)
        for note in [*notes, *self.finder.notes(), *self.problems[:SHOWN_PROBLEMS]]:
            sys.stderr.write(f"warning: {table_path}: {note}\n")
        self._check_files()
        if not self.columns.columns["transcript"]:
            self._read_sidecars()
        self.columns.require_texts()
        self.label_names, self.text_kinds = list(self.columns.labels), self.columns.text_kinds

    def _rows_of_split(self, path: str, split: str, header: list[str], rows: list[TableRow]) -> list[TableRow]:
        column = self.columns.columns["split"]
        if not column or "{split}" in path:
            check_split(path, split)
            return rows
        position = header.index(column[0])
        chosen = [row for row in rows if split_name(row.cells[position]) == split_name(split)]
        if not chosen:
            splits = ", ".join(sorted({split_name(row.cells[position]) for row in rows} - {""})) or "none"
            raise UserError(f"{self.name}: no rows of split {split!r}; splits here: {splits}")
        return chosen

    def _items(self, header: list[str], rows: list[TableRow]) -> list[tuple[dict[str, Path], TextAnnotations]]:
        """(paths by kind of medium, texts and labels) of each item."""
        items: dict[tuple, tuple[dict[str, Path], TextAnnotations]] = {}
        self.problems: list[str] = []
        for row in rows:
            cells = dict(zip(header, row.cells, strict=True))
            media = self.columns.media(cells)
            annotations = self.columns.annotations(cells, f"{self.name}: line {row.line}")
            if (key := tuple(media.items()) or (row.line,)) in items:
                items[key][1].captions += annotations.captions
            else:
                files = {kind: self.finder.find(name) for kind, name in media.items()}
                self.problems += [f"line {row.line}: {file.problem}" for file in files.values() if file.problem]
                items[key] = {kind: file.path for kind, file in files.items() if file.path is not None}, annotations
        return list(items.values())

    def _check_files(self) -> None:
        paths = [path for media, _ in self.items[:CHECKED_ITEMS] for path in media.values()]
        if not any(path.is_file() for path in paths):
            what = f"the first row names {paths[0]}" if paths else "no row names a file"
            what = "; ".join([what, *self.problems[:1]])
            raise UserError(f"{self.name}: its files are missing ({what}); set root to their folder")

    def _read_sidecars(self) -> None:
        """Read transcripts next to the sound files; stop looking if the first items have none."""
        for i, (media, annotations) in enumerate(self.items):
            if i == CHECKED_ITEMS and "transcript" not in self.columns.text_kinds:
                return
            annotations.transcript = sidecar_transcript(media.get("video") or media.get("audio")) or ""
            self.columns.text_kinds |= {"transcript"} if annotations.transcript else set()

    def __len__(self) -> int:
        return len(self.items)

    def annotations(self, item: int) -> TextAnnotations:
        return self.items[item][1]

    def sample(self, item: int, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        media, annotations = self.items[item]
        return decode_record(Record(annotations, **media), sample_rate, select, self.frame_rate)


def _rows_left_out(rows: list[TableRow]) -> list[str]:
    damaged = [row for row in rows if row.problem]
    return [
        f"{counted(len(damaged), 'row')} left out, the first in line {row.line}: {row.problem}" for row in damaged[:1]
    ]


def open_csv(path: str, split: str, options: dict[str, Any]) -> Csv:
    return Csv(path, split, configuration.build(CsvOptions, options, path))
