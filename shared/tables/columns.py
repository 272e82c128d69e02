"""The roles of a table's columns. Both the layouts of clips and the sources of pairs recognize columns here."""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.options.ranges import CheckedOptions
from shared.registry import nearest
from shared.tables.cells import INVISIBLE, MISSING_WORDS, is_nearly_number, is_other_number, not_a_number, parse_number
from shared.text import counted

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
"""Names by which a column is recognized; the first one present wins. Case, spaces, underscores and hyphens are ignored.
`text` and `sentence` are what is said; descriptions of an item are captions."""
KNOWN_NAMES = {name for names in USUAL_NAMES.values() for name in names}
MEDIA_ROLES = ("media", "image", "video", "audio")
GROUP_NAMES = ("subject", "speaker", "actor", "participant", "person", "seed", "group")
"""Names of what clips have in common, with or without a trailing "id"."""
ROW_NUMBERS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Names of columns in which pandas writes row numbers."""
NOT_LABELS = (
    *("age", "sex", "gender", "fold", "index"),
    *("start", "end", "onset", "offset", "duration", "length", "timestamp"),
)
"""First words in names of numeric columns that are not labels; a last word "id" also excludes a column."""


@dataclass
class ColumnOptions(CheckedOptions):
    """Columns by name. Others are recognized by their usual names, see USUAL_NAMES."""

    PLACES: ClassVar[tuple[str, ...]] = ("root",)
    """Path options, which are never saved."""

    audio: str = ""
    """Separate sound files, in addition to the files with pictures."""
    transcript: str = ""
    """What is said: transcript, text, words or sentence by default; otherwise `<stem>.txt` next to the media file."""
    labels: list[str] = field(default_factory=list)
    """Numbers. Default: the six EMI dimensions if all are present, otherwise every numeric column except ids, groups,
    age, sex, gender, fold, start, end, onset, offset, duration, length, timestamp and index."""
    split: str = ""
    """train, valid or test."""
    root: str = ""
    """Folder of relative paths; by default the table's folder."""
    missing_words: list[str] = field(default_factory=lambda: list(MISSING_WORDS))
    """Words for a missing value in cells of texts, groups, ids and files, case-sensitive: NaN, None, NULL, N/A and the
    others of pandas. With [], they are read as words and names."""

    def root_or(self, default: Path) -> Path:
        return Path(self.root) if self.root else default


def normalize_name(name: str) -> str:
    """A column's name in lower case without spaces, underscores and hyphens, which differ between copies of a table."""
    name = unicodedata.normalize("NFKC", name)
    return re.sub(rf"[\s_{INVISIBLE}-]", "", name).casefold()


class Header:
    """The column names of a table, looked up without regard to case, spaces, underscores and hyphens."""

    def __init__(self, names: Sequence[str], where: str):
        """where: the table, for messages."""
        self.names, self.where = list(names), where
        self._positions: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            self._positions.setdefault(normalize_name(name), []).append(i)

    def position(self, name: str) -> int:
        """The position of a column. UserError suggests the nearest name if there is no such column."""
        if name in self.names:
            return self.names.index(name)
        position = self._only(normalize_name(name))
        if position is None:
            raise UserError(f"{self.where}: no column {name!r}: {nearest(name, self.names)}")
        return position

    def _only(self, name: str, excluded: Collection[int] = ()) -> int | None:
        """The position of a normalized name. UserError if several columns have it."""
        positions = [i for i in self._positions.get(name, []) if i not in excluded]
        if len(positions) > 1:
            names = " and ".join(repr(self.names[i]) for i in positions)
            raise UserError(f"{self.where}: columns {names} differ only in capitals and spaces; rename one")
        return positions[0] if positions else None

    def first(self, usual_names: Iterable[str], excluded: Collection[int] = ()) -> int | None:
        """The first of the usual names that is present, and not at an excluded position."""
        positions = (self._only(name, excluded) for name in usual_names)
        return next((i for i in positions if i is not None), None)

    def resolve(
        self, roles: Iterable[str], options: ColumnOptions, media_columns: Collection[str] = ()
    ) -> dict[str, list[int]]:
        """{role: positions}: the columns given by the option of this name, otherwise the column recognized by its usual
        names. Given columns are not recognized as anything else, and `media_columns` (columns with media) only as
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


class LabelGuess(NamedTuple):
    """Which columns are labels."""

    positions: dict[str, int]
    """{label name: position}."""
    notes: list[str]
    """Notes for a person to check."""
    wrong: dict[str, str]
    """{label name: the first cell that is not a number, and how many more there are}."""


def guess_labels(
    header: Header,
    rows: Sequence[Sequence[Any]],
    taken: Collection[int],
    row_name: Callable[[int], str],
    not_labels: Collection[str] = (),
) -> LabelGuess:
    """The EMI dimensions if all are present, otherwise these and the numeric columns. A column with some cells that are
    not numbers is still numeric if these are not the majority, or look like numbers.

    taken: positions of other columns; row_name(i) names a row in notes; not_labels: columns with numbers that are no
    labels according to their type. UserError if two columns are the same EMI dimension.
    """
    emi, found = _emi_columns(header)
    if len(emi) == len(EMI):
        return LabelGuess(emi, found, {})
    labels, taken = dict(emi), {*taken, *emi.values()}
    notes: list[str] = []
    others: list[str] = []
    wrong: dict[str, str] = {}
    for i, name in enumerate(header.names):
        if i in taken or ROW_NUMBERS.fullmatch(name):
            continue
        values = [parse_number(row[i]) for row in rows]
        bad = [k for k, value in enumerate(values) if value is None]
        count = sum(value is not None and not math.isnan(value) for value in values)
        nearly = bool(bad) and is_nearly_number(rows[bad[0]][i]) and all(is_nearly_number(rows[k][i]) for k in bad)
        excluded = name in not_labels or is_not_label(name)
        where = f"{row_name(bad[0])}: {not_a_number(rows[bad[0]][i])}" if bad else ""
        where += f" (and {counted(len(bad) - 1, 'more row')})" if len(bad) > 1 else ""
        if excluded:
            others += [name] if count and not bad else []
        elif count and (nearly or count >= len(bad)):
            labels[name] = i
            wrong |= {name: where} if bad else {}
        elif bad and all(is_other_number(rows[k][i]) for k in bad):
            wrong[name] = where
            labels[name] = i
        elif nearly or 10 * count > len(bad):
            notes.append(f"{name!r} is not read: {where}")
    guessed = f"labels are the numeric columns {', '.join(labels)}" if labels else "no label columns found"
    notes = [*found, *([guessed] if labels.keys() != emi.keys() or not emi else []), *notes]
    if others:
        notes.append(
            f"not labels, by their names or kinds: {', '.join(others)}; the option labels names those that are"
        )
    return LabelGuess(labels, notes, wrong)


def refuse_wrong_labels(where: str, wrong: dict[str, str]) -> None:
    """UserError if a guessed label column has cells that are not numbers. where: the table."""
    for name, cell in wrong.items():
        raise UserError(
            f"{where}: column {name!r} has numbers, but {cell}; correct it or leave it empty; if it has no labels, "
            "name the columns that do in the option labels"
        )


def _emi_columns(header: Header) -> tuple[dict[str, int], list[str]]:
    """The EMI dimensions present, in their published order, and a note on the missing ones."""
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


def is_not_label(name: str) -> bool:
    """Whether a column's name says that its numbers are ids, groups or times."""
    words = [word.lower() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name) if word]
    group = normalize_name(name).removesuffix("id") in GROUP_NAMES
    return group or bool(words and (words[0] in NOT_LABELS or words[-1] == "id"))
