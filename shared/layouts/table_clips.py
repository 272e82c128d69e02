"""Turn the rows of a table into clips: shared by the layouts csv and hf."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.dataset.clip import Clip, ClipSource, StoredMedia, check_names, sidecar_transcript
from shared.errors import UserError
from shared.registry import nearest
from shared.tables.cells import SPLITS, cell_text, parse_label, split_name
from shared.tables.columns import GROUP_NAMES, USUAL_NAMES, ColumnOptions, Header, guess_labels, refuse_wrong_labels
from shared.tables.media_finder import FoundMedia, MediaFinder
from shared.text import counted, first_few

ROLES = ("media", "audio", "id", "transcript", "split")
TEXTS_ALONE = "only texts: no column of media files"
TRIED_ROWS = 50
"""Rows to check when looking for a column of files: looking for missing files takes time."""


@dataclass
class ClipColumnOptions(ColumnOptions):
    """Columns by name. Others are recognized by their usual names (shared/tables/columns.py)."""

    media: str = ""
    """Files with pictures, sound or both: by default path, file, media, filename, video or audio, otherwise a column
    with the names of files next to the table."""
    id: str = ""
    """Names of the clips; by default the stems of the files or, in a text-only table, table name and line. Without a
    media column, files are looked up by this name."""
    groups: list[str] = field(default_factory=list)
    """What clips have in common; by default columns called subject, speaker, actor, participant, person, seed or group,
    with or without a trailing "id"."""


@dataclass
class ClipColumns:
    """Positions in a header; None if there is no such column."""

    media: int | None
    audio: int | None
    id: int | None
    transcript: int | None
    split: int | None
    labels: dict[str, int]
    groups: dict[str, int]
    notes: list[str]

    @property
    def texts(self) -> list[int]:
        """Columns with names, words and files."""
        single = (self.media, self.audio, self.id, self.transcript)
        return [*(column for column in single if column is not None), *self.groups.values()]

    @property
    def file_column(self) -> int | None:
        """The column for finding files: media, otherwise id. None for a text-only table without names."""
        return self.id if self.media is None else self.media

    @property
    def name_column(self) -> int | None:
        """The column for ids: id, otherwise media. None for a text-only table without names."""
        return self.media if self.id is None else self.id


def find_clip_columns(
    options: ClipColumnOptions,
    header: Header,
    rows: Sequence[Sequence[Any]],
    row_name: Callable[[int], str],
    media_columns: Collection[str] = (),
    not_labels: Collection[str] = (),
    is_file: Callable[[str], bool] | None = None,
) -> ClipColumns:
    """The given columns, and guesses for the others. media_columns: columns with media; not_labels: columns with
    numbers that are no labels according to their type; row_name(i): names a row; is_file: whether a cell names an
    existing media file, which identifies a column of files with any name. UserError suggests the nearest name for a
    given column that does not exist, lists all names if no column has media or texts, and names a cell without a number
    in a column of numbers."""
    found = header.resolve(ROLES, options, media_columns)
    roles = {role: positions[0] if positions else None for role, positions in found.items()}
    if roles["media"] is None and roles["id"] is None and is_file is not None:
        taken = {i for i in roles.values() if i is not None}
        roles["media"] = _column_of_files(header, rows, taken, is_file)
    if roles["media"] is None and roles["id"] is None and (roles["transcript"] is None or roles["audio"] is not None):
        raise UserError(
            f"{header.where}: no column for the media files; call it one of: {', '.join(USUAL_NAMES['media'])}; "
            f"or set media to one of: {', '.join(header.names)}; a text-only table has a column "
            f"{' or '.join(USUAL_NAMES['transcript'])}, or the option transcript names it"
        )
    media = {i for i, name in enumerate(header.names) if name in media_columns}
    groups = {name: header.position(name) for name in options.groups}
    if not groups:
        given = [*(getattr(options, role) for role in ROLES), *options.labels]
        claimed = {header.position(name) for name in given if name} | media
        guesses = {name: header.first((name, f"{name}id"), claimed) for name in GROUP_NAMES}
        groups = {name: position for name, position in guesses.items() if position is not None}
    labels = {name: header.position(name) for name in options.labels}
    notes: list[str] = []
    if not labels:
        taken = {i for i in [*roles.values(), *groups.values(), *media] if i is not None}
        guess = guess_labels(header, rows, taken, row_name, not_labels)
        refuse_wrong_labels(header.where, guess.wrong)
        labels, notes = guess.positions, guess.notes
    check_names([*labels, *groups], f"{header.where}: names of columns")
    notes.append(_summary(header.names, roles, labels, groups))
    return ClipColumns(**roles, labels=labels, groups=groups, notes=notes)


def _column_of_files(
    header: Header, rows: Sequence[Sequence[Any]], taken: Collection[int], is_file: Callable[[str], bool]
) -> int | None:
    """The column where most of the first cells name existing media files. UserError if there are several."""
    columns = []
    for i in range(len(header.names)):
        cells = [] if i in taken else [text for row in rows[:TRIED_ROWS] if (text := _text(row, i))]
        if sum(map(is_file, cells)) > len(cells) / 2:
            columns.append(i)
    if len(columns) > 1:
        names = " and ".join(repr(header.names[i]) for i in columns)
        raise UserError(f"{header.where}: columns {names} name media files; set media to one of them")
    return columns[0] if columns else None


def _summary(header: list[str], roles: dict[str, int | None], labels: dict[str, int], groups: dict[str, int]) -> str:
    """How the columns are read, in one line."""
    parts = [f"{role} {header[i]!r}" for role, i in roles.items() if i is not None]
    parts += [f"{what} {', '.join(names)}" for what, names in (("labels", labels), ("groups", groups)) if names]
    used = {*roles.values(), *labels.values(), *groups.values()}
    unused = [name for i, name in enumerate(header) if name and i not in used]
    return "columns: " + "; ".join(parts + ([f"not read {', '.join(unused)}"] if unused else []))


def clips_from_rows(
    columns: ClipColumns,
    rows: Sequence[Sequence[Any]],
    ids: list[str],
    media_file: Callable[[int, int], FoundMedia | StoredMedia],
    finder: MediaFinder,
    row_name: Callable[[int], str],
    where: str,
) -> ClipSource:
    """The clips of all rows. media_file(row, column): the media in a cell; without a media column, `finder` looks for
    the id. A table is text-only if it has no media column and no id names a file. row_name(i): names a row in errors;
    where: the table. UserError for a label that is not a number, for a clip without a name, and for a duplicate
    name."""
    clips: list[Clip] = []
    for i, row in enumerate(rows):
        if not ids[i]:
            raise UserError(f"{where}: {row_name(i)} names neither a file nor an id")
        by_id = FoundMedia(None) if columns.id is None else finder.find_by_id(ids[i])
        media = by_id if columns.media is None else media_file(i, columns.media)
        audio = FoundMedia(None) if columns.audio is None else media_file(i, columns.audio)
        problems = [found.problem for found in (media, audio) if isinstance(found, FoundMedia) and found.problem]
        path = media.path if isinstance(media, FoundMedia) else media
        name = ids[i]
        if columns.media is None and isinstance(media, FoundMedia) and media.by_number and media.path is not None:
            name = media.path.stem
        labels = (parse_label(row[k], f"{where}: {row_name(i)}, column {name}") for name, k in columns.labels.items())
        clips.append(
            Clip(
                id=name,
                media=path,
                audio=audio.path if isinstance(audio, FoundMedia) else audio,
                problems=tuple(problems),
                transcript=_text(row, columns.transcript) or sidecar_transcript(path),
                labels=tuple(labels),
                groups={name: _text(row, k) for name, k in columns.groups.items()},
                split=split_name(_text(row, columns.split)),
            )
        )
    _refuse_repeated_ids([clip.id for clip in clips], row_name, where)
    notes = [*columns.notes, *finder.notes(), *_unknown_splits(clips)]
    if _are_texts_alone(columns, clips):
        clips = [replace(clip, words_alone=True) for clip in clips]
        notes.append(TEXTS_ALONE if columns.id is None else f"{TEXTS_ALONE}, and no file is called like an id")
    return ClipSource(clips, tuple(columns.labels), tuple(columns.groups), notes)


def _are_texts_alone(columns: ClipColumns, clips: Sequence[Clip]) -> bool:
    """Whether there is no media column, and no id names a file or nearly does."""
    if columns.media is not None or columns.audio is not None or not any(clip.transcript for clip in clips):
        return False
    return all(clip.media is None and not clip.problems for clip in clips)


def _refuse_repeated_ids(ids: Sequence[str], row_name: Callable[[int], str], where: str) -> None:
    """UserError with the rows if two clips have the same name."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(ids):
        rows.setdefault(name, []).append(i)
    repeated = {name: several for name, several in rows.items() if len(several) > 1}
    for name, several in repeated.items():
        more = f" (and {len(repeated) - 1} names more)" if len(repeated) > 1 else ""
        named = first_few([row_name(i) for i in several])
        raise UserError(f"{where}: two clips are called {name!r}: {named}{more}; ids must be unique")


def _unknown_splits(clips: Sequence[Clip]) -> list[str]:
    """A note on each split other than train, valid and test."""
    count: dict[str, int] = {}
    for clip in clips:
        if clip.split and clip.split not in SPLITS:
            count[clip.split] = count.get(clip.split, 0) + 1
    hints = {name: nearest(name.lower(), SPLITS) for name in count}
    hints |= {name: "is it valid or test?" for name in count if name.lower().startswith("eval")}
    return [
        f"split {name!r} of {counted(number, 'clip')} is none of {', '.join(SPLITS)}: {hints[name]}"
        for name, number in count.items()
    ]


def _text(row: Sequence[Any], column: int | None) -> str:
    return "" if column is None else cell_text(row[column], ())
