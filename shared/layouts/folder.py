"""Layout "folder": every media file under a folder is a clip; `<stem>.txt` beside it holds its words. No labels."""

from dataclasses import dataclass
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource, sidecar_transcript
from shared.dataset.media_files import files_under, is_media, shortest_ids


@dataclass
class Folder:
    """An id is the path inside the folder, without its extension where that leaves it unique."""

    def read(self, source: Path) -> ClipSource:
        """All media files under `source`, hidden ones left out, or the one file `source` itself. A link that leads
        nowhere is a clip: preparing says so."""
        if source.is_file():
            return ClipSource([Clip(id=source.stem, media=source, transcript=sidecar_transcript(source))])
        files = files_under(source)
        inside = [path for path in files if is_media(path)]
        words = {path.with_suffix(".txt") for path in inside}
        others = [path for path in files if not is_media(path) and path not in words]
        ids = shortest_ids([path.as_posix() for path in inside], [path.with_suffix("").as_posix() for path in inside])
        clips = [
            Clip(id=name, media=source / path, transcript=sidecar_transcript(source / path))
            for name, path in zip(ids, inside, strict=True)
        ]
        notes = [f"{len(others)} files of other kinds left out, such as {others[0]}"] if others else []
        return ClipSource(clips, notes=notes)
