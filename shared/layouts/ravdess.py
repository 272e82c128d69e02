"""Layout "ravdess": the acted speech and song of RAVDESS (Livingstone and Russo 2018, PLoS ONE 13(5): e0196391), in any
folders. Recordings are identified by their file names or, with a manifest.csv, by its rows.

03-01-05-01-02-01-12.wav: modality (01 picture and sound, 02 picture, 03 sound), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor.

manifest.csv: the relative path of a file with any name; emotion, intensity and actor; text and repetition if known.
Values are numbers as above, or words: angry, strong.
"""

import contextlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from shared.dataset.clip import Clip, ClipSource, LeftOut
from shared.dataset.media_files import ids_from_paths, media_files
from shared.errors import UserError
from shared.options.ranges import CheckedOptions
from shared.tables.cells import cell_text
from shared.tables.columns import USUAL_NAMES, Header
from shared.tables.formats import is_table, read_table
from shared.tables.media_finder import MediaFinder
from shared.tables.text_table import TableRow, TextTable
from shared.text import counted, first_few, words

MANIFEST = "manifest.csv"
LABELS = ("calm", "happy", "sad", "angry", "fearful", "disgust")
EMOTIONS = {"01": "neutral", **dict(zip(("02", "03", "04", "05", "06", "07"), LABELS, strict=True)), "08": "surprised"}
INTENSITIES = {"01": "normal", "02": "strong"}
VALUES = {"01": 0.5, "02": 1.0}
"""The label at each intensity."""
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
UNKNOWN = (math.nan,) * len(LABELS)


@dataclass
class Ravdess(CheckedOptions):
    """Labels: the acted emotion is 0.5 at normal and 1 at strong intensity, the others are 0; for neutral and surprised
    all are 0. Groups: actor, statement. Transcripts: the statement."""

    def read(self, source: Path) -> ClipSource:
        """The clips of a folder, a file or a manifest, ordered by emotion, intensity, statement, repetition and actor.
        UserError if `source` is a manifest that cannot be read."""
        left_out: list[LeftOut] = []
        if source.is_file() and is_table(source):
            clips, notes, left_out = _read_manifest(source)
        elif source.is_dir() and (source / MANIFEST).is_file():
            try:
                clips, notes, left_out = _read_manifest(source / MANIFEST)
            except UserError as error:
                clips, notes = _read_file_names(source)
                notes.append(f"{error}; the names of the files are read instead")
        else:
            clips, notes = _read_file_names(source)
        return ClipSource(clips, LABELS, ("actor", "statement"), notes, label_ranges={}, left_out=left_out)


def _read_file_names(source: Path) -> tuple[list[Clip], list[str]]:
    """One clip per recording, even if it has several copies and parts; and notes."""
    recordings: dict[str, dict[str, Path]] = {}
    others, copies = [], 0
    folder = source if source.is_dir() else source.parent
    files = media_files(source) if source.is_dir() else [Path(source.name)]
    for path in sorted(files, key=lambda path: source.is_dir() and not (source / path).exists()):  # broken links last
        if not NAME.fullmatch(path.stem):
            others.append(str(path))
            continue
        modality, _, recording = path.stem.partition("-")
        parts = recordings.setdefault(recording, {})
        copies += modality in parts
        parts.setdefault(modality, folder / path)
    notes = [f"{copies:,} copies of other files left out"] if copies else []
    if others:
        listed = first_few(others, separator="; ")
        notes.append(f"{counted(len(others), 'file')} left out, not named like RAVDESS files: {listed}")
    return [_clip(recording, parts) for recording, parts in sorted(recordings.items())], notes


def _clip(recording: str, parts: dict[str, Path]) -> Clip:
    """parts: modality -> file. One file with picture and sound, or a separate file for each."""
    media = parts.get("01") or parts.get("02") or parts["03"]
    audio = parts.get("03") if "01" not in parts and "02" in parts else None
    _, emotion, intensity, statement, _, actor = recording.split("-")
    return Clip(
        id=media.stem,
        media=media,
        audio=audio,
        transcript=STATEMENTS[statement],
        labels=_labels(emotion, intensity),
        groups={"actor": actor, "statement": statement},
    )


def _labels(emotion: str | None, intensity: str | None) -> tuple[float, ...]:
    """emotion, intensity: their numbers; None = unknown, which makes labels unknown (NaN)."""
    if emotion is None:
        return UNKNOWN
    value = math.nan if intensity is None else VALUES[intensity]
    return tuple(value if EMOTIONS[emotion] == name else 0.0 for name in LABELS)


# --- manifest ------------------------------------------------------------------------------------------------------


def is_manifest(path: Path) -> bool:
    """Whether a file has the name and the columns of a manifest."""
    if path.name.lower() != MANIFEST or not path.is_file():
        return False
    with contextlib.suppress(UserError):
        return _columns(read_table(path).header) is not None
    return False


def _columns(names: list[str]) -> dict[str, int] | None:
    """Positions of the columns path, emotion, intensity, actor and, if present, text and repetition; None if one of the
    first four is missing."""
    header = Header(names, MANIFEST)
    usual: dict[str, tuple[str, ...]] = {name: (name,) for name in ("emotion", "intensity", "actor", "repetition")}
    usual |= {"path": USUAL_NAMES["media"], "text": (*USUAL_NAMES["transcript"], "statement")}
    positions = {part: header.first(several) for part, several in usual.items()}
    columns = {part: position for part, position in positions.items() if position is not None}
    return columns if {"path", "emotion", "intensity", "actor"} <= set(columns) else None


