"""Layout "ravdess": the acted speech and song of RAVDESS (Livingstone and Russo 2018, PLoS ONE 13(5): e0196391), in any
folders, known by the names of its files or, where there is a manifest.csv, by its rows.

03-01-05-01-02-01-12.wav: modality (01 picture and sound, 02 picture, 03 sound), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor.

manifest.csv: path, relative to it, of a file called anything; emotion, intensity and actor; text and repetition where
they are known. Values are numbers as above, or words: angry, strong.
"""

import contextlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.media_files import ids_from_paths, media_files
from shared.errors import UserError
from shared.tables.columns import NAMES
from shared.tables.table import Finder, plain, read_table, some
from shared.text import words

MANIFEST = "manifest.csv"
LABELS = ("calm", "happy", "sad", "angry", "fearful", "disgust")
EMOTIONS = {"01": "neutral", **dict(zip(("02", "03", "04", "05", "06", "07"), LABELS, strict=True)), "08": "surprised"}
INTENSITIES = {"01": "normal", "02": "strong"}
VALUES = {"01": 0.5, "02": 1.0}
"""Of the label, at each intensity."""
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")


@dataclass
class Ravdess:
    """Labels: the emotion acted is 0.5 at normal and 1 at strong intensity, the others 0; neutral and surprise are 0
    throughout. Groups: actor, statement. Transcripts: the statement."""

    def read(self, source: Path) -> ClipSource:
        """The clips of a folder, of one file or of a manifest, in the order emotion, intensity, statement, repetition,
        actor. UserError when a manifest that is named outright cannot be read."""
        if source.is_file() and source.suffix.lower() in (".csv", ".tsv"):
            clips, notes = _by_rows(source)
        elif source.is_dir() and (source / MANIFEST).is_file():
            try:
                clips, notes = _by_rows(source / MANIFEST)
            except UserError as error:
                clips, notes = _by_names(source)
                notes.append(f"{error}; the names of the files are read in its place")
        else:
            clips, notes = _by_names(source)
        return ClipSource(clips, LABELS, ("actor", "statement"), notes)


def _by_names(source: Path) -> tuple[list[Clip], list[str]]:
    """One clip a recording, however often and in whatever parts it is there; and notes."""
    recordings: dict[str, dict[str, Path]] = {}
    others, copies = [], 0
    files = media_files(source) if source.is_dir() else [Path(source.name)]
    for path in sorted(files, key=lambda path: source.is_dir() and not (source / path).exists()):  # dead links last
        if not NAME.fullmatch(path.stem):
            others.append(str(path))
            continue
        modality, _, recording = path.stem.partition("-")
        parts = recordings.setdefault(recording, {})
        copies += modality in parts
        parts.setdefault(modality, (source if source.is_dir() else source.parent) / path)
    notes = [f"{copies} further copies of files are left out"] if copies else []
    if others:
        notes.append(
            f"{len(others)} files are not named as RAVDESS names its own and are left out: {some(others, between='; ')}"
        )
    return [_clip(recording, parts) for recording, parts in sorted(recordings.items())], notes


def _clip(recording: str, parts: dict[str, Path]) -> Clip:
    """parts: modality -> file. The file with both, or picture and sound from a file each."""
    picture = parts.get("01") or parts.get("02")
    media = picture or parts["03"]
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
    """By their numbers; None = unknown, and so is the label then (NaN)."""
    if emotion is None:
        return (math.nan,) * len(LABELS)
    value = VALUES.get(intensity, math.nan)
    return tuple(value if EMOTIONS[emotion] == name else 0.0 for name in LABELS)


# --- by the rows of a manifest -------------------------------------------------------------------------------------


def is_manifest(path: Path) -> bool:
    """Whether a file is called as a manifest is, and has its columns."""
    if path.name.lower() != MANIFEST or not path.is_file():
        return False
    with contextlib.suppress(UserError):
        return _columns(read_table(path).header) is not None
    return False


def _columns(header: list[str]) -> dict[str, int] | None:
    """Places of the columns path, emotion, intensity, actor and, where they are, text and repetition; None when one of
    the first four is not there."""
    places = {plain(name): i for i, name in reversed(list(enumerate(header)))}
    names = {name: (name,) for name in ("emotion", "intensity", "actor", "repetition")}
    names |= {"path": NAMES["media"], "text": (*NAMES["transcript"], "statement")}
    found = {part: next((places[name] for name in some if name in places), None) for part, some in names.items()}
    found = {part: place for part, place in found.items() if place is not None}
    return found if {"path", "emotion", "intensity", "actor"} <= set(found) else None


