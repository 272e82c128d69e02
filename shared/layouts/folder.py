"""Layout "folder": every media file under a folder is a clip; its transcript is `<stem>.txt` next to it. No labels."""

from dataclasses import dataclass
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource, sidecar_transcript
from shared.dataset.media_files import files_under, first_unique_names, is_media
from shared.layouts.folder_tables import is_table_file
from shared.options.ranges import CheckedOptions
from shared.text import counted, first_few


@dataclass
class Folder(CheckedOptions):
    """An id is the path inside the folder, without its extension if it stays unique."""

    def read(self, source: Path) -> ClipSource:
        """All media files under `source`, except hidden ones, or the single file `source`. A broken link gives a clip
        that fails in preparation."""
        if source.is_file():
            return ClipSource([Clip(id=source.stem, media=source, transcript=sidecar_transcript(source))])
        files = files_under(source)
        media = [path for path in files if is_media(path)]
        transcripts = {path.with_suffix(".txt") for path in media}
        others = [path for path in files if not is_media(path) and path not in transcripts]
        stems = [path.with_suffix("").as_posix() for path in media]
        ids = first_unique_names(stems, [path.as_posix() for path in media])
        clips = [
            Clip(id=name, media=source / path, transcript=sidecar_transcript(source / path))
            for name, path in zip(ids, media, strict=True)
        ]
        notes = [f"{counted(len(others), 'file')} of other kinds left out, such as {others[0]}"] if others else []
        if bare := [path for path in others if not path.suffix and (source / path).is_file()]:
            notes.append(f"{len(bare)} of them have no extension, such as {bare[0]}; if it is a recording, add one")
        if tables := [path.as_posix() for path in others if is_table_file(path)]:
            notes.append(f"tables are not read with layout folder: {first_few(tables)}")
        return ClipSource(clips, notes=notes)
