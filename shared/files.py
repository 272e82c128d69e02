"""Atomic writing of files and folders, reading JSON, and digests. Imports nothing heavy."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shared.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old file or the complete new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name: jobs on several machines may share the folder, and have equal process ids.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    # File names need not be valid Unicode; their invalid bytes are escaped.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path, what: str, how: str) -> Any:
    """Read JSON. UserError when `what` is missing or damaged; `how` says how to make it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no {what} here; {how}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged {what} ({error}); {how}") from None


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name when the block ends without an error, and then replaces an older one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the space
        raise
    replaced = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link where the file system supports it, otherwise a copy."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a JSON-like value, or of the bytes of a file (Path)."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
