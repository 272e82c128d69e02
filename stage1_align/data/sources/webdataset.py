"""Source "webdataset": tar shards in which members with the same base name are one item.

    0001.jpg | .png | .webp     a picture
    0001.wav | .flac | .mp3 ... sound
    0001.mp4 | .webm ...        pictures and sound
    0001.txt | .json            its caption, or a dictionary that holds it

Reading a shard reads only the headers of its members. A record is the position of its bytes, so shuffling and skipping
cost next to nothing, and the process that needs a picture reads it. This requires plain .tar files on a disk;
compressed shards must be unpacked first.
"""

import contextlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared import config as configuration
from shared.dataset.label_scale import LabelOptions, LabelReader
from shared.dataset.media_files import AUDIO_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from shared.errors import UserError
from shared.options.ranges import FrameRate, PositiveInt
from shared.registry import nearest
from shared.tables.cells import cell_text, cell_texts, parse_label
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
from stage1_align.data.sources.records import FileSlice, Record, decode_record

SUFFIXES = {"image": IMAGE_SUFFIXES, "audio": AUDIO_SUFFIXES, "video": VIDEO_SUFFIXES}
CHECKED_RECORDS = 100
"""Records to check the labels of when the source is opened."""


class Members(dict[str, FileSlice]):
    """A record: the part of a member's name after the first dot, in lower case -> its bytes."""

    problem: str = ""
    """Why its members may not belong together."""


@dataclass
class WebdatasetOptions(LabelOptions):
    caption: str = ""
    """Key of the caption in the .json, a text or a list of several. Default: the .txt, otherwise "caption"."""
    transcript: str = ""
    """Key of the transcript in the .json."""
    labels: list[str] = field(default_factory=list)
    """Keys of intensities in the .json, in [0, 1] or in `label_range`."""
    buffer: PositiveInt = 1000
    """Size of the shuffle buffer, in records."""
    frame_rate: FrameRate = 8.0
    """Frames per second of a video to select frames from."""


