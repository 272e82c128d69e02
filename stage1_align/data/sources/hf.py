"""Source "hf": Hugging Face datasets on this machine.

A folder that `save_to_disk` wrote (its splits by name), or parquet, arrow or jsonl files: a folder of them (their
splits by file name, train-00000-of-00002.parquet), or a pattern with {split}, braces and wildcards. With `streaming`
nothing is copied or indexed: files are read one after the other.

Media columns are read as stored (bytes, paths, arrays) and decoded by this project's decoders: the Audio and Image
types of `datasets` would decode skipped rows too, and need more packages.
"""

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import config as configuration
from shared.errors import UserError
from shared.options.ranges import PositiveInt
from shared.tables.cells import parse_label, split_name
from shared.tables.dataset_files import data_files, saved_files, saved_splits
from shared.tables.media_finder import MediaFinder
from shared.text import counted, one_line
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import (
    DamagedShard,
    FrameSelector,
    PairSource,
    Sample,
    StreamSource,
    TableSource,
    check_split,
    expand_pattern,
    files_digest,
)
from stage1_align.data.sources.columns import PairColumnOptions, PairColumns
from stage1_align.data.sources.records import Record, decode_record

if TYPE_CHECKING:
    import datasets

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json"}
CHECKED_ROWS = 100
"""Rows to guess label columns from."""


@dataclass
class HfOptions(PairColumnOptions):
    streaming: bool = False
    """Read the files one after the other: for corpora too large to copy into the cache of `datasets`."""
    buffer: PositiveInt = 1000
    """Size of a stream's shuffle buffer, in rows, which are not decoded."""


