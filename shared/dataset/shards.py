"""Parts of a dataset that is being made: files that carry their digest, so that a damaged one is made again.

A power cut may leave a file under its name with none, some or zeros of its content.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

SEAL = hashlib.sha256().digest_size
"""Bytes at the end of a part: the digest of all before them."""


@contextlib.contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """A file to write to, which appears as the part `path` when the block ends without an error."""
    # Not the process id: jobs on several machines may share it, and the folder.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            seal = hashlib.file_digest(file, "sha256").digest()
            file.write(seal)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # a full disk has no room for half a file
        raise


def is_whole(path: Path) -> bool:
    """Whether there is a part as it was written."""
    content = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - SEAL
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                content.update(block)
                left -= len(block)
            return file.read() == content.digest()
    except OSError:
        return False


def read_part(path: Path):
    """What was written, as a pyarrow buffer that lies on the disk."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return file.read_buffer(file.size() - SEAL)


def sweep(folder: Path) -> None:
    """Remove what killed runs left of the files that they wrote straight into a folder (shared/files.py); for when
    nobody else writes there."""
    for path in folder.glob(".*.partial"):
        if path.is_file():
            path.unlink(missing_ok=True)
