"""Which column of a table holds what."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.registry import nearest
from stage1_align.data.captions import TextAnnotations


@dataclass
class ColumnOptions:
    """Columns by name. Those left out are recognised by the usual names, see NAMES."""

    image: str = ""
    """Pictures."""
    audio: str = ""
    """Sound."""
    video: str = ""
    """Files with pictures, and sound where there is no audio column."""
    caption: str | list[str] = ""
    """Descriptions: a text, or a list of several; several columns are several captions of one item."""
    transcript: str = ""
    """What is said."""
    labels: list[str] = field(default_factory=list)
    """Intensities in [0, 1]."""
    root: str = ""
    """Folder that relative paths start from; that of the data files where nothing is said."""


NAMES = {
    "image": ("image", "images", "img", "picture", "jpg", "png"),
    "audio": ("audio", "sound", "wav", "flac", "mp3"),
    "video": ("video", "mp4"),
    "caption": ("caption", "captions", "description", "text", "sentence"),
    "transcript": ("transcript",),
}
"""Names by which a column is recognised, the first of them that is there, whatever its case."""


class Columns:
    """Which columns hold what: one of `there` for each of image, audio, video, caption and transcript, or several."""

    def __init__(self, options: ColumnOptions, there: list[str], where: str):
        lower = {name.lower(): name for name in reversed(there)}
        self.of: dict[str, list[str]] = {}
        for part, usual in NAMES.items():
            given = getattr(options, part)
            names = [given] if isinstance(given, str) else given
            self.of[part] = [name for name in names if name] or [lower[u] for u in usual if u in lower][:1]
        self.labels = options.labels
        for name in [name for names in self.of.values() for name in names] + options.labels:
            if name not in there:
                raise UserError(f"{where}: no column {name!r}: {nearest(name, there)}")
        columns = ", ".join(there)
        if not (self.of["image"] or self.of["audio"] or self.of["video"]):
            raise UserError(
                f"{where}: which column holds pictures or sound? set image, audio or video to one of: {columns}"
            )
        self.text_kinds = {kind for kind in ("caption", "transcript") if self.of[kind]}
        self.text_kinds |= {"labels"} if options.labels else set()
        if not self.text_kinds:
            raise UserError(
                f"{where}: which column holds the words? set caption, transcript or labels to one of: {columns}"
            )

    def words(self, row: dict[str, Any], where: str) -> TextAnnotations:
        """Texts and labels of a row {column: value}."""
        captions = [text for name in self.of["caption"] for text in texts_in(row.get(name))]
        transcript = " ".join(text for name in self.of["transcript"] for text in texts_in(row.get(name)))
        labels = [number(row.get(name), f"{where}, column {name}") for name in self.labels]
        return TextAnnotations(transcript, captions, np.array(labels, np.float32))

    def medium(self, part: str, row: dict[str, Any]) -> Any:
        """What the row holds in the image, audio or video column; None without one, or where it is empty."""
        names = self.of[part]
        return row.get(names[0]) or None if names else None


def texts_in(value: Any) -> list[str]:
    """The texts of a cell: one, several in a list, or none; without those that are blank."""
    values = value if isinstance(value, list) else [value]
    return [str(text).strip() for text in values if text is not None and str(text).strip()]


def number(value: Any, where: str) -> float:
    """A label; NaN where there is none. UserError when it is something else."""
    if value is None or str(value).strip().lower() in ("", "nan", "na", "n/a", "none", "null"):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {value!r} is not a number; leave it empty if there is no label") from None
