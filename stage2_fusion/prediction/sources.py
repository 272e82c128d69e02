"""Which clips a person means by files, folders and tables."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared.dataset.clip import Clip, sidecar_transcript
from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source


def read_clips(sources: Sequence[str | Path]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Clips of media files, folders and tables, and (name, reason) of sources without any. A clip that occurs twice is
    predicted once; clips of the same name in different folders are named by their paths. UserError without clips."""
    clips: dict[str, Clip] = {}
    failures = []
    for source in map(Path, sources):
        try:
            is_media = source.is_file() and guess_layout(source) == "folder"
            source_clips = [media_clip(source)] if is_media else _read_folder_or_table(source)
        except UserError as error:
            failures.append((str(source), str(error)))
            continue
        for clip in source_clips:
            known = clips.get(clip.id)
            if known is None:
                clips[clip.id] = clip
            elif known.media != clip.media:
                name = str(clip.media)
                clips[name] = replace(clip, id=name)
    if not clips:
        raise UserError(f"no clips to predict: {failures[0][1] if failures else 'none were given'}")
    return [replace(clip, labels=()) for clip in clips.values()], failures  # prediction does not read labels


def media_clip(path: Path) -> Clip:
    """A media file, with the transcript beside it (<stem>.txt) if there is one."""
    return Clip(path.name, path, sidecar_transcript(path))


def _layout(source: Path) -> str | None:
    """The layout; None for what does not exist. A folder whose table is not certain is read as media alone: predicting
    needs no labels."""
    if not source.is_dir():
        return guess_layout(source) if source.exists() else None
    try:
        return guess_layout(source)
    except UserError as error:
        print(f"{error}; read as media alone", file=sys.stderr)
        return "folder"


def _read_folder_or_table(source: Path) -> list[Clip]:
    """Clips of a folder or table; notes on how it was read go to stderr. Clips of a folder are named by their files,
    like files given one by one; a table has names of its own."""
    layout = _layout(source)
    read = read_source(source, layout)
    for note in read.notes:
        print(f"{source}: {note}", file=sys.stderr)
    if layout != "folder":
        return read.clips
    paths = [(clip, clip.media) for clip in read.clips]
    return [replace(clip, id=str(path.relative_to(source))) for clip, path in paths if isinstance(path, Path)]