class Webdataset(StreamSource):
    def __init__(self, path: str, split: str, options: WebdatasetOptions):
        check_split(path, split)
        self.name, self.options, self.buffer = path, options, options.buffer
        self.shards = expand_pattern(path, split)
        self.digest, self.label_names = files_digest(self.shards), options.labels
        first = next(self.first(1), None)
        if first is None:
            raise UserError(f"{path}: none of its {len(self.shards)} shards has a readable record")
        self.text_kinds = self._find_text_kinds(first)
        self.reader = LabelReader.of(options, options.labels)
        self._refuse_outside()

    def read(self, shard: Path) -> Iterator[Members]:
        try:
            with tarfile.open(shard, "r:") as tar:
                key, keys = "", set()
                members = Members()
                for entry in tar:
                    folder, _, file = entry.name.rpartition("/")
                    if not entry.isfile() or file.startswith("._"):  # macOS puts its own files next to others
                        continue
                    stem, _, suffix = file.partition(".")
                    if f"{folder}/{stem}" != key:
                        if members:
                            yield members
                        key, members = f"{folder}/{stem}", Members()
                        if key in keys:
                            members.problem = f"{entry.name}: not next to the other members of its record; sort the tar"
                        keys.add(key)
                    if suffix.lower() in members:
                        members.problem = f"{entry.name}: twice in one record; the last one is used"
                    members[suffix.lower()] = FileSlice(shard, entry.offset_data, entry.size)
                if members:
                    yield members
                # tarfile treats an unreadable header as the end of the file.
                if FileSlice(shard, tar.offset, tarfile.BLOCKSIZE).read().strip(b"\0"):
                    raise DamagedShard(f"the header at byte {tar.offset} cannot be read")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DamagedShard(one_line(error, 200)) from None

    def annotations(self, item: Members) -> TextAnnotations:
        return self._read_annotations(item)[0]

    def sample(self, item: Members, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        annotations, damage = self._read_annotations(item)
        media = {kind: _member(item, suffixes) for kind, suffixes in SUFFIXES.items()}
        sample = decode_record(Record(annotations, **media), sample_rate, select, self.options.frame_rate)
        if not any(media.values()) and not (annotations.transcript or annotations.captions):
            names = ", ".join(f".{suffix}" for suffix in list(item)[:4])
            damage = damage or f"a record with neither picture, sound nor words: {names} (a name ends at its first dot)"
        sample.damage = "; ".join(filter(None, [item.problem, damage, sample.damage]))
        return sample

    def _read_annotations(self, item: Members) -> tuple[TextAnnotations, str]:
        """Texts and labels, and why they could not be read."""
        options = self.options
        try:
            values = self._json(item)
            if "txt" in item and not options.caption:
                captions = cell_texts(item["txt"].read().decode())
            else:
                captions = cell_texts(values.get(options.caption or "caption"))
            transcript = cell_text(values.get(options.transcript))
            labels = self.reader.fractions(self._labels(values), self.name)
        except (ValueError, RecursionError, UserError) as error:
            no_labels = np.full(len(options.labels), np.nan, np.float32)
            first = next(iter(item.values()))
            return TextAnnotations(labels=no_labels), f"{first.path} near byte {first.offset}: {one_line(error, 200)}"
        return TextAnnotations(transcript, captions, labels), ""

    def _labels(self, values: dict[str, Any]) -> list[float]:
        """The labels in the .json of an item. UserError for one that is not a number."""
        return [parse_label(values.get(name), f"{self.name}, {name}") for name in self.options.labels]

    def _refuse_outside(self) -> None:
        """UserError if labels of the first records lie outside their range; in later records, they count as damage."""
        names, rows = [], []
        for record in self.first(CHECKED_RECORDS) if self.options.labels else ():
            with contextlib.suppress(ValueError, UserError):
                rows.append(self._labels(self._json(record)))
                member = next(iter(record.values()))
                names.append(f"{member.path.name} at byte {member.offset}")
        outside = self.reader.outside(rows, names) if rows else None
        if outside:
            raise UserError(f"{self.name}: {outside} to the options of this source")

    def _json(self, item: Members) -> dict[str, Any]:
        """The .json of an item; {} without one. ValueError if it cannot be read."""
        values = json.loads(item["json"].read()) if "json" in item else {}
        if not isinstance(values, dict):
            raise ValueError("the .json holds no dictionary")
        return values

    def _find_text_kinds(self, first: Members) -> set[str]:
        """Kinds of text in the first record. UserError if it lacks a key named by an option."""
        if not any(_member(first, suffixes) for suffixes in SUFFIXES.values()):
            raise UserError(f"{self.name}: neither picture nor sound in the first record; it has .{', .'.join(first)}")
        try:
            keys = list(self._json(first))
        except ValueError as error:
            raise UserError(f"{self.name}: the .json of the first record cannot be read ({error})") from None
        options = self.options
        for name in filter(None, [options.caption, options.transcript, *options.labels]):
            if name not in keys:
                raise UserError(f"{self.name}: no key {name!r} in the .json: {nearest(name, keys)}")
        kinds = {"caption"} if options.caption or "txt" in first or "caption" in keys else set()
        kinds |= {"transcript"} if options.transcript else set()
        kinds |= {"labels"} if options.labels else set()
        if not kinds:
            listed = ", ".join(keys) or "it has none"
            raise UserError(f"{self.name}: no words in the first record; set caption to a key of its .json: {listed}")
        return kinds


def _member(item: Members, suffixes: tuple[str, ...]) -> FileSlice | None:
    return next((item[suffix[1:]] for suffix in suffixes if suffix[1:] in item), None)


def open_webdataset(path: str, split: str, options: dict[str, Any]) -> Webdataset:
    return Webdataset(path, split, configuration.build(WebdatasetOptions, options, path))
