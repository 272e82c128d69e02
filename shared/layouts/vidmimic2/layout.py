"""Layout "vidmimic2": Hume-Vidmimic2 as it is distributed, and as teams have completed it.

    train_split.csv, valid_split.csv    Filename (five digits), six labels in [0, 1]
    test_split.csv                      made by teams: Filename, and columns of zeros that are no labels
    raw/00000.mp4                       the clips
    audio/00000.mp3                     16 kHz, mono
    face_images/00000/0.jpg, 1.jpg ...  face crops, one a frame; a folder may be empty
    vit/00000.pkl, wav2vec2/00000.pkl   features (shared/layouts/vidmimic2/pickles.py)
    text/00000.txt                      transcripts, made by teams
    test_data/                          the same folders for the test split

Whatever is wrong with a row or a file costs that clip alone, and is named in its verdict.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shared.dataset.clip import EMI, Clip, ClipSource, read_transcript
from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.layouts.vidmimic2.seeds import seed_names, unlabelled, zero_rows
from shared.layouts.vidmimic2.tables import clip_id, read_split

SPLITS = ("train", "valid", "test")
DISTRIBUTED = {"train": 8072, "valid": 4588, "test": 4586}
"""Clips of each split."""
FOLDERS = ("raw", "audio", "face_images", "vit", "wav2vec2", "text")
SHOWN = 3
"""Examples in a note; verdicts.csv has all."""


@dataclass
class Vidmimic2:
    crops: Literal["own", "precomputed"] = "own"
    """Pictures: found in raw/ by this project's face finder, or those of face_images/."""
    audio: Literal["precomputed", "raw"] = "precomputed"
    """Sound: audio/, which is what published figures rest on, or that of raw/. The other is the substitute."""

    def read(self, source: Path) -> ClipSource:
        """The clips of all splits there are, in the order of their ids. UserError when there is no table at all."""
        if not source.is_dir():
            raise UserError(f"{source}: not a folder; name the one that holds train_split.csv")
        folders = Folders(source)
        clips, notes = {}, []
        for split in SPLITS:
            table = source / f"{split}_split.csv"
            if split == "test" and not table.exists():
                table = source / "test_data" / table.name
            rows, found_notes = read_split(table, split == "test")
            notes += found_notes
            if split == "test":
                for identifier in sorted(folders.ids_of_test() - set(rows) - set(clips)):
                    rows[identifier] = Clip(identifier, None, labels=(float("nan"),) * len(EMI))
            for identifier, clip in rows.items():
                if identifier in clips:
                    also = f"is in {split}_split.csv as well; that row is left out"
                    clips[identifier] = replace(clips[identifier], remarks=(*clips[identifier].remarks, also))
                    continue
                clips[identifier] = self._with_files(replace(clip, split=split), folders)
        if not clips:
            raise UserError(f"{source}: no clips; {'; '.join(notes)}")
        found = [clips[identifier] for identifier in sorted(clips)]
        seeds = seed_names(found)
        found = [replace(clip, groups={"seed": seed}) for clip, seed in zip(found, seeds, strict=True)]
        return ClipSource(found, EMI, ("seed",), [*notes, *_notes(found, folders)])

    def _with_files(self, clip: Clip, folders: "Folders") -> Clip:
        raw, sound, text = (folders.find(name, clip) for name in ("raw", "audio", "text"))
        heard = sound if self.audio == "precomputed" or raw is None else None
        media = raw or folders.root / "raw" / f"{clip.id}.mp4"  # preparing says that it is not there
        crops = None
        if self.crops == "precomputed":
            crops = folders.find("face_images", clip) or folders.root / "face_images" / clip.id
        words = read_transcript(text) if text else None
        return replace(clip, media=media, audio=heard, crops=crops, transcript=words)


