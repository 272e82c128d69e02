"""Atomic writing of files and folders, reading JSON, and digests. Imports nothing heavy."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
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
    """Write a text file atomically, as `write_bytes` does."""
    # File names need not be valid Unicode; their invalid bytes are escaped.
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old file or the complete new one. A symbolic link is kept, and its
    target is written. UserError if the path is not a file (a folder, a device, a pipe); an OSError names `path`, and
    leaves no partial file behind."""
    target = Path(os.path.realpath(path))
    if is_stream(path) or (os.path.lexists(target) and not target.is_file()):
        raise UserError(f"{path}: is not a file but a folder, a device or a pipe; give the name of a file")
    # A random name: jobs on several machines may share the folder and have equal process ids.
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the disk is full or not writable
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def is_stream(path: Path) -> bool:
    """Whether a name such as /dev/stdout refers to an open file of a process. That file, such as a shell's log, belongs
    to whoever opened it: it is never replaced, and nothing is written next to it."""
    for _ in range(40):  # chained links, up to the system's limit
        path = Path(os.path.realpath(path.parent), path.name)
        if not path.is_symlink():
            return False
        if path.is_relative_to("/proc"):
            return True
        path = path.parent / os.readlink(path)
    return False


NO_FILE = "no file but a pipe or a device; write its content to a file"


def is_special(path: Path) -> bool:
    """Whether the path exists but is neither a file nor a folder: a pipe would wait for its writer, and /dev/zero never
    ends."""
    return path.exists() and not path.is_file() and not path.is_dir()


def read_file(path: Path) -> bytes:
    """The bytes of a file, or of an open file such as /dev/stdin. OSError for any other pipe or device."""
    if is_special(path) and not is_stream(path):
        raise OSError(NO_FILE)
    return path.read_bytes()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path, what: str, how: str) -> Any:
    """Read JSON. UserError if `what` is missing or damaged; `how` says how to create it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: damaged {what} ({error}); {how}") from None
    except (OSError, ValueError):  # ValueError: not a valid file name
        raise UserError(f"{path}: no {what} here; {how}") from None


def read_object(path: Path, what: str, how: str) -> dict[str, Any]:
    """Read a JSON object. UserError as in `read_json`, and if the file holds another value."""
    content = read_json(path, what, how)
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged {what} (it holds {type(content).__name__}, not an object); {how}")
    return content


def saved_folder(folder: str | Path) -> Path:
    """The folder for `save_pretrained` to write. UserError if it has no name, or if writing it would delete something
    else: a file, or a folder not written by a `save_pretrained` of this project."""
    if not isinstance(folder, str | os.PathLike) or not Path(folder).name:
        raise UserError(f"got {folder!r}: give the name of a folder to save to")
    path = Path(folder)
    if path.is_dir() and any(path.iterdir()):
        config = path / "config.json"
        content = read_json(config, "configuration", "choose another folder") if config.is_file() else None
        if not isinstance(content, dict) or not str(content.get("format")).startswith("emit-"):
            raise UserError(f"{path}: holds other files, which saving would delete; choose another folder")
    elif path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; choose another name")
    return path


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name, and replaces an older one, when the block ends without an error. A symbolic link to
    a folder is kept: its target is replaced."""
    path = Path(os.path.realpath(path))
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
    """A hard link if the file system supports it, otherwise a copy."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


SAMPLE_BYTES = 4096


def sample_digest(path: Path, places: int = 3) -> str:
    """Sixteen hexadecimal digits of SAMPLE_BYTES at evenly spaced positions of a file, including its start and end:
    another recording with the same name and size differs there, and reading them takes no time. "" for a file that
    cannot be read."""
    content = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for start in ((size - SAMPLE_BYTES) * place // (places - 1) for place in range(places)):
                file.seek(max(0, start))
                content.update(file.read(SAMPLE_BYTES))
    except OSError:
        return ""
    return content.hexdigest()[:16]


def is_digest(value: Any) -> bool:
    """Whether a value looks like a result of `digest`."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a JSON-like value, or of the bytes of a file (Path)."""
    if isinstance(value, Path):
        with value.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
