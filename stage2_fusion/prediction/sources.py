"""Find the clips in files, folders and tables given by the user."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.dataset.clip import Clip, ClipSource, sidecar_transcript
from shared.dataset.splits import assign_splits
from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source
from shared.layouts.used import UsedLayout
from shared.text import counted

ABSENT = ((), ("labels", "groups"), ("labels", "groups", "split"), ("labels", "groups", "split", "id"))
"""Options for columns that the clips to predict may lack, unlike the training clips; the first that fit are left
out."""
PLAIN = ("csv", "folder", "hf")
"""Layouts that find the same pictures and sound as reading plain media."""


@dataclass(frozen=True)
class Reading:
    """How sources are read."""

    layout: str | None = None
    """Named by the user."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    """Only the clips of this split."""
    trained_with: UsedLayout | None = None
    """How the training clips of the model were read; folders and tables are read in the same way if possible."""
    model: Path | None = None
    """The folder that names `trained_with`."""


@dataclass
class SourceClips:
    """The clips found in the sources."""

    clips: list[Clip]
    """Without labels, since prediction does not read them. Ids are unique."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason) for sources without a clip."""
    notes: list[str] = field(default_factory=list)
    """How the sources were read."""


def read_clips(sources: Sequence[str | Path], reading: Reading | None = None) -> SourceClips:
    """Clips of media files, folders and tables. A clip that occurs twice is predicted once; clips of the same name in
    different folders are named by their paths. UserError without clips."""
    reading = reading or Reading()
    clips: dict[str, Clip] = {}
    found = SourceClips([])
    alone = [source for source in map(Path, sources) if _is_single_file(source, reading)]
    for source in map(Path, sources):
        try:
            source_clips = [media_clip(source)] if source in alone else _read(source, reading, found.notes)
        except UserError as error:
            found.failures.append((str(source), str(error)))
            continue
        for clip in source_clips:
            known = clips.get(clip.id)
            if known is None:
                clips[clip.id] = clip
            elif known.media != clip.media or (clip.media is None and known.transcript != clip.transcript):
                name = str(clip.media or source / clip.id)
                clips[name] = replace(clip, id=name)
    if not clips:
        raise UserError(f"no clips to predict: {found.failures[0][1] if found.failures else 'none were given'}")
    if alone and reading.trained_with and (note := _differs(reading.trained_with)):
        found.notes.append(f"{counted(len(alone), 'file')} read as media alone{note}")
    found.clips = [replace(clip, labels=()) for clip in clips.values()]
    return found


def media_clip(path: Path) -> Clip:
    """A media file, with the transcript beside it (<stem>.txt) if there is one."""
    return Clip(path.name, path, sidecar_transcript(path))


def source_notes(read: ClipSource, source: Path) -> list[str]:
    """Lines about how a source was read, without the tables that `emit check` prints."""
    return [f"{source}: {note}" for note in read.notes if "\n" not in note]


def _is_single_file(source: Path, reading: Reading) -> bool:
    """Whether a source is a single media file. Leaves any UserError to `_read`."""
    try:
        return reading.layout is None and source.is_file() and guess_layout(source) == "folder"
    except UserError:
        return False


def _read(source: Path, reading: Reading, notes: list[str]) -> list[Clip]:
    """Clips of a folder or table, of the requested split; how it was read is added to `notes`."""
    read, layout = read_folder_or_table(source, reading)
    read = select_split(read, layout, reading, source)
    notes += source_notes(read, source)
    if layout != "folder":
        return read.clips
    # Clips of a folder are named after their files, like single files; a table has its own names.
    paths = [(clip, clip.media) for clip in read.clips]
    return [replace(clip, id=str(path.relative_to(source))) for clip, path in paths if isinstance(path, Path)]


def read_folder_or_table(source: Path, reading: Reading) -> tuple[ClipSource, str]:
    """All clips with their labels, and the layout: as the options say; otherwise that of the model's training clips if
    it fits; otherwise guessed from the files. A folder with an uncertain table is read as plain media, since prediction
    needs no labels."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    trained, why_not = reading.trained_with, ""
    guessed, unsure = (reading.layout, "") if reading.layout else _guess(source)
    if reading.layout or reading.layout_options:
        named = trained.name if guessed == "folder" and not reading.layout and trained else guessed
        return read_source(source, named, reading.layout_options), named
    if trained is not None and guessed in ("folder", trained.name) and trained.name != "folder":
        try:
            read = _read_as_trained(source, trained, reading.model)
        except UserError as error:
            why_not = f" ({error})" if guessed == trained.name else ""
        else:
            note = f"read with layout {trained}, as the training clips of the model"
            return replace(read, notes=[note, *read.notes]), trained.name
    read = read_source(source, guessed)
    differs = _differs(trained) if trained is not None and guessed == "folder" else ""
    how = [f"{unsure}{'; ' if unsure else ''}read as media alone{differs}"] if unsure or differs else []
    if why_not:
        how = [f"not read with layout {trained}, as the training clips of the model{why_not}"]
    return replace(read, notes=[*how, *read.notes]), guessed


def _read_as_trained(source: Path, trained: UsedLayout, model: Path | None) -> ClipSource:
    """Read with the layout of the training clips, leaving out options in ABSENT as far as needed. The UserError is the
    one with all options."""
    errors: list[UserError] = []
    for absent in ABSENT:
        options = {name: value for name, value in trained.options.items() if name not in absent}
        try:
            return replace(trained, options=options).read(source, model)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _guess(source: Path) -> tuple[str, str]:
    """The layout guessed from the files of a source, and why it is not certain."""
    try:
        return guess_layout(source), ""
    except UserError as error:
        if not source.is_dir():
            raise
        return "folder", str(error)


def _differs(trained: UsedLayout) -> str:
    """A note for clips that are read as plain media; "" if the training clips were too."""
    if trained.name in PLAIN:
        return ""
    return f", unlike the training clips (layout {trained}): give the folder of the dataset to read them the same way"


def select_split(read: ClipSource, layout: str, reading: Reading, source: Path) -> ClipSource:
    """The clips of the requested split; if there are no splits, they are drawn as in `emit prepare`. UserError when no
    clip is in the split."""
    split = reading.split
    if not split:
        return read
    if layout == "folder":
        raise UserError(f"{source}: plain media have no splits; leave out --split, or give a table with a split column")
    group = reading.trained_with.split_by if reading.trained_with else ""
    read = assign_splits(read, group if group in read.group_names else None)
    chosen = [clip for clip in read.clips if clip.split == split]
    if not chosen:
        names = ", ".join(sorted({clip.split for clip in read.clips} - {""})) or "none"
        raise UserError(f"{source}: no clips of split {split!r}; splits here: {names}")
    return replace(read, clips=chosen)
