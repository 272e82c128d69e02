"""Clips as a person has them: media, words, labels, groups. What every layout reads into, and what `prepare` reads."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import UserError
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

LAYOUTS = Registry("layout", {"csv": "shared.layouts.csv:read", "folder": "shared.layouts.folder:read"})
"""Each is `read(source: Path) -> Source`."""


@dataclass(frozen=True)
class Clip:
    """One recording of one person. Whatever is missing is None, "" or NaN; it is never made up."""

    id: str
    """Unique in its source; predictions carry it."""
    media: Path | None
    """The file; it need not exist (then preparing it fails, and is listed)."""
    transcript: str | None = None
    """What is said; None when nobody wrote it down."""
    labels: tuple[float, ...] = ()
    """One number for each of the source's label names; NaN = not labelled."""
    groups: dict[str, str] = field(default_factory=dict)
    """What clips may have in common (subject, seed video): splits and confidence intervals respect it."""
    split: str = ""
    """train, valid, test, or "" when the source does not say."""


@dataclass
class Source:
    """All clips of a source."""

    clips: list[Clip]
    label_names: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    """What a person should know of how the source was read: guesses, rows left out."""


def read_source(source: Path, layout: str | None = None) -> Source:
    """All clips of a file or folder. Without a layout: "csv" for a table or a folder with a labels.csv, else "folder".

    UserError when there is nothing at `source`, no clip in it, or two clips with one id.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if layout is None:
        is_table = source.suffix.lower() == ".csv" if source.is_file() else (source / "labels.csv").is_file()
        layout = "csv" if is_table else "folder"
    found = LAYOUTS.get(layout)(source)
    if not found.clips:
        raise UserError(f"{source}: no clips here (read with layout {layout!r})")
    seen: set[str] = set()
    for clip in found.clips:
        if clip.id in seen:
            raise UserError(f"{source}: two clips are called {clip.id!r}; ids must be unique")
        seen.add(clip.id)
    return found


def sidecar(media: Path | None) -> str | None:
    """The transcript in `<stem>.txt` beside a media file; None when there is none or it is empty."""
    if media is None or media.suffix.lower() == ".txt":
        return None
    try:
        text = media.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError:
        return None
    return text or None