@dataclass
class _Entry:
    """What a manifest says about one file."""

    path: str
    """As spelled in the row."""
    line: int
    order: list[str]
    clip: Clip


class ManifestClips(NamedTuple):
    """The content of a manifest."""

    clips: list[Clip]
    notes: list[str]
    left_out: list[LeftOut]


def _read_manifest(path: Path) -> ManifestClips:
    """One clip per file named in a row; and notes. UserError if the table is not a manifest."""
    table = read_table(path)
    columns = _columns(table.header)
    if columns is None:
        raise UserError(f"{path}: not a RAVDESS manifest, which has the columns path, emotion, intensity and actor")
    entries, problems, left_out, found = _read_entries(path, table, columns)
    ids = ids_from_paths([entry.path for entry in entries.values()])
    named = [(entry.order, name, entry.clip) for name, entry in zip(ids, entries.values(), strict=True)]
    clips = [replace(clip, id=name) for _, name, clip in sorted(named, key=lambda each: each[:2])]

    folder = os.path.normpath(path.parent)
    files = [Path(os.path.normpath(path.parent / file)) for file in media_files(path.parent)]
    problems |= {
        ("file", "is missing", "are missing"): [name for name in entries if not os.path.isfile(name)],
        ("file", "is in no row and left out", "are in no row and left out"): [
            str(f.relative_to(folder)) for f in files if str(f) not in entries
        ],
        ("clip", "has rows that are not understood", "have rows that are not understood"): [
            f"{c.id} ({', '.join(c.problems)})" for c in clips if c.problems
        ],
    }
    notes = [
        f"{path.name}: {counted(len(items), *problem)}: {first_few(items, separator='; ')}"
        for problem, items in problems.items()
        if items
    ]
    return ManifestClips(clips, [*table.notes, *found, *notes], left_out)


class _Entries(NamedTuple):
    """The rows of a manifest."""

    by_file: dict[str, _Entry]
    problems: dict[tuple[str, str, str], list[str]]
    """{(word, problem in the singular, problem in the plural): affected rows}."""
    left_out: list[LeftOut]
    notes: list[str]


def _read_entries(path: Path, table: TextTable, columns: dict[str, int]) -> _Entries:
    finder = MediaFinder(path.parent)
    entries: dict[str, _Entry] = {}
    without_file, repeated = [], []
    left_out: list[LeftOut] = []
    for row in table.rows:
        cells = {part: cell_text(row.cells[position]) for part, position in columns.items()}
        file = finder.find(cells["path"]).path if cells["path"].strip("./\\") else None
        if file is None:
            without_file.append(f"line {row.line}")
            left_out.append(LeftOut(f"{path.name} line {row.line}", "", "names no file"))
            continue
        entry = _entry(Path(os.path.normpath(file)), cells, row)
        first = entries.setdefault(str(entry.clip.media), entry)
        if first is entry:
            continue
        repeated.append(f"line {row.line} ({cells['path']})")
        left_out.append(
            LeftOut(f"{path.name} line {row.line}", cells["path"], f"line {first.line} names this file too")
        )
        # Compared as text, because NaN differs from NaN.
        if repr(replace(entry.clip, problems=())) != repr(replace(first.clip, problems=())):
            problem = f"line {row.line} of {path.name} contradicts it, so it is not labeled"
            first.clip = replace(first.clip, labels=UNKNOWN, problems=(*first.clip.problems, problem))
    problems = {
        ("row", "names no file and is left out", "name no file and are left out"): without_file,
        (
            "row",
            "names a file that another one names, and is left out",
            "name a file that others name, and are left out",
        ): repeated,
    }
    return _Entries(entries, problems, left_out, finder.notes())


def _entry(media: Path, cells: dict[str, str], row: TableRow) -> _Entry:
    """The clip without its id. Values that are not understood count as unknown, and are listed as problems."""
    problems = []

    def parse(part: str, known: dict[str, str]) -> str | None:
        key = _key(cells[part], known)
        if key is None:
            problems.append(f"its {part} {cells[part]!r} is none of {', '.join(known.values())}")
        return key

    emotion, intensity = parse("emotion", EMOTIONS), parse("intensity", INTENSITIES)
    actor = _two_digits(cells["actor"])
    problems += [] if actor else ["it has no actor"]
    text = cells.get("text", "")
    statement = _key(text, STATEMENTS)
    clip = Clip(
        id="",
        media=media,
        transcript=STATEMENTS[statement] if statement else text or None,
        labels=_labels(emotion, intensity),
        groups={"actor": actor, "statement": statement or text},
        problems=tuple(problems),
    )
    if row.problem:  # its cells may be under the wrong columns
        clip = replace(clip, labels=UNKNOWN, problems=(f"line {row.line}: {row.problem}; labels not read",))
    repetition = _two_digits(cells.get("repetition", ""))
    return _Entry(cells["path"], row.line, [emotion or "", intensity or "", statement or text, repetition, actor], clip)


def _key(cell: str, known: dict[str, str]) -> str | None:
    """The key of a value given as a number or in words; None if unknown."""
    number, cell_words = _two_digits(cell), words(cell)
    return next((key for key, value in known.items() if key == number or words(value) == cell_words), None)


def _two_digits(cell: str) -> str:
    """A number with two digits, as in file names; anything else unchanged."""
    return cell.lstrip("0").zfill(2) if cell.isdecimal() else cell
