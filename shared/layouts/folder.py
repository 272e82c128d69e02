"""Layout "folder": every media file under a folder is a clip; `<stem>.txt` beside it holds its words. No labels."""

from dataclasses import dataclass
from pathlib import Path

from shared.clips import MEDIA_SUFFIXES, Clip, Source, sidecar


@dataclass
class Folder:
    """An id is the path inside the folder, without its extension where that leaves it unique."""

    def read(self, source: Path) -> Source:
        """All media files under `source`, hidden ones left out, or the one file `source` itself."""
        if source.is_file():
            return Source([Clip(id=source.stem, media=source, transcript=sidecar(source))])
        inside = media_files(source)
        ids = shortest_ids([path.as_posix() for path in inside], [path.with_suffix("").as_posix() for path in inside])
        clips = [
            Clip(id=name, media=source / path, transcript=sidecar(source / path))
            for name, path in zip(ids, inside, strict=True)
        ]
        return Source(clips)


def media_files(folder: Path) -> list[Path]:
    """Paths inside `folder` of all media files under it, in order; hidden ones are left out."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()]
    inside = sorted(path.relative_to(folder) for path in found)
    return [path for path in inside if not any(part.startswith(".") for part in path.parts)]


def shortest_ids(*longest_first: list[str]) -> list[str]:
    """The last of the given lists of names whose names are all different; the first list when none is."""
    for names in reversed(longest_first):
        if len(set(names)) == len(names):
            return names
    return longest_first[0]
