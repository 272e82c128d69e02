"""Clips as a person has them: media, words, labels, groups. What every layout reads into, and what `prepare` reads."""

import codecs
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest
from shared.registry import Registry

EMI = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
"""The six dimensions of emotional mimicry intensity, in the order of the published tables."""

MODALITIES = ("vision", "audio", "text")

MEDIA_SUFFIXES = (
    *(".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp", ".ts"),
    *(".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac", ".wma"),
)
"""What counts as media when a folder is searched, and what is tried when a path lacks its extension. A file named
outright may be called anything."""

LAYOUTS = Registry(
    "layout",
    {
        "csv": "shared.layouts.csv:Csv",
        "folder": "shared.layouts.folder:Folder",
        "hf": "shared.layouts.hf:HuggingFace",
        "ravdess": "shared.layouts.ravdess:Ravdess",
        "vidmimic2": "shared.layouts.vidmimic2.layout:Vidmimic2",
    },
)
"""Each is a dataclass whose fields are the layout's options, with `read(source: Path) -> Source`."""


@dataclass(frozen=True)
class Stored:
    """A media file inside a table: one cell of an Arrow or parquet file, read when it is decoded."""

    file: Path
    row: int
    column: str

    def read(self) -> bytes:
        """The bytes. ValueError or OSError when the table cannot be read any more."""
        from shared.layouts.hf import read_cell

        return read_cell(self)

    def __str__(self) -> str:
        return f"{self.file} row {self.row} {self.column}"


@dataclass(frozen=True)
class Clip:
    """One recording of one person. Whatever is missing is None, "" or NaN; it is never made up."""

    id: str
    """Unique in its source; predictions carry it."""
    media: Path | Stored | None
    """The file; it need not exist (then preparing it fails, and is listed)."""
    audio: Path | Stored | None = field(default=None, kw_only=True)
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

        def named(path: Path | Stored | None) -> list:
            if isinstance(path, Stored):
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
class Source:
    """All clips of a source."""

    clips: list[Clip]
    label_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    """What a person should know of how the source was read: guesses, rows left out."""


def read_source(source: Path, layout: str | None = None, options: dict[str, Any] | None = None) -> Source:
    """All clips of a file or folder. options: of the layout, see its class.

    Without a layout: "csv" for a table or a folder with a labels.csv, "vidmimic2" where there is a train_split.csv,
    "ravdess" for its manifest.csv, "hf" for what Hugging Face datasets wrote, else "folder". UserError when there is
    nothing at `source`, no clip in it, two clips with one id, or an option that the layout does not have.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    layout = layout or guess_layout(source)
    reader = configuration.build(LAYOUTS.get(layout), options or {}, f"layout {layout!r}")
    found = reader.read(source)
    if not found.clips:
        why = f": {'; '.join(found.notes)}" if found.notes else ""
        raise UserError(f"{source}: no clips here (read with layout {layout!r}){why}")
    # A file name on the disk may be no text at all; an id is.
    found.clips = [replace(clip, id=clip.id.encode(errors="backslashreplace").decode()) for clip in found.clips]
    seen: set[str] = set()
    for clip in found.clips:
        if clip.id in seen:
            raise UserError(f"{source}: two clips are called {clip.id!r}; ids must be unique")
        seen.add(clip.id)
    return found


def guess_layout(source: Path) -> str:
    """The layout of an existing file or folder, by the names of what is in it."""
    from shared.layouts.ravdess import is_manifest

    if source.is_file():
        if is_manifest(source):
            return "ravdess"
        return {".csv": "csv", ".tsv": "csv", ".parquet": "hf", ".arrow": "hf"}.get(source.suffix.lower(), "folder")
    if (source / "labels.csv").is_file():
        return "csv"
    if (source / "train_split.csv").is_file():
        return "vidmimic2"
    if is_manifest(source / "manifest.csv"):
        return "ravdess"
    saved = (source / "dataset_dict.json").is_file() or (source / "state.json").is_file()
    if saved or any(source.glob("*.parquet")) or any(source.glob("data/*.parquet")):
        return "hf"
    return "folder"


def sidecar(media: Path | Stored | None) -> str | None:
    """The transcript in `<stem>.txt` beside a media file; None when there is none or it is empty."""
    if not isinstance(media, Path) or media.suffix.lower() == ".txt":
        return None
    return read_words(media.parent / f"{media.stem}.txt")


def read_words(path: Path) -> str | None:
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