class _HfSource(PairSource):
    """Shared by HfTable and HfStream. An item becomes a row {column: value} by `_row`."""

    def _prepare(self, path: str, files: list[Path], options: HfOptions, classes: Collection[str] = ()) -> None:
        """classes: ClassLabel columns, not treated as intensity labels."""
        self.name, self.digest = path, files_digest(files)
        self.finder, self.frame_rate = MediaFinder(options.root_or(files[0].parent), hints=0), options.frame_rate
        names: list[str] = []
        media: set[str] = set()
        rows: list[list[Any]] = []
        for row in map(self._row, self.first(CHECKED_ROWS)):
            names = names or list(row)
            media |= {name for name, value in row.items() if isinstance(value, bytes | dict)}
            cells = (row.get(name) for name in names)
            rows.append([cell if isinstance(cell, int | float) else None for cell in cells])  # labels are numbers
        if not rows:
            raise UserError(f"{path}: none of its {counted(len(files), 'file')} has a readable row")
        self.columns = PairColumns(options, names, rows, path, media, classes)
        self.columns.require_texts()
        for note in self.columns.notes:
            sys.stderr.write(f"warning: {path}: {note}\n")
        self.label_names, self.text_kinds = list(self.columns.labels), self.columns.text_kinds

    def _row(self, item: Any) -> dict[str, Any]:
        return item

    def sample(self, item: Any, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        row = self._row(item)
        media = self.columns.media(row)
        media = {
            kind: self.finder.find(value).path if isinstance(value, str) else value for kind, value in media.items()
        }
        annotations, damage = self._read_annotations(row)
        sample = decode_record(Record(annotations, **media), sample_rate, select, self.frame_rate)
        sample.damage = "; ".join(filter(None, [damage, sample.damage]))
        return sample

    def _read_annotations(self, row: dict[str, Any]) -> tuple[TextAnnotations, str]:
        """Texts and labels, and why labels could not be read: in a stream, nothing has checked them before."""
        try:
            return self.columns.annotations(row, self.name), ""
        except UserError as error:
            no_labels = {column: None for column in self.columns.labels.values()}
            return self.columns.annotations(row | no_labels, self.name), str(error)


class HfTable(_HfSource, TableSource):
    """Rows by their number."""

    def __init__(self, path: str, files: list[Path], table: "datasets.Dataset", options: HfOptions):
        self.table = table.with_format("arrow")  # rows as stored, nothing decoded
        classes = [name for name, feature in table.features.items() if type(feature).__name__ == "ClassLabel"]
        self._prepare(path, files, options, classes)
        columns = self.columns
        texts = [*columns.columns["caption"], *columns.columns["transcript"], *columns.labels.values()]
        self.texts = table.select_columns(list(dict.fromkeys(texts))).with_format("arrow")
        self._check_labels()
        if columns.labels:
            numbers = table.select_columns(list(columns.labels.values())).with_format("arrow")[:].to_pylist()
            columns.refuse_outside([[row[c] for c in columns.labels.values()] for row in numbers], lambda i: f"row {i}")
        for note in self._missing_words(options.missing_words):
            sys.stderr.write(f"warning: {path}: {note}\n")

    def _check_labels(self) -> None:
        """UserError names the row of a label that is not a number; numeric columns have none."""
        for name, column in self.columns.labels.items():
            for row, cell in enumerate(self._cells_of_texts(column)):
                parse_label(cell, f"{self.name}: row {row}, column {name}")

    def _missing_words(self, words: Collection[str]) -> list[str]:
        """How many cells of captions and transcripts hold a word for a missing value."""
        names = [*self.columns.columns["caption"], *self.columns.columns["transcript"]]
        count = {name: sum(cell in words for cell in self._cells_of_texts(name)) for name in names}
        counted = ", ".join(f"{number} times in {name!r}" for name, number in count.items() if number)
        return [f"read as missing: NaN, None, NULL and others, {counted}"] if counted else []

    def _cells_of_texts(self, name: str) -> Iterator[Any]:
        """The cells of a text column; none for any other column."""
        if getattr(self.table.features[name], "dtype", "") in ("string", "large_string"):
            for batch in self.texts.select_columns(name).iter(CHECKED_ROWS):
                yield from batch.column(name).to_pylist()

    def __len__(self) -> int:
        return len(self.table)

    def annotations(self, item: int) -> TextAnnotations:
        return self.columns.annotations(self.texts[item].to_pylist()[0], self.name)

    def _row(self, item: int) -> dict[str, Any]:
        return self.table[item].to_pylist()[0]


class HfStream(_HfSource, StreamSource):
    """Rows in file order; each file is a shard."""

    def __init__(self, path: str, files: list[Path], options: HfOptions):
        self.shards, self.buffer = files, options.buffer
        self._prepare(path, files, options)
        self.columns.annotations(next(self.first(1)), f"{path}: row 0")  # fail early on non-numeric labels

    def read(self, shard: Path) -> Iterator[dict[str, Any]]:
        import datasets

        try:
            files = {"train": [str(shard)]}
            table = datasets.load_dataset(_builder(shard), data_files=files, split="train", streaming=True)
            yield from table.decode(False)
        except Exception as error:  # pyarrow, fsspec, json and datasets raise many types for damaged files
            raise DamagedShard(one_line(error, 200)) from None

    def annotations(self, item: dict[str, Any]) -> TextAnnotations:
        return self._read_annotations(item)[0]


def open_hf(path: str, split: str, options: dict[str, Any]) -> HfTable | HfStream:
    import datasets

    hf_options = configuration.build(HfOptions, options, path)
    saved, files = _find_files(path, split)
    if hf_options.streaming:
        return HfStream(path, files, hf_options)
    try:
        if saved is not None:
            table = datasets.load_from_disk(str(saved))
        else:
            names = [str(file) for file in files]
            table = datasets.load_dataset(_builder(files[0]), data_files={"train": names}, split="train")
    except Exception as error:
        why = one_line(error, 200)
        raise UserError(f"{path}: cannot be read ({why}); set `streaming: true` to skip damaged files") from None
    if not len(table):
        raise UserError(f"{path}: no rows in split {split!r}")
    return HfTable(path, files, table, hf_options)


def _find_files(path: str, split: str) -> tuple[Path | None, list[Path]]:
    """The folder that `save_to_disk` wrote this split into, if it did, and the files of the split."""
    folder = Path(path.replace("{split}", split))
    saved = saved_splits(folder)
    if saved == [(folder, "")]:  # one dataset rather than a dictionary of splits
        check_split(path, split)
        return folder, saved_files(folder)
    if saved:
        chosen = min(_of_split(folder, saved, split), key=lambda part: part.name != split)  # the exact name first
        return chosen, saved_files(chosen)
    if not folder.is_dir():
        check_split(path, split)
        return None, expand_pattern(path, split)
    files = data_files(folder, (".parquet", ".arrow")) or data_files(folder, (".jsonl", ".json"))
    if not files:
        raise UserError(f"{path}: no {', '.join(BUILDERS)} file here, and no dataset saved by save_to_disk")
    if not any(name for _, name in files):
        check_split(path, split)
        return None, [file for file, _ in files]
    return None, _of_split(folder, files, split)


def _of_split(folder: Path, parts: list[tuple[Path, str]], split: str) -> list[Path]:
    """The folders or files of a split."""
    chosen = [part for part, name in parts if name == split_name(split)]
    if not chosen:
        splits = ", ".join(sorted({name for _, name in parts if name}))
        raise UserError(f"{folder}: no split {split!r}; splits here: {splits}")
    return chosen


def _builder(file: Path) -> str:
    if file.suffix not in BUILDERS:
        raise UserError(f"{file}: unsupported suffix; use kind: csv for tables, kind: webdataset for tar shards")
    return BUILDERS[file.suffix]
