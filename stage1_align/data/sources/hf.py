"""Source "hf": Hugging Face datasets on this machine.

A folder that `save_to_disk` wrote (its splits by name), or parquet, arrow or jsonl files: a folder of them, or a
pattern with {split}, braces and wildcards. With `streaming` nothing is copied or indexed: files are read one after the
other.

Media columns are read as they are stored (bytes, paths, arrays) and decoded by this project's own decoders: the Audio
and Image types of `datasets` would decode every row that is skipped, and need further packages.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.errors import UserError
from shared.files import read_json
from shared.text import one_line
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
from stage1_align.data.sources.columns import ColumnOptions, Columns
from stage1_align.data.sources.records import Record, decode_record

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json"}


@dataclass
class HfOptions(ColumnOptions):
    streaming: bool = False
    """Read the files in passing: for corpora too large to copy into the cache of `datasets`."""
    buffer: int = 1000
    """Rows, not decoded, that the order of a stream is drawn from."""
    frame_rate: float = 8.0
    """Pictures a second that the frames of a video are chosen from."""


class _Rows(PairSource):
    """What both ways of reading have in common. An item becomes a row {column: value} by `_row`."""

    def _prepare(self, path: str, files: list[Path], options: HfOptions, there: list[str]) -> None:
        self.name, self.digest = path, files_digest(files)
        self.root = Path(options.root) if options.root else files[0].parent
        self.frame_rate = options.frame_rate
        self.columns = Columns(options, there, path)
        self.label_names, self.text_kinds = self.columns.labels, self.columns.text_kinds

    def _row(self, item: Any) -> dict[str, Any]:
        return item

    def sample(self, item: Any, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        row = self._row(item)
        media = {part: self._medium(self.columns.medium(part, row)) for part in ("image", "audio", "video")}
        return decode_record(Record(self.columns.words(row, self.name), **media), sample_rate, select, self.frame_rate)

    def _medium(self, value: Any) -> Any:
        """What `decode_record` takes for a cell: bytes, a path, or {"bytes", "path"}, as `datasets` stores media."""
        if isinstance(value, dict) and "array" not in value:
            value = value.get("bytes") or value.get("path")
        return self.root / value if isinstance(value, str) else value


class HfTable(_Rows, TableSource):
    """Rows by their number."""

    def __init__(self, path: str, files: list[Path], table, options: HfOptions):
        """table: a datasets.Dataset of the files."""
        self._prepare(path, files, options, table.column_names)
        words = [name for kind in ("caption", "transcript") for name in self.columns.of[kind]] + self.label_names
        self.table = table.with_format("arrow")  # rows as stored, nothing decoded
        self.texts = table.select_columns(list(dict.fromkeys(words))).with_format("arrow")
        self.annotations(0)  # labels that are no numbers show at once

    def __len__(self) -> int:
        return len(self.table)

    def annotations(self, item: int) -> TextAnnotations:
        return self.columns.words(self.texts[item].to_pylist()[0], self.name)

    def _row(self, item: int) -> dict[str, Any]:
        return self.table[item].to_pylist()[0]


class HfStream(_Rows, StreamSource):
    """Rows in passing, a file a shard."""

    def __init__(self, path: str, files: list[Path], options: HfOptions):
        self.shards, self.buffer = files, options.buffer
        first = next(self.first(1), None)
        if first is None:
            raise UserError(f"{path}: none of its {len(files)} files holds a readable row")
        self._prepare(path, files, options, list(first))
        self.annotations(first)  # labels that are no numbers show at once

    def read(self, shard: Path) -> Iterator[dict[str, Any]]:
        import datasets

        try:
            files = {"train": [str(shard)]}
            yield from datasets.load_dataset(_builder(shard), data_files=files, split="train", streaming=True).decode(
                False
            )
        except Exception as error:  # of pyarrow, fsspec, json, datasets: whatever a damaged file leads to
            raise DamagedShard(one_line(error, 200)) from None

    def annotations(self, item: dict[str, Any]) -> TextAnnotations:
        return self.columns.words(item, self.name)


def open_hf(path: str, split: str, options: dict) -> HfTable | HfStream:
    import datasets

    chosen = configuration.build(HfOptions, options, path)
    folder = Path(path.replace("{split}", split))
    saved = _saved(folder, split)
    if saved is None:
        check_split(path, split)
        files = [file for file in sorted(folder.iterdir()) if file.suffix in BUILDERS] if folder.is_dir() else None
        files = expand_pattern(path, split) if files is None else files
        if not files:
            raise UserError(f"{path}: no {', '.join(BUILDERS)} file here, and no dataset saved by save_to_disk")
    else:
        state = read_json(saved / "state.json", "saved dataset", "write it again with save_to_disk")
        files = [saved / file["filename"] for file in state["_data_files"]]
        if saved == folder:  # one dataset rather than a dictionary of splits
            check_split(path, split)
    if chosen.streaming:
        return HfStream(path, files, chosen)
    try:
        if saved is not None:
            table = datasets.load_from_disk(str(saved))
        else:
            names = [str(file) for file in files]
            table = datasets.load_dataset(_builder(files[0]), data_files={"train": names}, split="train")
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error, 200)}); streaming: true leaves damaged files out"
        ) from None
    if not len(table):
        raise UserError(f"{path}: no rows in split {split!r}")
    return HfTable(path, files, table, chosen)


def _saved(folder: Path, split: str) -> Path | None:
    """The folder `save_to_disk` wrote this split into; None when it is none of its making."""
    if (folder / "state.json").is_file():
        return folder
    if not (folder / "dataset_dict.json").is_file():
        return None
    if not (folder / split / "state.json").is_file():
        there = ", ".join(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
        raise UserError(f"{folder}: no split {split!r}; splits here: {there}")
    return folder / split


def _builder(file: Path) -> str:
    if file.suffix not in BUILDERS:
        raise UserError(f"{file}: not one of {', '.join(BUILDERS)}; source csv reads tables, webdataset tar shards")
    return BUILDERS[file.suffix]
