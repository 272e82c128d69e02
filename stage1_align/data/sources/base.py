"""The interface of all sources, and the expansion of their file patterns."""

import glob
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.files import digest
from stage1_align.data.captions import TextAnnotations

FrameSelector = Callable[[int], list[int]]
"""The number of frames of a clip -> the indices of the frames to decode."""


@dataclass
class Sample:
    """A decoded item. Missing or undecodable parts are empty and take no part in any loss."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3); T = 0 without pictures."""
    waveform: np.ndarray
    """float32 (S,) in [-1, 1]; S = 0 without sound."""
    annotations: TextAnnotations
    damage: str = ""
    """Media that could not be decoded, with the reason."""


class PairSource:
    """Items with pictures, sound and texts. An item is an index or what `first` and `records` yield; it is pickled and
    sent to the process that decodes it."""

    name: str
    """For messages."""
    digest: str
    """Changes with the data."""
    label_names: list[str]
    """Names of the K labels."""
    text_kinds: set[str]
    """Kinds of text that items may have."""

    def first(self, limit: int) -> Iterator[Any]:
        """The first items, the same in every call."""
        raise NotImplementedError

    def annotations(self, item: Any) -> TextAnnotations:
        """The item's texts and labels, without opening its media."""
        raise NotImplementedError

    def present(self, modality: str) -> np.ndarray | None:
        """Whether each item has "vision" or "audio", bool (N,); None if only decoding can tell."""
        return None

    def groups(self, name: str) -> list[str] | None:
        """Each item's value of a group, such as the subject, "" = unknown; None if the items have no such group."""
        return None

    def fingerprints(self) -> np.ndarray | None:
        """Fingerprints of the clips, uint64 (N, 3), from shared/dataset/training_clips.py; None if they cannot be
        compared."""
        return None

    def sample(self, item: Any, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        """The item with its sound at `sample_rate` Hz (None: no sound) and the selected pictures (None: no pictures).
        Damaged media never raise."""
        raise NotImplementedError


class TableSource(PairSource):
    """A source with the integers below its length as items."""

    def __len__(self) -> int:
        raise NotImplementedError

    def first(self, limit: int) -> Iterator[int]:
        return iter(range(min(limit, len(self))))


class StreamSource(PairSource):
    """A source that is read shard by shard; its items are records not decoded yet."""

    shards: list[Path]
    buffer: int
    """Size of the shuffle buffer, in records."""

    def read(self, shard: Path) -> Iterator[Any]:
        """The records of a shard, in order. DamagedShard if the rest of the shard cannot be read."""
        raise NotImplementedError

    def records(self, rng: np.random.Generator, report: Callable[[str], None]) -> Iterator[Any]:
        """All records once: shards in random order, records shuffled in a buffer. The rest of a damaged shard is
        skipped; `report` gets the reason."""
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
        return islice(self._in_order(range(len(self.shards)), lambda reason: None), limit)

    def _in_order(self, order: Iterable[int], report: Callable[[str], None]) -> Iterator[Any]:
        for index in order:
            try:
                yield from self.read(self.shards[index])
            except DamagedShard as error:
                report(f"{self.shards[index]}: {error}; the rest of this shard is left out")


class DamagedShard(Exception):
    """Says why the rest of a shard cannot be read."""


class DamageCounter:
    """Counts what could not be read, and prints one line the first, tenth, hundredth, ... time."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def add(self, source: str, reason: str) -> None:
        self.count[source] += 1
        n = self.count[source]
        if n == 10 ** (len(str(n)) - 1):
            sys.stderr.write(f"warning: {source}: {n} damaged so far, left out; this time {reason}\n")


def expand_pattern(pattern: str, split: str) -> list[Path]:
    """The files of a pattern, sorted by name: {split} is replaced, braces ({a,b}, {000..012}) and wildcards are
    expanded. UserError if a file is missing."""
    paths: list[Path] = []
    for name in _expand_braces(pattern.replace("{split}", split)):
        if glob.has_magic(name):
            paths += map(Path, glob.glob(name, recursive=True))
        elif Path(name).is_file():
            paths.append(Path(name))
        else:
            raise UserError(f"{pattern}: no file {name}")
    if not paths:
        raise UserError(f"no file matches {pattern}")
    return sorted(set(paths))


def _expand_braces(pattern: str) -> list[str]:
    """Names of a pattern with braces, expanded as in a shell; one level deep."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if not match:
        return [pattern]
    first, last, choices = match.groups()
    if choices is None:
        width = len(first) if first.startswith("0") else 0
        middles = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    else:
        middles = choices.split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [head + middle + rest for middle in middles for rest in _expand_braces(tail)]


def files_digest(files: list[Path]) -> str:
    """Digest of names and sizes: reading a whole corpus to detect changes would take as long as training on it."""
    return digest([[file.name, file.stat().st_size] for file in files])


def check_split(path: str, split: str) -> None:
    """UserError if a source without splits is asked for anything but its training data."""
    if split != "train" and "{split}" not in path:
        raise UserError(
            f"{path}: no split {split!r} here: put {{split}} into the path, or leave valid_split empty to validate on "
            "other sources"
        )
