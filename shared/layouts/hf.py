"""Layout "hf": Hugging Face datasets on this machine, written by `save_to_disk`, or Parquet files.

Media columns contain paths, bytes, or {"bytes", "path"}, as stored by the Audio, Image and Video types. If there are
several, Video columns come first, then sound. Bytes stay in their file until a clip is decoded. Columns are named by
options or recognized (shared/tables/columns.py). Splits come from the dataset, the file names
(train-00000-of-00002.parquet) or a column.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.dataset.clip import ClipSource, LeftOut, StoredMedia
from shared.dataset.media_files import ids_from_paths
from shared.errors import UserError
from shared.layouts.table_clips import ClipColumnOptions, clips_from_rows, find_clip_columns
from shared.tables.arrow import ArrowRows, EmbeddedMedia, read_rows
from shared.tables.columns import USUAL_NAMES, Header, normalize_name
from shared.tables.dataset_files import data_files, saved_files, saved_splits
from shared.tables.media_finder import FoundMedia, MediaFinder
from shared.tables.missing_words import empty_missing_words
from shared.text import one_line

SUFFIXES = (".parquet", ".arrow")


@dataclass
class HuggingFace(ClipColumnOptions):
    def read(self, source: Path) -> ClipSource:
        """The rows of all files. A damaged file is left out with a note; UserError if none can be read."""
        table: ArrowRows | None = None
        rows: list[list[Any]] = []
        origins: list[tuple[Path, int]] = []  # file and row
        splits: list[str] = []
        left_out: list[LeftOut] = []
        for file, split in _files(source):
            try:
                part = read_rows(file)
            except Exception as error:  # pyarrow raises many types for damaged files
                left_out.append(LeftOut(str(file), "", f"left out, it cannot be read ({one_line(error, 150)})"))
                continue
            table = table or part
            if part.header != table.header:
                left_out.append(LeftOut(str(file), "", f"left out, it has other columns ({', '.join(part.header)})"))
                continue
            rows += part.rows
            origins += [(file, row) for row in range(len(part.rows))]
            splits += [split] * len(part.rows)
        notes = [f"{part.row}: {part.reason}" for part in left_out]
        if table is None:
            why = "; ".join(notes) or "neither parquet nor arrow files"
            raise UserError(f"{source}: no readable dataset here; {why}")

        def row_name(row: int) -> str:
            return f"{origins[row][0]}: row {origins[row][1]}"

        finder = MediaFinder(self.root_or(source if source.is_dir() else source.parent))
        options = self if self.media else replace(self, media=self._guess_media(table, rows, finder))
        classes = [name for name, kind in table.feature_types.items() if kind == "ClassLabel"]
        header = Header(table.header, str(source))
        columns = find_clip_columns(options, header, rows, row_name, table.media_columns, classes)
        words = self.missing_words
        rows, missing = empty_missing_words(table.header, rows, columns.texts, words, row_name, columns.split)

        def media_file(row: int, column: int) -> FoundMedia | StoredMedia:
            value = rows[row][column]
            if isinstance(value, EmbeddedMedia):
                return StoredMedia(*origins[row], header.names[column])
            return finder.find(str(value or ""))

        names = [None if columns.name_column is None else row[columns.name_column] for row in rows]
        ids = ["" if name is None else str(name) for name in names]
        if columns.id is None:
            ids = ids_from_paths(ids)
            if not all(ids) or len(set(ids)) < len(ids):
                ids = [f"{split or file.stem}-{row:06d}" for (file, row), split in zip(origins, splits, strict=True)]
        clip_source = clips_from_rows(columns, rows, ids, media_file, finder, row_name, str(source))
        clip_source.clips = [
            replace(clip, split=clip.split or split) for clip, split in zip(clip_source.clips, splits, strict=True)
        ]
        clip_source.notes = notes + missing + clip_source.notes
        clip_source.left_out = left_out
        return clip_source

    def _guess_media(self, table: ArrowRows, rows: list[list[Any]], finder: MediaFinder) -> str:
        """The media column if the option is not set: a column of paths, recognized by name, if the files exist;
        otherwise the first column with media. Paths to missing files are from where the dataset was created."""
        header, types = table.header, table.feature_types
        claimed = {self.audio, self.id, self.transcript, self.split, *self.labels, *self.groups}
        claimed = {normalize_name(name) for name in claimed}
        free = {normalize_name(name): i for i, name in reversed(list(enumerate(header)))}
        free = {name: i for name, i in free.items() if name not in claimed}
        candidates = (free[name] for name in USUAL_NAMES["media"] if name in free)
        paths = next((i for i in candidates if header[i] not in table.media_columns), None)
        if paths is not None and any(os.path.isfile(finder.find(str(row[paths] or "")).path or "") for row in rows):
            return header[paths]
        embedded = [name for name in table.media_columns if normalize_name(name) in free]
        embedded = [name for name in embedded if any(row[header.index(name)] is not None for row in rows)]
        embedded = sorted(embedded, key=lambda name: _priority(name, types.get(name)))
        if embedded and (paths is None or types.get(embedded[0]) != "Image"):
            return embedded[0]
        return "" if paths is None else header[paths]


def _priority(name: str, feature_type: str | None) -> int:
    """Video first, then columns named like media, sound, anything else, pictures."""
    if feature_type in ("Video", "Audio", "Image"):
        return {"Video": 0, "Audio": 2, "Image": 4}[feature_type]
    name = normalize_name(name)
    return 2 if name in USUAL_NAMES["audio"] else 1 if name in USUAL_NAMES["media"] else 3


def _files(source: Path) -> list[tuple[Path, str]]:
    """The files of a dataset and their splits."""
    if source.is_file():
        return [(source, "")]
    saved = [(file, split) for folder, split in saved_splits(source) for file in saved_files(folder)]
    return saved or data_files(source, SUFFIXES)
