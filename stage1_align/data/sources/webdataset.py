"""Source "webdataset": tar shards in which members of one basename are one item.

    0001.jpg | .png | .webp     a picture
    0001.wav | .flac | .mp3 ... sound
    0001.txt | .json            its caption, or a dictionary that holds it

While shards are read, only the members' headers are: a record is the place of its bytes, so that shuffling and skipping
cost next to nothing, and the process that needs a picture reads it. That wants plain .tar files on a disk; compressed
ones have to be unpacked once.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.registry import nearest
from shared.text import one_line
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import (
    DamagedShard,
    FrameSelector,
    Sample,
    StreamSource,
    check_split,
    expand_pattern,
    files_digest,
)
from stage1_align.data.sources.columns import number, texts_in
from stage1_align.data.sources.records import FileSlice, Record, decode_record

SUFFIXES = {
    "image": ("jpg", "jpeg", "png", "webp"),
    "audio": ("wav", "flac", "mp3", "ogg", "m4a", "opus"),
    "video": ("mp4", "webm", "mkv", "mov", "avi"),
}


@dataclass
class WebdatasetOptions:
    caption: str = ""
    """Key of the caption in the .json, a text or a list of several. Where nothing is said: the .txt, else "caption"."""
    transcript: str = ""
    """Key of what is said in the .json."""
    labels: list[str] = field(default_factory=list)
    """Keys of intensities in [0, 1] in the .json."""
    buffer: int = 1000
    """Records that the order is drawn from."""
    frame_rate: float = 8.0
    """Pictures a second that the frames of a video are chosen from."""


class Webdataset(StreamSource):
    """A record is {suffix: FileSlice}."""

    def __init__(self, path: str, split: str, options: WebdatasetOptions):
        check_split(path, split)
        self.name, self.options, self.buffer = path, options, options.buffer
        self.shards = expand_pattern(path, split)
        self.digest, self.label_names = files_digest(self.shards), options.labels
        first = next(self.first(1), None)
        if first is None:
            raise UserError(f"{path}: none of its {len(self.shards)} shards holds a readable record")
        self.text_kinds = self._kinds(first)

    def read(self, shard: Path) -> Iterator[dict[str, FileSlice]]:
        try:
            with tarfile.open(shard, "r:") as tar:
                key, parts = "", {}
                for member in tar:
                    if not member.isfile():
                        continue
                    folder, _, file = member.name.rpartition("/")
                    stem, _, suffix = file.partition(".")
                    if f"{folder}/{stem}" != key:
                        if parts:
                            yield parts
                        key, parts = f"{folder}/{stem}", {}
                    parts[suffix.lower()] = FileSlice(shard, member.offset_data, member.size)
                if parts:
                    yield parts
                tar.fileobj.seek(tar.offset)  # tarfile takes a header it cannot read for the end
                if tar.fileobj.read(512).strip(b"\0"):
                    raise DamagedShard(f"the header at byte {tar.offset} cannot be read")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DamagedShard(one_line(error, 200)) from None

    def annotations(self, item: dict[str, FileSlice]) -> TextAnnotations:
        return self._words(item)[0]

    def sample(self, item: dict[str, FileSlice], sample_rate: int | None, select: FrameSelector | None) -> Sample:
        words, damage = self._words(item)
        media = {part: _member(item, suffixes) for part, suffixes in SUFFIXES.items()}
        sample = decode_record(Record(words, **media), sample_rate, select, self.options.frame_rate)
        sample.damage = "; ".join(filter(None, [damage, sample.damage]))
        return sample

    def _words(self, item: dict[str, FileSlice]) -> tuple[TextAnnotations, str]:
        """Texts and labels, and what is damaged about them."""
        try:
            told = self._told(item)
            if "txt" in item and not self.options.caption:
                captions = texts_in(item["txt"].read().decode())
            else:
                captions = texts_in(told.get(self.options.caption or "caption"))
            transcript = " ".join(texts_in(told.get(self.options.transcript)))
            labels = [number(told.get(name), f"{self.name}, {name}") for name in self.options.labels]
        except (ValueError, UserError) as error:
            no_labels = np.full(len(self.options.labels), np.nan, np.float32)
            part = next(iter(item.values()))
            return TextAnnotations(labels=no_labels), f"{part.path} near byte {part.offset}: {one_line(error, 200)}"
        return TextAnnotations(transcript, captions, np.array(labels, np.float32)), ""

    def _told(self, item: dict[str, FileSlice]) -> dict[str, Any]:
        """The .json of an item; empty without one. ValueError when it cannot be read."""
        told = json.loads(item["json"].read()) if "json" in item else {}
        if not isinstance(told, dict):
            raise ValueError("the .json holds no dictionary")
        return told

    def _kinds(self, first: dict[str, FileSlice]) -> set[str]:
        """Kinds of text, as the first record has them. UserError when it lacks a key that was asked for."""
        if not any(_member(first, suffixes) for suffixes in SUFFIXES.values()):
            raise UserError(f"{self.name}: neither picture nor sound in the first record; it has .{', .'.join(first)}")
        try:
            keys = list(self._told(first))
        except ValueError as error:
            raise UserError(f"{self.name}: the .json of the first record cannot be read ({error})") from None
        for name in filter(None, [self.options.caption, self.options.transcript, *self.options.labels]):
            if name not in keys:
                raise UserError(f"{self.name}: no key {name!r} in the .json: {nearest(name, keys)}")
        kinds = {"caption"} if self.options.caption or "txt" in first or "caption" in keys else set()
        kinds |= {"transcript"} if self.options.transcript else set()
        kinds |= {"labels"} if self.options.labels else set()
        if not kinds:
            there = ", ".join(keys) or "it has none"
            raise UserError(f"{self.name}: no words in the first record; set caption to a key of its .json: {there}")
        return kinds


def _member(item: dict[str, FileSlice], suffixes: tuple[str, ...]) -> FileSlice | None:
    return next((item[suffix] for suffix in suffixes if suffix in item), None)


def open_webdataset(path: str, split: str, options: dict) -> Webdataset:
    return Webdataset(path, split, configuration.build(WebdatasetOptions, options, path))
