"""Clips as a person has them: media, words, labels, groups. What every layout reads into, and what `prepare` reads."""

import codecs
import os
from dataclasses import dataclass, field
from pathlib import Path

from shared.files import digest
from shared.tables.arrow import read_cell

EMI = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
"""The six dimensions of emotional mimicry intensity, in the order of the published tables."""

MODALITIES = ("vision", "audio", "text")


@dataclass(frozen=True)
class StoredMedia:
    """A media file inside a table: one cell of an Arrow or parquet file, read when it is decoded."""

    file: Path
    row: int
    column: str

    def read(self) -> bytes:
        """The bytes. ValueError or OSError when the table cannot be read any more."""
        return read_cell(self.file, self.row, self.column)

    def __str__(self) -> str:
        return f"{self.file} row {self.row} {self.column}"


@dataclass(frozen=True)
class Clip:
    """One recording of one person. Whatever is missing is None, "" or NaN; it is never made up."""

    id: str
    """Unique in its source; predictions carry it."""
    media: Path | StoredMedia | None
    """The file; it need not exist (then preparing it fails, and is listed)."""
    audio: Path | StoredMedia | None = field(default=None, kw_only=True)
    """A sound file of its own, heard in place of the sound of `media`, which is heard where this cannot be read."""
    crops: Path | None = field(default=None, kw_only=True)
    """Folder of face crops somebody made, one a frame, <number>.jpg; they are seen in place of the pictures of `media`.
    """
    remarks: tuple[str, ...] = field(default=(), kw_only=True)
    """What was wrong with the clip's entry in its source; verdicts carry it on."""
    transcript: str | None = None
    """What is said; None when nobody wrote it down."""
    labels: tuple[float, ...] = ()
    """One number for each of the source's label names; NaN = not labelled."""
    groups: dict[str, str] = field(default_factory=dict)
    """What clips may have in common (subject, seed video): splits and confidence intervals respect it."""
    split: str = ""
    """train, valid, test, or "" when the source does not say."""

    def fingerprint(self, base: Path) -> list:
        """Changes with anything about the clip, or the size of any of its files; not with where `base` lies. Absolute
        `base`."""

        def named(path: Path | StoredMedia | None) -> list:
            if isinstance(path, StoredMedia):
                return [*named(path.file), path.row, path.column]
            if path is None:
                return [None, -1]
            path = path.absolute()
            inside = path.relative_to(base) if path.is_relative_to(base) else path
            return [str(inside), path.stat().st_size if os.path.isfile(path) else -1]

        crops = None
        if self.crops is not None:
            crops = [*named(self.crops), _listing(self.crops)]
        files = [named(self.media), named(self.audio), crops]
        return [self.id, files, self.transcript, repr(self.labels), self.groups, self.split, self.remarks]


def _listing(folder: Path) -> str | None:
    """Changes with the name or the size of a file in a folder; None where there is none to be read."""
    try:
        with os.scandir(folder) as entries:
            return digest(sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file()))
    except (OSError, ValueError):  # ValueError: no folder can be called so
        return None


@dataclass
class ClipSource:
    """All clips of a source."""

    clips: list[Clip]
    label_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    """What a person should know of how the source was read: guesses, rows left out."""


def sidecar_transcript(media: Path | StoredMedia | None) -> str | None:
    """The transcript in `<stem>.txt` beside a media file; None when there is none or it is empty."""
    if not isinstance(media, Path) or media.suffix.lower() == ".txt":
        return None
    return read_transcript(media.parent / f"{media.stem}.txt")


def read_transcript(path: Path) -> str | None:
    """The words in a text file; None when there is no such file or it is empty. UTF-8, or UTF-16 where it says so, or
    Windows-1252 where nothing in it beyond ASCII is UTF-8."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError):  # ValueError: no file can be called so
        return None
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if marked else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, errors="replace")
        if not marked and all(character.isascii() or character == "\ufffd" for character in text):
            text = data.decode("cp1252", errors="replace")
    return text.strip() or None
