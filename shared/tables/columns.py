"""Which column of a table holds what, and the clips that its rows are. Layouts csv and hf share it."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import EMI, Clip, ClipSource, StoredMedia, sidecar_transcript
from shared.errors import UserError
from shared.registry import nearest
from shared.tables.table import Finder, number, plain, split_name

NAMES = {
    "media": ("path", "file", "media", "filename", "video", "audio"),
    "audio": ("audio", "sound"),
    "id": ("id", "clip"),
    "transcript": ("transcript", "text", "words", "sentence"),
    "split": ("split",),
}
"""Names by which a column is recognised, the first of them that is there, whatever its case, spaces and underscores."""
ROW_NUMBERS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""What a column is called into which pandas wrote the numbers of its rows: no label."""
GROUPS = ("subject", "speaker", "actor", "participant", "seed", "group")
"""Names of what clips have in common, with or without "id" behind them."""
NO_LABELS = (
    *("age", "sex", "gender", "fold", "index"),
    *("start", "end", "onset", "offset", "duration", "length", "timestamp"),
)
"""First words of names under which numbers are no labels; nor are they where the last word is "id"."""


@dataclass
class ColumnOptions:
    """Columns by name. Those left out are recognised by the usual names."""

    media: str = ""
    """Files with pictures, sound or both: path, file, media, filename, video or audio where nothing is said."""
    audio: str = ""
    """Sound in files of its own, beside `media`."""
    id: str = ""
    """Names of the clips; else the stems of the files. Without a media column, files are looked for by it."""
    labels: list[str] = field(default_factory=list)
    """Any numbers; else the six EMI dimensions if any is there, else every other column that holds numbers and is not
    called as what is none: an id, a group, or age, sex, gender, fold, start, end, onset, offset, duration, length,
    timestamp, index."""
    transcript: str = ""
    """What is said; else `<stem>.txt` beside the media file."""
    groups: list[str] = field(default_factory=list)
    """What clips have in common; else those called subject, speaker, actor, participant, seed, group or subject_id."""
    split: str = ""
    """train, valid, test."""
    root: str = ""
    """Folder that relative paths start from; that of the table where nothing is said."""


@dataclass
class Columns:
    """Positions in a header; None where there is no such column."""

    media: int | None
    audio: int | None
    id: int | None
    transcript: int | None
    split: int | None
    labels: dict[str, int]
    groups: dict[str, int]
    notes: list[str]


def choose(
    options: ColumnOptions,
    header: list[str],
    rows: Sequence[Sequence[Any]],
    where: str,
    at: Callable[[int], str],
    stored: Collection[str] = (),
    classes: Collection[str] = (),
) -> Columns:
    """Named columns, and guesses for the others: those that are `stored` media hold nothing else, those of `classes` no
    labels. at(row): names it. UserError names the nearest for one that is not there, and lists them all when none holds
    media."""
    lower = {plain(name): i for i, name in reversed(list(enumerate(header)))}

    def place(name: str) -> int:
        if name not in header and plain(name) not in lower:
            raise UserError(f"{where}: no column {name!r}: {nearest(name, header)}")
        return header.index(name) if name in header else lower[plain(name)]

    claimed = {getattr(options, part) for part in NAMES} | set(options.labels) | set(options.groups)
    claimed = {place(name) for name in claimed if name}
    inside = {i for i, name in enumerate(header) if name in stored}
    found: dict[str, int | None] = {}
    for part, usual in NAMES.items():
        given = getattr(options, part)
        others = {*claimed, *found.values(), *(() if part in ("media", "audio") else inside)}
        free = (lower[name] for name in usual if name in lower and lower[name] not in others)
        found[part] = place(given) if given else next(free, None)
    if found["media"] is None and found["id"] is None:
        usual = ", ".join(NAMES["media"])
        raise UserError(
            f"{where}: no column for the media files; call it one of: {usual}; "
            f"or set media to one of: {', '.join(header)}"
        )
    groups = {name: place(name) for name in options.groups}
    if not options.groups:
        alike = {name: (lower[key] for key in (name, f"{name}id") if key in lower) for name in GROUPS}
        there = {name: next((i for i in some if i not in claimed | inside), None) for name, some in alike.items()}
        groups = {name: i for name, i in there.items() if i is not None}
    taken = {*found.values(), *groups.values(), *inside}
    labels = {name: place(name) for name in options.labels}
    notes = []
    if not labels:
        labels, notes = _guess_labels(header, rows, taken, classes, where, at)
    return Columns(**found, labels=labels, groups=groups, notes=[*notes, _shown(header, found, labels, groups)])


