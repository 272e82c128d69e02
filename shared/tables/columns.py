"""Which column of a table holds what. The layouts of clips and the sources of pairs both recognize columns here."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.options.ranges import CheckedOptions
from shared.registry import nearest
from shared.tables.cells import parse_number

USUAL_NAMES = {
    "media": ("path", "file", "media", "filename", "video", "audio"),
    "image": ("image", "images", "img", "picture", "jpg", "png"),
    "video": ("video", "mp4"),
    "audio": ("audio", "sound", "wav", "flac", "mp3"),
    "id": ("id", "clip"),
    "transcript": ("transcript", "text", "words", "sentence"),
    "caption": ("caption", "captions", "description"),
    "split": ("split",),
}
"""Names by which a column is recognized; the first one present wins. Case, spaces, underscores and hyphens do not
matter. `text` and `sentence` are what is said; descriptions of an item are captions."""
MEDIA_ROLES = ("media", "image", "video", "audio")
GROUP_NAMES = ("subject", "speaker", "actor", "participant", "seed", "group")
"""Names of what clips have in common, with or without a trailing "id"."""
ROW_NUMBERS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names of columns into which pandas writes row numbers."""
NOT_LABELS = (
    *("age", "sex", "gender", "fold", "index"),
    *("start", "end", "onset", "offset", "duration", "length", "timestamp"),
)
"""First words of the names of numeric columns that are not labels; neither are those whose last word is "id"."""


@dataclass
class ColumnOptions(CheckedOptions):
    """Columns by name. Those not set are recognized by their usual names, see USUAL_NAMES."""

    audio: str = ""
    """Sound in files of its own, beside the files with pictures."""
    transcript: str = ""
    """What is said: transcript, text, words or sentence by default; otherwise `<stem>.txt` beside the media file."""
    labels: list[str] = field(default_factory=list)
    """Numbers. Default: the six EMI dimensions if any is present, otherwise every other numeric column whose name is
    not that of an id, a group, or age, sex, gender, fold, start, end, onset, offset, duration, length, timestamp or
    index."""
    split: str = ""
    """train, valid or test."""
    root: str = ""
    """Folder that relative paths start from; by default that of the table."""

    def root_or(self, default: Path) -> Path:
        return Path(self.root) if self.root else default


def normalize_name(name: str) -> str:
    """A column's name without spaces, underscores, hyphens and capitals, in which copies of a table differ."""
    return re.sub(r"[\s_-]", "", name).lower()


class Header:
    """The column names of a table, found whatever their case, spaces, underscores and hyphens."""

    def __init__(self, names: Sequence[str], where: str):
        """where: the table, for messages."""
        self.names, self.where = list(names), where
        self._positions = {normalize_name(name): i for i, name in reversed(list(enumerate(names)))}

    def position(self, name: str) -> int:
        """Where a column is. UserError suggests the nearest name when there is no such column."""
        if name in self.names:
            return self.names.index(name)
        if normalize_name(name) not in self._positions:
            raise UserError(f"{self.where}: no column {name!r}: {nearest(name, self.names)}")
        return self._positions[normalize_name(name)]

    def first(self, usual_names: Iterable[str], excluded: Collection[int] = ()) -> int | None:
        """The first of the usual names that is present, and not at an excluded position."""
        positions = (self._positions[name] for name in usual_names if name in self._positions)
        return next((i for i in positions if i not in excluded), None)

    def resolve(
        self, roles: Iterable[str], options: ColumnOptions, media_columns: Collection[str] = ()
    ) -> dict[str, list[int]]:
        """{role: positions}: the columns that the option of this name gives, otherwise the one recognized by its usual
        names. Given columns are not recognized as anything else, and `media_columns`, whose cells are media, only as
        media. UserError for a given column that does not exist."""
        given = {role: getattr(options, role) for role in roles}
        given = {role: [names] if isinstance(names, str) else names for role, names in given.items()}
        positions = {role: [self.position(name) for name in names if name] for role, names in given.items()}
        taken = {i for several in positions.values() for i in several}
        taken |= {self.position(name) for name in [*options.labels, *getattr(options, "groups", ())]}
        media = {i for i, name in enumerate(self.names) if name in media_columns}
        for role, several in positions.items():
            if not several:
                first = self.first(USUAL_NAMES[role], taken if role in MEDIA_ROLES else taken | media)
                several += [] if first is None else [first]
                taken |= set(several)
        return positions


def guess_labels(
    header: Header,
    rows: Sequence[Sequence[Any]],
    taken: Collection[int],
    row_name: Callable[[int], str],
    not_labels: Collection[str] = (),
) -> tuple[dict[str, int], list[str]]:
    """{label name: position}, and notes for a person to check. taken: positions that hold something else; row_name(i)
    names a row in notes; not_labels: columns whose type says that their numbers are no labels. UserError when two
    columns are the same EMI dimension."""
    labels, notes = _emi_columns(header)
    if labels:
        return labels, notes
    others: list[str] = []
    for i, name in enumerate(header.names):
        if i in taken or ROW_NUMBERS.fullmatch(name):
            continue
        values = [parse_number(row[i]) for row in rows]
        wrong = [k for k, value in enumerate(values) if value is None]
        count = sum(value is not None and not math.isnan(value) for value in values)
        excluded = name in not_labels or _is_not_label(name)
        if count and not wrong and excluded:
            others.append(name)
        elif count and not wrong:
            labels[name] = i
        elif count > len(wrong) and not excluded:
            more = f", and {len(wrong) - 1} rows more" if len(wrong) > 1 else ""
            cell = str(rows[wrong[0]][i])[:40]
            notes.append(f"{name!r} is not read: {row_name(wrong[0])} has {cell!r}, which is no number{more}")
    notes = [f"labels are the numeric columns {', '.join(labels)}" if labels else "no label columns found", *notes]
    if others:
        notes.append(
            f"not labels, by their names or kinds: {', '.join(others)}; the option labels names those that are"
        )
    return labels, notes


def _emi_columns(header: Header) -> tuple[dict[str, int], list[str]]:
    """The EMI dimensions that are present, in their published order, and a note of those that are not."""
    dimensions = {normalize_name(name): name for name in EMI}
    positions: dict[str, int] = {}
    for i, column in enumerate(header.names):
        name = dimensions.get(normalize_name(column))
        if name in positions:
            first = header.names[positions[name]]
            raise UserError(f"{header.where}: columns {first!r} and {column!r} are both {name}; rename one")
        if name is not None:
            positions[name] = i
    missing = [name for name in EMI if name not in positions]
    notes = [f"no column for {', '.join(missing)}"] if positions and missing else []
    return {name: positions[name] for name in EMI if name in positions}, notes


def _is_not_label(name: str) -> bool:
    """Whether a column's name says that its numbers identify, group or time something."""
    words = [word.lower() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name) if word]
    group = normalize_name(name).removesuffix("id") in GROUP_NAMES
    return group or bool(words and (words[0] in NOT_LABELS or words[-1] == "id"))
