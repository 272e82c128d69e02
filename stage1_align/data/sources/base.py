"""What every source promises, and how its files and options are read."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from shared.errors import UserError
from shared.files import digest
from stage1_align.data.captions import Words
from shared.text import one_line

T = TypeVar("T")

Choose = Callable[[int], list[int]]
"""Which pictures of so many."""


@dataclass
class Sample:
    """An item, decoded. What it lacks, and what could not be decoded, is empty and takes no part in any loss."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3); T = 0 without a picture."""
    waveform: np.ndarray
    """float32 (S,) in [-1, 1]; S = 0 without sound."""
    words: Words
    damage: str = ""
    """Which media could not be decoded, and why."""


class Source:
    """Items with pictures, sound and words. An item is whatever `first`, an index or `records` gives; pickled, it
    travels to the process that decodes it."""

    name: str
    """For messages."""
    digest: str
    """Changes with the data."""
    label_names: list[str]
    """Names of the K labels."""
    kinds: set[str]
    """Kinds of text that items may have."""

    def first(self, limit: int) -> Iterator[Any]:
        """The first items, the same at every call."""
        raise NotImplementedError

    def words(self, item: Any) -> Words:
        """The item's texts and labels, without opening its media."""
        raise NotImplementedError

    def sample(self, item: Any, rate: int | None, choose: Choose | None) -> Sample:
        """The item with its sound at `rate` Hz (None: without sound) and the pictures that `choose` picks of their
        number (None: without pictures). Damaged media never raise."""
        raise NotImplementedError


class Table(Source):
    """A source whose items are the integers below its length."""

    def __len__(self) -> int:
        raise NotImplementedError

    def first(self, limit: int) -> Iterator[int]:
        return iter(range(min(limit, len(self))))


class Stream(Source):
    """A source that is read shard by shard; its items are records that are not decoded yet."""

    shards: list[Path]
    buffer: int
    """Records the order is drawn from."""

    def read(self, shard: Path) -> Iterator[Any]:
        """The records of a shard, in their order. Damaged where the shard cannot be read any further."""
        raise NotImplementedError

    def records(self, rng: np.random.Generator, report: Callable[[str], None]) -> Iterator[Any]:
        """All records once: shards in an order drawn by `rng`, and each record drawn from the next `buffer` ones.
        The rest of a damaged shard is left out, and told to `report`."""
        held: list[Any] = []
        for record in self._in_order(rng.permutation(len(self.shards)), report):
            if len(held) < self.buffer:
                held.append(record)
            else:
                slot = int(rng.integers(self.buffer))
                yield held[slot]
                held[slot] = record
        for slot in rng.permutation(len(held)):
            yield held[slot]

    def first(self, limit: int) -> Iterator[Any]:
        return islice(self._in_order(range(len(self.shards)), lambda what: None), limit)

    def _in_order(self, order, report: Callable[[str], None]) -> Iterator[Any]:
        for index in order:
            try:
                yield from self.read(self.shards[index])
            except Damaged as error:
                report(f"{self.shards[index]}: {error}; the rest of this shard is left out")


class Damaged(Exception):
    """Says why a shard cannot be read any further."""


class Damage:
    """Counts what could not be read, and says so in one line the first, tenth, hundredth, ... time."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def add(self, source: str, what: str) -> None:
        self.count[source] += 1
        n = self.count[source]
        if n == 10 ** (len(str(n)) - 1):
            sys.stderr.write(f"warning: {source}: {n} damaged so far, left out; this time {what}\n")


# --- files ---------------------------------------------------------------------------------------------------------


def expand(pattern: str, split: str, where: str) -> list[Path]:
    """The files of a pattern, in the order of their names: {split} is replaced, braces ({a,b}, {000..012}) and
    wildcards are expanded. UserError when there is no such file."""
    import glob

    found: list[Path] = []
    for name in _braces(pattern.replace("{split}", split)):
        if glob.has_magic(name):
            found += map(Path, glob.glob(name, recursive=True))
        elif Path(name).is_file():
            found.append(Path(name))
        else:
            raise UserError(f"{where}: no file {name}")
    if not found:
        raise UserError(f"{where}: no file fits {pattern}")
    return sorted(set(found))


def _braces(pattern: str) -> list[str]:
    """Names of a pattern with braces, as a shell expands them; one level deep."""
    import re

    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not match:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        width = len(first) if first.startswith("0") else 0
        middles = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    else:
        middles = words.split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [head + middle + rest for middle in middles for rest in _braces(tail)]


def files_digest(files: list[Path]) -> str:
    """Of names and sizes: reading a corpus to see whether it changed would take as long as training on it."""
    return digest([[file.name, file.stat().st_size] for file in files])


def check_split(path: str, split: str) -> None:
    """UserError when a source without splits of its own is asked for another one than the training data."""
    if split != "train" and "{split}" not in path:
        raise UserError(
            f"{path}: no split {split!r} here: put {{split}} into the path, or leave valid_split empty to validate on "
            "other sources"
        )


def short(error: Exception) -> str:
    """An error in one line of bearable length."""
    return one_line(error, 200)