def _guess_labels(header: list[str], rows, taken: set, classes, where: str, at) -> tuple[dict[str, int], list[str]]:
    """{label name: position}, and what a person should know of it."""
    known = {plain(name): name for name in EMI}
    emi: dict[str, int] = {}
    for i, cell in enumerate(header):
        name = known.get(plain(cell))
        if name in emi:
            raise UserError(f"{where}: columns {header[emi[name]]!r} and {cell!r} are both {name}; rename one")
        if name is not None:
            emi[name] = i
    if emi:
        missing = [name for name in EMI if name not in emi]
        note = [f"no column for {', '.join(missing)}"] if missing else []
        return {name: emi[name] for name in EMI if name in emi}, note
    labels, others, notes = {}, [], []
    for i, name in enumerate(header):
        if i in taken or ROW_NUMBERS.fullmatch(name):
            continue
        values = [number(row[i]) for row in rows]
        wrong = [k for k, value in enumerate(values) if value is None]
        numbers = len(values) - len(wrong) - sum(value is not None and math.isnan(value) for value in values)
        no_label = name in classes or _is_no_label(name)
        if numbers and not wrong and no_label:
            others.append(name)
        elif numbers and not wrong:
            labels[name] = i
        elif numbers > len(wrong) and not no_label:
            more = f", and {len(wrong) - 1} rows more" if len(wrong) > 1 else ""
            notes.append(
                f"{name!r} is not read: {at(wrong[0])} has {str(rows[wrong[0]][i])[:40]!r}, which is no number{more}"
            )
    notes = [f"labels are the numeric columns {', '.join(labels)}" if labels else "no label columns found", *notes]
    if others:
        notes.append(
            f"not labels, by their names or kinds: {', '.join(others)}; the option labels names those that are"
        )
    return labels, notes


def _is_no_label(name: str) -> bool:
    """Whether a column's name says that its numbers count, name or time something."""
    words = [word.lower() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name) if word]
    group = plain(name).removesuffix("id") in GROUPS
    return group or bool(words and (words[0] in NO_LABELS or words[-1] == "id"))


def _shown(header: list[str], found: dict, labels: dict, groups: dict) -> str:
    """The columns as they are read, in one line."""
    parts = [f"{part} {header[i]!r}" for part, i in found.items() if i is not None]
    parts += [f"{what} {', '.join(names)}" for what, names in (("labels", labels), ("groups", groups)) if names]
    used = {*found.values(), *labels.values(), *groups.values()}
    unused = [name for i, name in enumerate(header) if i not in used]
    return "columns: " + "; ".join(parts + ([f"not read {', '.join(unused)}"] if unused else []))


def clips_of(
    columns: Columns,
    rows: Sequence[Sequence[Any]],
    ids: list[str],
    files: Callable[[int, int], Path | StoredMedia | None],
    finder: Finder,
    where: Callable[[int], str],
) -> ClipSource:
    """The clips of all rows. files(row, column): the media file in that cell, without a media column `finder` looks for
    the id; where(row): names it in errors. UserError names the row of a label that is no number, and of a clip without
    a name."""
    clips = []
    for i, row in enumerate(rows):
        if not ids[i]:
            raise UserError(f"{where(i)} names neither a file nor an id")
        media, doubt = finder.find_by_id(ids[i]) if columns.media is None else (files(i, columns.media), "")
        clips.append(
            Clip(
                id=ids[i],
                media=media,
                audio=files(i, columns.audio) if columns.audio is not None else None,
                remarks=(doubt,) if doubt else (),
                transcript=_text(row, columns.transcript) or sidecar_transcript(media),
                labels=tuple(_label(row[at], f"{where(i)}, column {name}") for name, at in columns.labels.items()),
                groups={name: _text(row, at) for name, at in columns.groups.items()},
                split=split_name(_text(row, columns.split)),
            )
        )
    return ClipSource(clips, tuple(columns.labels), tuple(columns.groups), columns.notes)


def _text(row: Sequence[Any], column: int | None) -> str:
    return "" if column is None or row[column] is None else str(row[column]).strip()


def _label(cell: Any, where: str) -> float:
    value = number(cell)
    if value is None:
        raise UserError(f"{where}: {cell!r} is not a number; leave it empty if there is no label")
    return value
