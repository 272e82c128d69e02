"""Find media files with equal content without reading all of them."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from shared.dataset.clip import StoredMedia
from shared.files import digest

BLOCK_BYTES = 1 << 20
"""Bytes at each end that are compared before files of equal size are read completely."""
MAX_TABLE_BYTES = 1 << 30
"""Largest total size of tables to compare their media, because all of them are read."""

MediaFile = Path | StoredMedia | None


def equal_file_keys(files: list[MediaFile]) -> list[str]:
    """For each file a key shared by files with equal content; "" for a unique, empty or unreadable file.

    Only files of equal size are opened, and only files with equal ends are read completely.
    """
    keys = [""] * len(files)

    def keep_equal(indices: list[int], key_of: Callable) -> list[int]:
        """The files that share their key with another file."""
        new_keys = {i: key_of(files[i]) for i in indices}
        count = Counter(new_keys.values())
        for i, key in new_keys.items():
            keys[i] = key if count[key] > 1 else ""
        return [i for i in indices if keys[i]]

    if table_bytes(files) <= MAX_TABLE_BYTES:
        keep_equal([i for i, file in enumerate(files) if isinstance(file, StoredMedia)], _stored_digest)
    indices = [i for i, file in enumerate(files) if isinstance(file, Path) and file_exists(file)]
    for key_of in (_size, _ends_digest, _file_digest):
        indices = keep_equal(indices, key_of)
    return keys


def not_compared_notes(*file_lists: list[MediaFile]) -> list[str]:
    """A note if the tables are too large to compare the media in them."""
    size = max(table_bytes(files) for files in file_lists)
    return [f"media in tables of {size / 2**30:.1f} GiB are not read to be compared"] if size > MAX_TABLE_BYTES else []


def table_bytes(files: list[MediaFile]) -> int:
    return sum(path.stat().st_size for path in {file.file for file in files if isinstance(file, StoredMedia)})


def file_exists(file: Path | StoredMedia) -> bool:
    return isinstance(file, StoredMedia) or os.path.isfile(file)


def _stored_digest(cell: StoredMedia) -> str:
    try:
        return hashlib.sha256(cell.read()).hexdigest()
    except Exception:  # pyarrow raises errors of many types for a damaged table
        return ""


def _size(path: Path) -> str:
    return str(path.stat().st_size or "")


def _ends_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            first = file.read(BLOCK_BYTES)
            file.seek(max(0, os.fstat(file.fileno()).st_size - BLOCK_BYTES))
            return digest([first.hex(), file.read(BLOCK_BYTES).hex()])
    except OSError:
        return ""


def _file_digest(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        return ""
