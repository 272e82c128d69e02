"""Layout "folder": every media file under a folder is a clip; `<stem>.txt` beside it holds its words. No labels."""

import os
from dataclasses import dataclass
from pathlib import Path

from shared.dataset.clip import MEDIA_SUFFIXES, Clip, Source, sidecar


@dataclass
class Folder:
    """An id is the path inside the folder, without its extension where that leaves it unique."""

    def read(self, source: Path) -> Source:
        """All media files under `source`, hidden ones left out, or the one file `source` itself. A link that leads
        nowhere is a clip: preparing says so."""
        if source.is_file():
            return Source([Clip(id=source.stem, media=source, transcript=sidecar(source))])
        files = files_under(source)
        inside = [path for path in files if is_media(path)]
        words = {path.with_suffix(".txt") for path in inside}
        others = [path for path in files if not is_media(path) and path not in words]
        ids = shortest_ids([path.as_posix() for path in inside], [path.with_suffix("").as_posix() for path in inside])
        clips = [
            Clip(id=name, media=source / path, transcript=sidecar(source / path))
            for name, path in zip(ids, inside, strict=True)
        ]
        notes = [f"{len(others)} files of other kinds left out, such as {others[0]}"] if others else []
        return Source(clips, notes=notes)


def media_files(folder: Path) -> list[Path]:
    """Those of `files_under` that are media by their names."""
    return [path for path in files_under(folder) if is_media(path)]


def is_media(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_SUFFIXES


def files_under(folder: Path) -> list[Path]:
    """Paths inside `folder` of all files under it, and of links that lead nowhere, in order; hidden ones are left out.
    Linked folders are gone into after the others, and each folder once, however many links lead to it."""
    found, seen, starts = [], set(), [os.fspath(folder)]
    for start in starts:
        for inside, folders, names in os.walk(start):
            real = os.path.realpath(inside)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and real not in seen)
            if real in seen:
                continue
            seen.add(real)
            starts += [path for name in folders if os.path.islink(path := os.path.join(inside, name))]
            paths = [os.path.join(inside, name) for name in names if not name.startswith(".")]
            found += [path for path in paths if os.path.isfile(path) or not os.path.exists(path)]
    return sorted(Path(path).relative_to(folder) for path in found)


def shortest_ids(*longest_first: list[str]) -> list[str]:
    """The last of the given lists of names whose names are all different; the first list when none is."""
    for names in reversed(longest_first):
        if len(set(names)) == len(names):
            return names
    return longest_first[0]
