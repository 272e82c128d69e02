"""Source "csv": a table with a header, one row an item. The separator (comma, semicolon, tab) is guessed.

Columns are named by options or recognised by the usual names (sources/base.py). Rows that name the same files are one
item with several captions, as in tables with one row a caption. A column "split" says which rows belong to a split.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest
from shared.tables.table import Row, read_table
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import FrameSelector, Sample, TableSource, check_split
from stage1_align.data.sources.columns import ColumnOptions, Columns
from stage1_align.data.sources.records import Record, decode_record

LOOKED_AT = 100
"""Rows whose files are looked for at the start: a wrong folder shows in all of them."""


@dataclass
class CsvOptions(ColumnOptions):
    frame_rate: float = 8.0
    """Pictures a second that the frames of a video are chosen from."""


class Csv(TableSource):
    """Media are paths relative to the table's folder, or to the option `root`."""

    def __init__(self, path: str, split: str, options: CsvOptions):
        table = Path(path.replace("{split}", split))
        read = read_table(table)
        header, rows = read.header, [row.cells for row in read.rows if not row.wrong]
        for what in [*read.notes, *_left_out(read.rows)]:
            sys.stderr.write(f"warning: {table}: {what}\n")
        self.name, self.digest = str(table), digest([header, rows])
        self.root = Path(options.root) if options.root else table.parent
        self.frame_rate = options.frame_rate
        columns = Columns(options, header, self.name)
        self.label_names, self.text_kinds = columns.labels, columns.text_kinds
        if "split" in header and "{split}" not in path:
            column = header.index("split")
            there = sorted({row[column] for row in rows if row[column]})
            rows = [row for row in rows if row[column] == split]
            if not rows:
                raise UserError(f"{table}: no rows of split {split!r}; splits here: {', '.join(there) or 'none'}")
        else:
            check_split(path, split)
        self.items: list[tuple[dict[str, str], TextAnnotations]] = self._grouped(columns, header, rows)
        self._look()

    def _grouped(self, columns: Columns, header: list[str], rows: list[list[str]]) -> list:
        """(paths by medium, words) of each item."""
        items: dict[tuple, tuple[dict[str, str], TextAnnotations]] = {}
        for number, cells in enumerate(rows):
            row = dict(zip(header, cells, strict=True))
            paths = {part: columns.medium(part, row) for part in ("image", "audio", "video")}
            paths = {part: value for part, value in paths.items() if value}
            words = columns.words(row, f"{self.name}, row {number + 1}")
            held = items.setdefault(tuple(paths.items()) or (number,), (paths, words))[1]
            if held is not words:
                held.captions += words.captions
        return list(items.values())

    def _look(self) -> None:
        paths = [self._path(value) for paths, _ in self.items[:LOOKED_AT] for value in paths.values()]
        if not any(path.is_file() for path in paths):
            what = f"the first row wants {paths[0]}" if paths else "no row names one"
            raise UserError(f"{self.name}: its files are not there ({what}); set root to the folder they lie in")

    def _path(self, value: str) -> Path:
        return self.root / value

    def __len__(self) -> int:
        return len(self.items)

    def annotations(self, item: int) -> TextAnnotations:
        return self.items[item][1]

    def sample(self, item: int, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        paths, words = self.items[item]
        media = {part: self._path(value) for part, value in paths.items()}
        return decode_record(Record(words, **media), sample_rate, select, self.frame_rate)


def _left_out(rows: list[Row]) -> list[str]:
    wrong = [row for row in rows if row.wrong]
    return [f"{len(wrong)} rows left out, the first in line {row.line}: {row.wrong}" for row in wrong[:1]]


def open_csv(path: str, split: str, options: dict) -> Csv:
    return Csv(path, split, configuration.build(CsvOptions, options, path))
