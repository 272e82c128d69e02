"""Uploaded files: limited in size, stored under random names, and deleted after use.

A file is stored under a random name in a folder that nobody else can read; the sender's name is only for display.
Scoring a file deletes it; unused files are deleted after a while, and all others at the end.
"""

import os
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.text import one_line, repair_surrogates

MAX_NAME = 120
"""Most characters of a name to show."""
KEPT_REQUESTS = 10
"""Most uploads stored at once, in multiples of the largest request."""
UNUSED_SECONDS = 1800.0
"""Seconds after which an unused upload is deleted."""


class UploadError(Exception):
    """An upload is refused: one line for whoever sent it, and the HTTP status."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """A stored file."""

    path: Path
    """In the folder of the store; random, except for the suffix of a media file."""
    name: str
    """The sender's name for it, shortened and without control characters. Text for display: not a path, not HTML."""
    size: int
    """Bytes."""
    stored_at: float = field(default_factory=time.monotonic)


class UploadStore:
    """The uploaded files of one server, in a temporary folder that `close` removes. All methods are thread-safe."""

    def __init__(self, max_bytes: int):
        """max_bytes: of all files of one request together."""
        self.max_bytes = max_bytes
        self.folder = Path(tempfile.mkdtemp(prefix="emit-serve-")).resolve()
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def check_size(self, size: int) -> None:
        """UploadError 413 for a request of more than `max_bytes`; 503 if too much is stored already."""
        if size > self.max_bytes:
            raise UploadError(f"more than {megabytes(self.max_bytes)} in one request; send less at once", 413)
        with self._lock:
            stored = sum(upload.size for upload in self._uploads.values())
        if stored + size > KEPT_REQUESTS * self.max_bytes:
            raise UploadError(f"{megabytes(stored)} of uploads are waiting already; try again later", 503)

    def add(self, content: BinaryIO, size: int, name: str) -> Upload:
        """Store the file `content`."""
        self.check_size(size)
        suffix = Path(name).suffix.lower()
        path = self.folder / (secrets.token_hex(16) + (suffix if suffix in MEDIA_SUFFIXES else ""))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        upload = Upload(path, shown_name(name), size)
        with self._lock:
            self._uploads[str(path)] = upload
        return upload

    def get(self, path: str) -> Upload:
        """The upload stored at `path`. UploadError for any other path, and for a file that is already deleted."""
        with self._lock:
            upload = self._uploads.get(path)
        if upload is None:
            raise UploadError("this upload is not there (it was scored, or deleted unused); send the file again", 404)
        return upload

    def delete(self, uploads: list[Upload]) -> None:
        """Delete files after use."""
        for upload in uploads:
            with self._lock:
                self._uploads.pop(str(upload.path), None)
            upload.path.unlink(missing_ok=True)

    def delete_unused(self, seconds: float = UNUSED_SECONDS) -> None:
        """Delete files stored more than `seconds` ago."""
        with self._lock:
            old = [upload for upload in self._uploads.values() if time.monotonic() - upload.stored_at > seconds]
        self.delete(old)

    def close(self) -> None:
        """Delete everything, including the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def shown_name(name: str) -> str:
    """A name that fits on one line, without the folders before it and without control characters."""
    name = repair_surrogates(name).replace("\\", "/").rsplit("/", 1)[-1]
    name = one_line("".join(c if c.isprintable() else " " * c.isspace() for c in name)) if name.strip() else "clip"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 12]}…{name[-11:]}"


def megabytes(size: int) -> str:
    """A size as people write it."""
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