class Folders:
    """What is in the folders, each listed once: ids of clips to paths."""

    def __init__(self, root: Path):
        self.root = root
        self.found = {
            (test, name): _list(root / ("test_data" if test else ".") / name, name)
            for test in (False, True)
            for name in FOLDERS
        }

    def find(self, name: str, clip: Clip) -> Path | None:
        """The clip's file or folder in folder `name`; of the test split in test_data/ or where the others are."""
        of_test = self.found[True, name].get(clip.id) if clip.split == "test" else None
        return of_test or self.found[False, name].get(clip.id)

    def ids_of_test(self) -> set[str]:
        """Clips that have a file in test_data/, listed in a table or not."""
        return {identifier for name in FOLDERS for identifier in self.found[True, name]}

    def there(self, name: str) -> bool:
        return any((self.root / part / name).is_dir() for part in (".", "test_data"))


def _list(folder: Path, name: str) -> dict[str, Path]:
    """id -> path; of face_images only folders that hold something, of the others files of the right kind."""
    kinds = {"raw": MEDIA_SUFFIXES, "audio": MEDIA_SUFFIXES, "text": (".txt",)}.get(name, (".pkl",))
    found = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return found
    for entry in entries:
        path = Path(entry.path)
        if name == "face_images":
            fits = entry.is_dir() and any(inner.name.lower().endswith((".jpg", ".png")) for inner in os.scandir(path))
        else:
            fits = path.suffix.lower() in kinds and not entry.name.startswith(".") and entry.is_file()
        identifier = clip_id(entry.name if name == "face_images" else path.stem) if fits else None
        if identifier:
            found.setdefault(identifier, path)
    return found


def _notes(clips: list[Clip], folders: Folders) -> list[str]:
    by_split = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    notes = [_counts(by_split, folders)]
    listed = {clip.id for clip in clips}
    for name in FOLDERS:
        beyond = sorted({*folders.found[False, name], *folders.found[True, name]} - listed)
        if beyond:
            notes.append(f"{len(beyond)} in {name}/ are in no table and left out: {_some(beyond)}")
    zero = {split: zero_rows(some) for split, some in by_split.items()}
    if any(zero.values()):
        shares = ", ".join(f"{n} of {len(by_split[s])} in {s}" for s, n in zero.items() if n)
        notes.append(f"rows of zeros alone: {shares}; they are kept")
    without = unlabelled([clip for clip in clips if clip.split != "test"])
    if without:
        notes.append(f"{without} clips of train and valid lack labels")
    notes.append(_seeds(clips))
    odd = [f"{clip.id} {remark}" for clip in clips for remark in clip.remarks]
    if odd:
        notes.append(f"{len(odd)} rows have something wrong (all in verdicts.csv): {_some(odd, '; ')}")
    return notes


def _counts(by_split: dict[str, list[Clip]], folders: Folders) -> str:
    """A table: clips of each split beside those distributed, and what of them is absent in each folder."""
    lines = [f"{'':<12}" + "".join(f"{split:>16}" for split in SPLITS)]
    numbers = [f"{len(some)} of {DISTRIBUTED[split]}" for split, some in by_split.items()]
    lines.append(f"{'clips':<12}" + "".join(f"{number:>16}" for number in numbers))
    for name in FOLDERS:
        absent = [sum(folders.find(name, clip) is None for clip in some) for some in by_split.values()]
        words = [f"{n} absent" if n else "complete" for n in absent]
        if not folders.there(name):
            words = ["no folder"] * len(absent)
        words = [word if some else "-" for word, some in zip(words, by_split.values(), strict=True)]
        lines.append(f"{name:<12}" + "".join(f"{word:>16}" for word in words))
    return "what is there, of Hume-Vidmimic2 as distributed\n" + "\n".join(f"  {line}" for line in lines)


def _seeds(clips: list[Clip]) -> str:
    splits: dict[str, list[str]] = {}
    for clip in clips:
        if clip.groups["seed"]:
            splits.setdefault(clip.groups["seed"], []).append(clip.split)
    several = [some for some in splits.values() if len(some) > 1]
    across = sum(len(set(some)) > 1 for some in several)
    return (
        f"seed videos: {sum(map(len, several))} clips share {len(several)} of them by their labels or words, "
        f"{across} across splits (group 'seed')"
    )


def _some(items: list[str], between: str = ", ") -> str:
    more = len(items) - SHOWN
    return between.join(items[:SHOWN]) + (f"{between}and {more} more" if more > 0 else "")
