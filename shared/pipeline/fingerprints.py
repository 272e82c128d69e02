"""Fingerprints of the inputs and outputs of steps: the content of a file, the checksum of a saved folder, the files of
any other folder."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import digest, sample_digest
from shared.saved.checksum import KINDS, read_sealed_json

RUN_FILES = ("made_from.json", "config.yaml")
"""Next to metrics.json, which a finished training run has."""
MOST_READ = 20_000
"""In a folder with more files, only sizes and modification times count, not content."""
MOST_BYTES = 2**28
"""Larger files are represented by their size and a sample of their content."""


def fingerprint(path: Path) -> str:
    """Sixteen hexadecimal digits that change with the content of a path; "" if it does not exist."""
    if path.is_file():
        status = path.stat()
        return _of_file(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)
    return digest(sorted(_of_folder(path))) if path.is_dir() else ""


@functools.lru_cache(maxsize=4096)
def _of_file(path: Path, size: int, *_changes: int) -> str:
    return digest(path) if size <= MOST_BYTES else digest([size, sample_digest(path)])


def _of_folder(folder: Path) -> Iterator[list[Any]]:
    """A line for each part of a folder. Hidden files and files that a saved folder does not cover are ignored."""
    checksum = _saved_checksum(folder)
    if checksum:
        yield [".", checksum]
        return
    files, saved = [], []
    finished = all((folder / name).is_file() for name in ("metrics.json", *RUN_FILES))
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            checksum = _saved_checksum(Path(place, name))
            if checksum:
                folders.remove(name)
                saved.append([os.path.relpath(os.path.join(place, name), folder), checksum])
        kept = ("metrics.json", *RUN_FILES) if finished else names
        files += [Path(place, name) for name in names if name in kept and not name.startswith(".")]
    yield from saved
    for file in files:
        status = file.stat() if file.exists() else None
        content = status and (sample_digest(file) if len(files) <= MOST_READ else status.st_mtime_ns)
        yield [os.path.relpath(file, folder), status and status.st_size, content]


def _saved_checksum(folder: Path) -> str:
    """The checksum in a saved folder (encoders, a model, a dataset); "" for other folders."""
    for kind in KINDS:
        if (folder / kind.description).is_file():
            try:
                content = read_sealed_json(folder, kind.description, kind.what, kind.how)
            except UserError:
                continue
            if content.get("format") in (kind.format, kind.unsealed):
                return str(content.get("checksum"))
    return ""


def source_fingerprint(source: Path, layout: str | None, layout_options: dict[str, Any]) -> str:
    """Fingerprint of a source of clips, including the media that a table lists, wherever they are."""
    from shared.layouts.registry import read_source

    clips = read_source(source, layout, layout_options)
    base = source.absolute() if source.is_dir() else source.absolute().parent
    return digest([[clip.fingerprint(base) for clip in clips.clips], clips.label_names, clips.left_out])