def _by_rows(table: Path) -> tuple[list[Clip], list[str]]:
    """One clip a file that a row names, whatever it is called; and notes. UserError when it is no such table."""
    given = read_table(table)
    places = _columns(given.header)
    if places is None:
        raise UserError(f"{table}: no manifest of RAVDESS, which has the columns path, emotion, intensity and actor")
    finder = Finder(table.parent)
    found: dict[str, tuple[list[str], str, Clip]] = {}  # by file: order, cell, clip
    nameless, again = [], []
    for row in given.rows:
        cells = {part: row.cells[place] for part, place in places.items()}
        if not cells["path"].strip("./\\"):
            nameless.append(f"line {row.line}")
            continue
        media = Path(os.path.normpath(finder.find(cells["path"])))
        order, clip = _row(media, cells)
        if row.wrong:  # its cells may stand under the wrong columns
            clip = replace(
                clip, labels=_labels(None, None), remarks=(f"line {row.line}: {row.wrong}; labels not read",)
            )
        if str(media) not in found:
            found[str(media)] = order, cells["path"], clip
            continue
        again.append(f"line {row.line} ({cells['path']})")
        order, cell, first = found[str(media)]
        if repr(replace(clip, remarks=())) != repr(replace(first, remarks=())):  # by its text: NaN is not NaN
            remark = f"line {row.line} of {table.name} says something else of it, so it is not labelled"
            found[str(media)] = (
                order,
                cell,
                replace(first, labels=_labels(None, None), remarks=(*first.remarks, remark)),
            )
    ids = ids_from_paths([cell for _, cell, _ in found.values()])
    ordered = sorted((order, name, path) for name, (path, (order, _, _)) in zip(ids, found.items(), strict=True))
    clips = [replace(found[path][2], id=name) for _, name, path in ordered]

    missing = [name for name in found if not os.path.isfile(name)]
    here = [Path(os.path.normpath(table.parent / path)) for path in media_files(table.parent)]
    beyond = [str(path.relative_to(os.path.normpath(table.parent))) for path in here if str(path) not in found]
    odd = [f"{clip.id} ({', '.join(clip.remarks)})" for clip in clips if clip.remarks]
    what = {
        "rows name no file and are left out": nameless,
        "rows name a file that another one names, and are left out": again,
        "files are not there": missing,
        "files are in no row and left out": beyond,
        "clips have rows that are not understood": odd,
    }
    counted = [
        f"{table.name}: {len(rows)} {problem}: {some(rows, between='; ')}" for problem, rows in what.items() if rows
    ]
    return clips, [*given.notes, *counted]


def _row(media: Path, cells: dict[str, str]) -> tuple[list[str], Clip]:
    """Its place among the others, and the clip without its id. What is not understood is unknown, and remarked on."""
    remarks = []

    def number(part: str, known: dict[str, str]) -> str | None:
        found = _number(cells[part], known)
        if found is None:
            remarks.append(f"its {part} {cells[part]!r} is none of {', '.join(known.values())}")
        return found

    emotion, intensity = number("emotion", EMOTIONS), number("intensity", INTENSITIES)
    actor = _two_digits(cells["actor"])
    remarks += [] if actor else ["it has no actor"]
    text = cells.get("text", "")
    statement = _number(text, STATEMENTS)
    clip = Clip(
        id="",
        media=media,
        transcript=STATEMENTS.get(statement) or text or None,
        labels=_labels(emotion, intensity),
        groups={"actor": actor, "statement": statement or text},
        remarks=tuple(remarks),
    )
    repetition = _two_digits(cells.get("repetition", ""))
    return [emotion or "", intensity or "", statement or text, repetition, actor], clip


def _number(cell: str, known: dict[str, str]) -> str | None:
    """The number of what a cell names by its number or in words; None when it is none of those known."""
    number, said = _two_digits(cell), words(cell)
    return next((key for key, name in known.items() if key == number or words(name) == said), None)


def _two_digits(cell: str) -> str:
    """A number as the names of files have it; anything else as it is."""
    return cell.lstrip("0").zfill(2) if cell.isdecimal() else cell
