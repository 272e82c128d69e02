"""Writing files whole or not at all, reading JSON with a word of advice, and digests. Imports nothing heavy."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: jobs on several machines may share it, and the folder.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    # A file name on the disk may be no text at all; what is written of it is.
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)


def write_csv(path: Path, columns: list[str], rows: list[list]) -> None:
    """Write a CSV whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path, what: str, how: str) -> Any:
    """Read JSON; UserError says that `what` is missing and `how` to make it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no {what} here; {how}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged {what} ({error}); {how}") from None


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends without an error; an older one is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk has no room for half a folder
        raise
    replaced = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link where the disk allows one, else a copy."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that change when a JSON-like value, or the bytes of a file (Path), change."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
