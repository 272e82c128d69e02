"""Layout "vidmimic2": Hume-Vidmimic2 as distributed, and with files added by teams.

    train_split.csv, valid_split.csv    Filename (five digits), six labels in [0, 1]
    test_split.csv                      added by teams: Filename, and columns of zeros that are not labels
    raw/00000.mp4                       the clips
    audio/00000.mp3                     16 kHz, mono
    face_images/00000/0.jpg, 1.jpg ...  face crops, one per frame; a folder may be empty
    vit/00000.pkl, wav2vec2/00000.pkl   features (pickles.py)
    text/00000.txt                      transcripts, added by teams
    test_data/                          the same folders for the test split

A damaged row or file affects only its own clip and is named in the clip's verdict.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shared.dataset.clip import EMI, Clip, ClipSource, LeftOut, read_transcript
from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.layouts.vidmimic2.seeds import count_unlabeled, count_zero_rows, seed_names
from shared.layouts.vidmimic2.tables import NO_CLIP, NO_LABELS, clip_id, read_split
from shared.options.ranges import CheckedOptions
from shared.text import counted, first_few

SPLITS = ("train", "valid", "test")
DISTRIBUTED = {"train": 8072, "valid": 4588, "test": 4586}
"""Clips of each split in the distributed dataset."""
UNLISTED = "has files in test_data/, but is in no table"
"""Problem of a test clip that is missing in the table of the test split."""
FOLDERS = ("raw", "audio", "face_images", "vit", "wav2vec2", "text")


@dataclass
class Vidmimic2(CheckedOptions):
    crops: Literal["own", "precomputed"] = "own"
    """Pictures: faces detected in raw/, or the precomputed crops in face_images/."""
    audio: Literal["precomputed", "raw"] = "precomputed"
    """Sound: audio/, as used for published results, or the sound of raw/. The other one is the fallback."""

    def read(self, source: Path) -> ClipSource:
        """The clips of all splits present, sorted by id; without any table, the clips with a file. UserError if there
        are none."""
        if not source.is_dir():
            raise UserError(f"{source}: not a folder; give the folder with train_split.csv")
        folders = DatasetFolders(source)
        clips: dict[str, Clip] = {}
        notes: list[str] = []
        for split in SPLITS:
            table = source / f"{split}_split.csv"
            if split == "test" and not table.exists():
                table = source / "test_data" / table.name
            rows, table_notes = read_split(table, split == "test")
            notes += table_notes
            if split == "test":
                unlisted = folders.ids_in_test_data() - set(rows) - set(clips)
                problems = (UNLISTED,) if rows else ()
                rows |= {name: Clip(name, None, labels=NO_LABELS, problems=problems) for name in sorted(unlisted)}
            for name, clip in rows.items():
                if name in clips:
                    problem = f"is in {split}_split.csv as well; that row is left out"
                    clips[name] = replace(clips[name], problems=(*clips[name].problems, problem))
                else:
                    clips[name] = self._add_files(replace(clip, split=split), folders)
        if not clips and (names := folders.media_ids()):  # such as test_data/, given alone
            notes = [f"no table: the {counted(len(names), 'clip')} of raw/ and audio/, without labels and splits"]
            clips = {name: self._add_files(Clip(name, None, labels=NO_LABELS), folders) for name in names}
        if not clips:
            raise UserError(f"{source}: no clips; {'; '.join(notes)}")
        ordered = [clips[name] for name in sorted(clips)]
        ordered = [
            replace(clip, groups={"seed": seed}) for clip, seed in zip(ordered, seed_names(ordered), strict=True)
        ]
        left_out = [LeftOut(note.removesuffix(f": {NO_CLIP}"), "", NO_CLIP) for note in notes if note.endswith(NO_CLIP)]
        notes += _notes(ordered, folders)
        return ClipSource(ordered, EMI, ("seed",), notes, label_ranges={}, left_out=left_out)

    def _add_files(self, clip: Clip, folders: "DatasetFolders") -> Clip:
        raw, sound, text = (folders.find(name, clip) for name in ("raw", "audio", "text"))
        crops = None
        if self.crops == "precomputed":
            crops = folders.find("face_images", clip) or folders.root / "face_images" / clip.id
        return replace(
            clip,
            media=raw or folders.root / "raw" / f"{clip.id}.mp4",  # preparing reports that it is missing
            audio=sound if self.audio == "precomputed" or raw is None else None,
            crops=crops,
            transcript=read_transcript(text) if text else None,
        )


class DatasetFolders:
    """The contents of the folders, each listed once: clip ids to paths."""

    def __init__(self, root: Path):
        self.root = root
        self.paths = {
            (in_test_data, name): _list(root / ("test_data" if in_test_data else ".") / name, name)
            for in_test_data in (False, True)
            for name in FOLDERS
        }

    def find(self, name: str, clip: Clip) -> Path | None:
        """The clip's file or folder in folder `name`; for the test split first in test_data/."""
        test_path = self.paths[True, name].get(clip.id) if clip.split == "test" else None
        return test_path or self.paths[False, name].get(clip.id)

    def ids_in_test_data(self) -> set[str]:
        """Clips with a file in test_data/, even if no table lists them."""
        return {identifier for name in FOLDERS for identifier in self.paths[True, name]}

    def media_ids(self) -> list[str]:
        """Clips with a video or a sound file, sorted."""
        return sorted(self.ids_in("raw") | self.ids_in("audio"))

    def ids_in(self, name: str) -> set[str]:
        return {*self.paths[False, name], *self.paths[True, name]}

    def exists(self, name: str) -> bool:
        return any((self.root / part / name).is_dir() for part in (".", "test_data"))


