"""The clips that the rows of a table are: shared by the layouts csv and hf."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import Clip, ClipSource, StoredMedia, sidecar_transcript
from shared.errors import UserError
from shared.tables.cells import cell_text, parse_label, split_name
from shared.tables.columns import GROUP_NAMES, USUAL_NAMES, ColumnOptions, Header, guess_labels
from shared.tables.media_finder import MediaFinder

ROLES = ("media", "audio", "id", "transcript", "split")


@dataclass
class ClipColumnOptions(ColumnOptions):
    """Columns by name. Those not set are recognized by their usual names (shared/tables/columns.py)."""

    media: str = ""
    """Files with pictures, sound or both: path, file, media, filename, video or audio by default."""
    id: str = ""
    """Names of the clips; by default the stems of the files. Without a media column, files are looked up by it."""
    groups: list[str] = field(default_factory=list)
    """What clips have in common; by default columns called subject, speaker, actor, participant, seed or group, with or
    without "id" behind."""


@dataclass
class ClipColumns:
    """Positions in a header; None when there is no such column."""

    media: int | None
    audio: int | None
    id: int | None
    transcript: int | None
    split: int | None
    labels: dict[str, int]
    groups: dict[str, int]
    notes: list[str]

    @property
    def file_column(self) -> int:
        """The column by which files are found: media, otherwise id."""
        return self._first(self.media, self.id)

    @property
    def name_column(self) -> int:
        """The column from which ids are made: id, otherwise media."""
        return self._first(self.id, self.media)

    def _first(self, *columns: int | None) -> int:
        return next(column for column in columns if column is not None)


def find_clip_columns(
    options: ClipColumnOptions,
    header: Header,
    rows: Sequence[Sequence[Any]],
    row_name: Callable[[int], str],
    media_columns: Collection[str] = (),
    not_labels: Collection[str] = (),
) -> ClipColumns:
    """Given columns, and guesses for the others. media_columns: columns whose cells are media; not_labels: columns
    whose type says that their numbers are no labels; row_name(i): names a row. UserError suggests the nearest name for
    a given column that does not exist, and lists all names when no column holds media."""
    found = header.resolve(ROLES, options, media_columns)
    roles = {role: positions[0] if positions else None for role, positions in found.items()}
    if roles["media"] is None and roles["id"] is None:
        raise UserError(
            f"{header.where}: no column for the media files; call it one of: {', '.join(USUAL_NAMES['media'])}; "
            f"or set media to one of: {', '.join(header.names)}"
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
        labels, notes = guess_labels(header, rows, taken, row_name, not_labels)
    notes.append(_summary(header.names, roles, labels, groups))
    return ClipColumns(**roles, labels=labels, groups=groups, notes=notes)


def _summary(header: list[str], roles: dict[str, int | None], labels: dict[str, int], groups: dict[str, int]) -> str:
    """How the columns are read, in one line."""
    parts = [f"{role} {header[i]!r}" for role, i in roles.items() if i is not None]
    parts += [f"{what} {', '.join(names)}" for what, names in (("labels", labels), ("groups", groups)) if names]
    used = {*roles.values(), *labels.values(), *groups.values()}
    unused = [name for i, name in enumerate(header) if i not in used]
    return "columns: " + "; ".join(parts + ([f"not read {', '.join(unused)}"] if unused else []))


def clips_from_rows(
    columns: ClipColumns,
    rows: Sequence[Sequence[Any]],
    ids: list[str],
    media_file: Callable[[int, int], Path | StoredMedia | None],
    finder: MediaFinder,
    row_name: Callable[[int], str],
) -> ClipSource:
    """The clips of all rows. media_file(row, column): the media in that cell; without a media column, `finder` looks
    for the id. row_name(i): names a row in errors. UserError for a label that is not a number, and for a clip without a
    name."""
    clips = []
    for i, row in enumerate(rows):
        if not ids[i]:
            raise UserError(f"{row_name(i)} names neither a file nor an id")
        media: Path | StoredMedia | None
        media, problem = finder.find_by_id(ids[i]) if columns.media is None else (media_file(i, columns.media), "")
        transcript = _text(row, columns.transcript) or sidecar_transcript(media)
        labels = (parse_label(row[k], f"{row_name(i)}, column {name}") for name, k in columns.labels.items())
        clips.append(
            Clip(
                id=ids[i],
                media=media,
                audio=media_file(i, columns.audio) if columns.audio is not None else None,
                problems=(problem,) if problem else (),
                transcript=transcript,
                labels=tuple(labels),
                groups={name: _text(row, k) for name, k in columns.groups.items()},
                split=split_name(_text(row, columns.split)),
            )
        )
    return ClipSource(clips, tuple(columns.labels), tuple(columns.groups), columns.notes)


def _text(row: Sequence[Any], column: int | None) -> str:
    return "" if column is None else cell_text(row[column])
