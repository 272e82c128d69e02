"""Write a dataset shard by shard, so that a stopped run continues where it stopped.

OUT/.partial/made_from.json   what the finished shards are made from
OUT/.partial/000000.arrow     a finished shard, with its digest at the end: after a power failure, a file may be empty,
                              incomplete or filled with zeros
OUT/data                      all rows, as a Hugging Face dataset
OUT/DESCRIPTION.json          written last: the dataset is complete
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError
from shared.files import read_json, write_json
from shared.locks import LOCK, hold, release
from shared.saved.checksum import FolderKind, write_description
from shared.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST_SIZE = hashlib.sha256().digest_size
"""Bytes at the end of a shard: the digest of all bytes before them."""


def _describe_change(name: str, stored: Any, value: Any) -> str:
    return f"{name} {stored} (now {value})"


class ShardWriter:
    """A dataset of `total` clips, written in shards of `shard_size` clips.

    shards: the range of clips in each shard. Several processes may write different shards at the same time.
    """

    FOLDER = ".partial"

    def __init__(self, out: Path, kind: FolderKind, total: int, shard_size: int):
        self.out, self.description, self.total = out, out / kind.description, total
        self.saved_as, self.kind = kind, kind.what
        self.folder = out / self.FOLDER
        self.shards = [range(start, min(start + shard_size, total)) for start in range(0, total, shard_size)]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.arrow"

    def is_complete(self) -> bool:
        return self.description.exists()

    def claim(
        self,
        made_from: dict[str, Any],
        stored: dict[str, Any] | None,
        describe_change: Callable[[str, Any, Any], str] = _describe_change,
    ) -> bool:
        """Whether the dataset is complete and made from `made_from`. If not, claim the folder for this run.

        stored: what a complete dataset is made from; None for an incomplete one. describe_change(name, stored, value)
        describes an entry that differs. Raises UserError if the folder holds anything else.
        """
        mark = self.folder / "made_from.json"
        complete = stored is not None
        if stored is None and mark.exists():
            stored = read_json(mark, f"unfinished {self.kind}", f"delete {self.out}")
        elif stored is None:
            if self.out.exists() and (not self.out.is_dir() or set(os.listdir(self.out)) - {self.folder.name}):
                raise UserError(f"{self.out}: holds files that are not a {self.kind}; choose another --out")
            write_json(mark, made_from)
            return False
        pairs = {name: (stored.get(name), value) for name, value in made_from.items()}
        changes = ", ".join(describe_change(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1])
        if changes:
            article = "a" if complete else "an unfinished"
            raise UserError(
                f"{self.out}: holds {article} {self.kind} made with other {changes}; choose another --out or delete it"
            )
        if complete:  # a run may have been killed before it removed the folder
            shutil.rmtree(self.folder, ignore_errors=True)
        return complete

    @contextlib.contextmanager
    def locked(self, share: tuple[int, int] | None = None) -> Iterator[None]:
        """Keep other processes from writing the dataset, or, with a share (I, N), from writing this share and from
        finishing the dataset. UserError names the process that is writing, and tells if one has just finished."""
        try:
            hold(self.folder, self.out, shared=share is not None)
            if self.is_complete():
                raise UserError(f"{self.out}: another process has just finished it; nothing to do")
            if share is not None:
                hold(self.folder, self.out, f"{LOCK}.{share[0] + 1}-{share[1]}")
            yield
        finally:
            release(self.folder)

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Which of the shards `numbers` are missing or damaged. Reads each shard once."""
        return [number for number in numbers if not verify_shard(self.path(number))]

    def clips_in(self, numbers: Iterable[int]) -> int:
        return sum(len(self.shards[number]) for number in numbers)

    def clips_in_damaged(self, missing: Iterable[int]) -> int:
        """Number of clips in missing shards that exist but are damaged."""
        return self.clips_in(number for number in missing if self.path(number).exists())

    def progress_notes(self, numbers: Iterable[int], missing: Iterable[int]) -> list[str]:
        """What a run that writes the shards `numbers` prints about the shards from an earlier run."""
        total, todo, damaged = self.clips_in(numbers), self.clips_in(missing), self.clips_in_damaged(missing)
        damage = (
            f"{self.out}: the shards of {damaged} of {counted(total, 'clip', 'is', 'are')} damaged and written again"
        )
        state = f"{self.out}: continuing; {total - todo} of {counted(total, 'clip', 'is', 'are')} done"
        return [damage] * (damaged > 0) + [state] * (todo < total)

    def finish(self, table: "pa.Table", fingerprint: str, info: dict[str, Any]) -> None:
        """Save the rows of all shards as OUT/data, then the description, and remove the shards. Called by one
        process."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        save_table(table, self.folder / "data", fingerprint)
        shutil.rmtree(self.out / "data", ignore_errors=True)
        (self.folder / "data").rename(self.out / "data")
        remove_partials(self.out)
        write_description(self.out, self.saved_as, info)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def write_shard(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write to. If the block ends without an error, the file becomes the shard `path`."""
    # Not the process id: jobs on several machines may have the same id and share the folder.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # free the space on a full disk
        raise


def verify_shard(path: Path) -> bool:
    """Whether the shard exists and matches its digest."""
    content = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - DIGEST_SIZE
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                content.update(block)
                left -= len(block)
            return file.read() == content.digest()
    except OSError:
        return False


def read_shard(path: Path) -> "pa.Buffer":
    """The content of a shard, memory-mapped."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return file.read_buffer(file.size() - DIGEST_SIZE)


def save_table(table: "pa.Table", path: Path, fingerprint: str) -> None:
    """Save a table as a Hugging Face dataset, with a given fingerprint, so that equal rows give equal bytes."""
    import datasets

    enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(table, fingerprint=fingerprint).save_to_disk(str(path))
    finally:
        if enabled:
            datasets.enable_progress_bars()


def remove_partials(folder: Path) -> None:
    """Remove temporary files of killed runs from a folder (see shared/files.py). No other process may be writing to
    it."""
    for path in folder.glob(".*.partial"):
        if path.is_file():
            path.unlink(missing_ok=True)
