"""A clip as described by its source. Layouts create clips, and `emit prepare` decodes them."""

import codecs
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import UserError
from shared.files import digest, read_file, sample_digest
from shared.tables.arrow import read_cell

EMI = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
"""The six dimensions of emotional mimicry intensity, in the order of the published tables."""

MODALITIES = ("vision", "audio", "text")


@dataclass(frozen=True)
class StoredMedia:
    """A media file inside a table: one cell of an Arrow or Parquet file, read when it is decoded."""

    file: Path
    row: int
    column: str

    def read(self) -> bytes:
        """The bytes. ValueError or OSError if the table can no longer be read."""
        return read_cell(self.file, self.row, self.column)

    def __str__(self) -> str:
        return f"{self.file} row {self.row} {self.column}"


@dataclass(frozen=True)
class Clip:
    """One recording of one person. Missing parts are None, "" or NaN, never an invented value."""

    id: str
    """Unique in its source; used in predictions."""
    media: Path | StoredMedia | None
    """The file. If it does not exist, preparing the clip fails, and the failure is listed."""
    audio: Path | StoredMedia | None = field(default=None, kw_only=True)
    """A separate sound file that replaces the sound of `media`, the fallback if this file cannot be read."""
    crops: Path | None = field(default=None, kw_only=True)
    """Folder of precomputed face crops, one per frame, <number>.jpg; they replace the pictures of `media`."""
    problems: tuple[str, ...] = field(default=(), kw_only=True)
    """Problems in the clip's entry of its source; its verdict repeats them."""
    words_alone: bool = field(default=False, kw_only=True)
    """Whether it is a row of a text-only table: missing pictures and sound are then no problem."""
    transcript: str | None = None
    """What is said; None without a transcript."""
    labels: tuple[float, ...] = ()
    """One number per label name of the source; NaN = not labeled."""
    groups: dict[str, str] = field(default_factory=dict)
    """What clips have in common (subject, seed video): splits and confidence intervals respect it."""
    split: str = ""
    """train, valid, test, or "" if the source does not say."""

    def fingerprint(self, base: Path) -> list:
        """Changes with the clip and with the size or `sample_digest` of any of its files, but not with
        the location of `base`, an absolute path."""

        def identify(path: Path | StoredMedia | None) -> list:
            if isinstance(path, StoredMedia):
                return [*identify(path.file), path.row, path.column]
            if path is None:
                return [None, -1]
            path = path.absolute()
            relative = path.relative_to(base) if path.is_relative_to(base) else path
            is_file = os.path.isfile(path)
            return [str(relative), path.stat().st_size if is_file else -1, sample_digest(path) if is_file else ""]

        crops = None
        if self.crops is not None:
            crops = [*identify(self.crops), _listing(self.crops)]
        files = [identify(self.media), identify(self.audio), crops]
        kind = ["words alone"] if self.words_alone else []
        return [self.id, files, self.transcript, repr(self.labels), self.groups, self.split, self.problems, *kind]


def _listing(folder: Path) -> str | None:
    """Changes with the name or the size of any file in a folder; None if the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return digest(sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file()))
    except (OSError, ValueError):  # ValueError: not a valid folder name
        return None


@dataclass(frozen=True)
class LeftOut:
    """A row of a source that does not give a clip."""

    row: str
    """Where it is, such as "labels.csv line 7"."""
    media: str
    """The file that it names, if readable."""
    reason: str


@dataclass
class ClipSource:
    """All clips of a source."""

    clips: list[Clip]
    label_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    """How the source was read: guesses, rows left out."""
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each label; labels are fractions of this range (label_scale.py). A layout with labels
    in [0, 1] by definition gives {}; None leaves it to the options."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Entries of the source that are no clips; failures.csv repeats them."""

    def __post_init__(self) -> None:
        check_names(self.label_names, "label names")
        check_names(self.group_names, "group names")


def check_names(names: Iterable[str], where: str) -> None:
    """UserError for names that are unsafe as columns of a table that people open: they break its lines, cannot be
    encoded, change the text direction, or run as a formula."""
    for name in names:
        wrong = [c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in TURNING]
        if wrong:
            raise UserError(f"{where}: {name!a:.60} contains the control character {wrong[0]!a}; rename it")
        if unicodedata.normalize("NFKC", name).strip()[:1] in tuple("=+-@"):
            raise UserError(f"{where}: {name!a:.60} begins like a spreadsheet formula; rename it")


TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text after them."""


def sidecar_transcript(media: Path | StoredMedia | None) -> str | None:
    """The transcript in `<stem>.txt` next to a media file; None if it is missing or empty."""
    if not isinstance(media, Path) or media.suffix.lower() == ".txt":
        return None
    return read_transcript(media.parent / f"{media.stem}.txt")


def read_transcript(path: Path) -> str | None:
    """The text of a file; None if the file is missing or empty. UTF-8, UTF-16 if the file starts with its byte order
    mark, or Windows-1252 if no character beyond ASCII is valid UTF-8."""
    try:
        data = read_file(path)
    except (OSError, ValueError):  # ValueError: not a valid file name
        return None
    is_utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, errors="replace")
        if not is_utf16 and all(character.isascii() or character == "\ufffd" for character in text):
            text = data.decode("cp1252", errors="replace")
    return text.strip() or None
