"""Layout "hf": Hugging Face datasets on this machine, as `save_to_disk` wrote them, or parquet files.

Media columns hold paths, bytes, or {"bytes", "path"}, as the Audio, Image and Video types are stored; of several, what
the dataset calls video comes first, then sound. Bytes stay in their file until a clip is decoded. Columns are named by
options or recognised (shared/tables/columns.py). Splits are those of the dataset, of the files' names
(train-00000-of-00002.parquet), or a column.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from shared.dataset.clip import ClipSource, StoredMedia
from shared.dataset.media_files import ids_from_paths
from shared.errors import UserError
from shared.files import read_json
from shared.tables.arrow import open_table
from shared.tables.columns import NAMES, ColumnOptions, choose, clips_of
from shared.tables.table import Finder, plain, split_name
from shared.text import one_line

SUFFIXES = (".parquet", ".arrow")


@dataclass
class HuggingFace(ColumnOptions):
    def read(self, source: Path) -> ClipSource:
        """The rows of all files. A damaged file is left out and noted; UserError when none can be read."""
        header, rows, places, splits, notes = None, [], [], [], []
        for file, split in _files(source):
            try:
                names, cells, media, types = _read_text_columns(file)
            except Exception as error:  # of pyarrow: whatever a damaged file leads to
                notes.append(f"{file}: left out, it cannot be read ({one_line(error, 150)})")
                continue
            if header is None:
                header, stored, kinds = names, media, types
            if names != header:
                notes.append(f"{file}: left out, it has other columns ({', '.join(names)})")
                continue
            rows += cells
            places += [(file, row) for row in range(len(cells))]
            splits += [split] * len(cells)
        if header is None:
            why = "; ".join(notes) or "neither parquet nor arrow files"
            raise UserError(f"{source}: no readable dataset here; {why}")

        def at(row: int) -> str:
            return f"{places[row][0]}: row {places[row][1]}"

        finder = Finder(Path(self.root) if self.root else source if source.is_dir() else source.parent)
        options = self if self.media else replace(self, media=self._media(header, rows, stored, kinds, finder))
        classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
        columns = choose(options, header, rows, str(source), at, stored, classes)

        def files(row: int, column: int) -> Path | StoredMedia | None:
            value = rows[row][column]
            if isinstance(value, _Inside):
                return StoredMedia(*places[row], header[column])
            return finder.find(str(value or ""))

        named = columns.media if columns.id is None else columns.id
        ids = [str(row[named] if row[named] is not None else "") for row in rows]
        if columns.id is None:
            ids = ids_from_paths(ids)
            if not all(ids) or len(set(ids)) < len(ids):
                ids = [f"{split or file.stem}-{row:06d}" for (file, row), split in zip(places, splits, strict=True)]
        found = clips_of(columns, rows, ids, files, finder, at)
        found.clips = [
            replace(clip, split=clip.split or split) for clip, split in zip(found.clips, splits, strict=True)
        ]
        found.notes = notes + found.notes
        return found

    def _media(self, header: list[str], rows: list[list], stored: list[str], kinds: dict, finder: Finder) -> str:
        """The column of the media where nothing is said: one of paths, by its name, if they lead to files; else the
        first of those in the dataset. Paths that lead nowhere say where files lay when it was made."""
        claimed = {
            plain(name) for name in (self.audio, self.id, self.transcript, self.split, *self.labels, *self.groups)
        }
        free = {plain(name): i for i, name in reversed(list(enumerate(header))) if plain(name) not in claimed}
        named = next((free[name] for name in NAMES["media"] if name in free and header[free[name]] not in stored), None)
        if named is not None and any(os.path.isfile(finder.find(str(row[named] or "")) or "") for row in rows):
            return header[named]
        inside = [
            name for name in stored if plain(name) in free and any(row[header.index(name)] is not None for row in rows)
        ]
        inside = sorted(inside, key=lambda name: _rank(name, kinds.get(name)))
        if inside and (named is None or kinds.get(inside[0]) != "Image"):
            return inside[0]
        return "" if named is None else header[named]


def _rank(name: str, kind: str | None) -> int:
    """Video, what is called as media are, sound, anything else, pictures."""
    if kind in ("Video", "Audio", "Image"):
        return {"Video": 0, "Audio": 2, "Image": 4}[kind]
    return 2 if plain(name) in NAMES["audio"] else 1 if plain(name) in NAMES["media"] else 3


class _Inside(str):
    """A cell whose media lie in the table itself; the text is the name they were given there."""


def _files(source: Path) -> list[tuple[Path, str]]:
    """The files of a dataset with their splits."""
    if source.is_file():
        return [(source, "")]
    parts = [source] if (source / "state.json").is_file() else []
    if (source / "dataset_dict.json").is_file():
        parts = sorted(folder for folder in source.iterdir() if (folder / "state.json").is_file())
    if parts:
        found = []
        for folder in parts:
            state = read_json(folder / "state.json", "saved dataset", "write it again with save_to_disk")
            split = "" if folder == source else split_name(folder.name)
            try:
                found += [(folder / file["filename"], split) for file in state["_data_files"]]
            except (KeyError, TypeError):
                raise UserError(f"{folder}/state.json: names no files as a saved dataset's does") from None
        return found
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [(path, _split_of(path)) for path in found]


def _split_of(path: Path) -> str:
    """The split that a file's name begins with, or that its folder is called."""
    for name in (re.split(r"[-_.]", path.stem)[0], path.parent.name):
        if split_name(name) in ("train", "valid", "test"):
            return split_name(name)
    return ""


def _read_text_columns(file: Path) -> tuple[list[str], list[list], list[str], dict[str, str]]:
    """Column names, rows without the bytes in them, the names of the columns that hold media, and the types that the
    dataset gives to columns."""
    import pyarrow as pa

    table = open_table(file)
    names, columns, media = list(table.schema.names), [], []
    for name in names:
        kind = table.schema.field(name).type
        inside = pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} >= {"bytes", "path"}
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not (inside or binary):
            columns.append(table.column(name).to_pylist())
            continue
        media.append(name)
        columns.append([cell for chunk in table.chunks(name) for cell in _names(chunk, inside)])
    return names, [list(row) for row in zip(*columns, strict=True)], media, _types(table.schema)


def _types(schema) -> dict[str, str]:
    """{column: Video, Audio, Image, ClassLabel, Value, ...} as a schema notes it; empty where it does not."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in features.items() if "_type" in feature}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _names(chunk, inside: bool) -> list:
    """What stands for each media cell of an Arrow array: its path, marked where the bytes are there; None if empty."""
    data = chunk.field("bytes") if inside else chunk
    paths = chunk.field("path").to_pylist() if inside else [None] * len(chunk)
    there = data.is_valid().to_pylist()
    return [_Inside(path or "") if some else path for some, path in zip(there, paths, strict=True)]