def _list(folder: Path, name: str) -> dict[str, Path]:
    """{id: path}: in face_images, folders with pictures; elsewhere, files of the right kind."""
    suffixes = {"raw": MEDIA_SUFFIXES, "audio": MEDIA_SUFFIXES, "text": (".txt",)}.get(name, (".pkl",))
    paths: dict[str, Path] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return paths
    for entry in entries:
        path = Path(entry.path)
        if name == "face_images":
            valid = entry.is_dir() and any(inner.name.lower().endswith((".jpg", ".png")) for inner in os.scandir(path))
        else:
            valid = path.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
        identifier = clip_id(entry.name if name == "face_images" else path.stem) if valid else None
        if identifier:
            paths.setdefault(identifier, path)
    return paths


def _notes(clips: list[Clip], folders: DatasetFolders) -> list[str]:
    by_split = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    notes = [_completeness(by_split, folders)]
    listed = {clip.id for clip in clips}
    for name in FOLDERS:
        unlisted = sorted(folders.ids_in(name) - listed)
        if unlisted:
            notes.append(f"{len(unlisted)} in {name}/ are in no table and left out: {first_few(unlisted)}")
    zero_rows = {split: count_zero_rows(members) for split, members in by_split.items()}
    if any(zero_rows.values()):
        shares = ", ".join(f"{n} of {len(by_split[s])} in {s}" for s, n in zero_rows.items() if n)
        notes.append(f"rows of only zeros: {shares}; they are kept")
    unlabeled = count_unlabeled([clip for clip in clips if clip.split != "test"])
    if unlabeled:
        notes.append(f"{counted(unlabeled, 'clip')} of train and valid without labels")
    notes.append(_seed_summary(clips))
    problems = [f"{clip.id} {problem}" for clip in clips for problem in clip.problems]
    if problems:
        listed_problems = first_few(problems, separator="; ")
        notes.append(
            f"{counted(len(problems), 'row', 'has', 'have')} something wrong (all in verdicts.csv): {listed_problems}"
        )
    return notes


def _completeness(by_split: Mapping[str, list[Clip]], folders: DatasetFolders) -> str:
    """A table: the clips of each split next to the distributed number, and how many each folder lacks."""
    lines = [f"{'':<12}" + "".join(f"{split:>16}" for split in SPLITS)]
    numbers = [f"{len(clips)} of {DISTRIBUTED[split]}" for split, clips in by_split.items()]
    lines.append(f"{'clips':<12}" + "".join(f"{number:>16}" for number in numbers))
    for name in FOLDERS:
        cells = []
        for clips in by_split.values():
            absent = sum(folders.find(name, clip) is None for clip in clips)
            state = f"{absent} absent" if absent else "complete"
            cells.append("-" if not clips else state if folders.exists(name) else "no folder")
        lines.append(f"{name:<12}" + "".join(f"{cell:>16}" for cell in cells))
    return "files present, of Hume-Vidmimic2 as distributed\n" + "\n".join(f"  {line}" for line in lines)


def _seed_summary(clips: list[Clip]) -> str:
    splits: dict[str, list[str]] = {}
    for clip in clips:
        if clip.groups["seed"]:
            splits.setdefault(clip.groups["seed"], []).append(clip.split)
    shared = [members for members in splits.values() if len(members) > 1]
    across = sum(len(set(members)) > 1 for members in shared)
    return (
        f"seed videos: {sum(map(len, shared))} clips share {len(shared)} of them by their labels or words, "
        f"{across} across splits (group 'seed')"
    )
