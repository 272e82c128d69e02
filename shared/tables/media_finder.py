"""Finds the media files that a table names."""

import contextlib
import os
from pathlib import Path

from shared.dataset.media_files import MEDIA_SUFFIXES, media_files
from shared.text import first_few


class MediaFinder:
    """Finds media files under a folder. Each folder is listed once, however many files are looked up in it."""

    def __init__(self, base: Path):
        self.base = base
        self._names: dict[Path, set[str]] = {}
        self._by_tail: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """The file `name`; when it does not exist, the first existing one with a media extension added. None for an
        empty name."""
        if not name:
            return None
        path = self.base / name.replace("\\", "/")
        names = self._names_in(path.parent)
        if path.name in names:
            return path
        return next((path.parent / (path.name + s) for s in MEDIA_SUFFIXES if path.name + s in names), path)

    def find_by_id(self, name: str) -> tuple[Path | None, str]:
        """The media file whose relative path is `name`, with or without its extension, or ends with it. Among files
        that differ in their extension only, the one whose extension comes first in MEDIA_SUFFIXES. (None, why) when
        several files fit; (None, "") when none does."""
        matches = self._tails().get(name, [])
        # A file directly in the folder has no longer name that would distinguish it from those in subfolders.
        matches = [path for path in matches if name in (path.as_posix(), path.with_suffix("").as_posix())] or matches
        matches = sorted(matches, key=lambda path: MEDIA_SUFFIXES.index(path.suffix.lower()))
        files = {str(path.with_suffix("")): path for path in reversed(matches)}
        if len(files) > 1:
            files = {os.path.realpath(self.base / path): path for path in files.values()}  # links to one file
        several = sorted(path.as_posix() for path in files.values())
        if len(several) > 1:
            return None, (
                f"{name!r} may be {first_few(several)}; none is taken: name it in a path column, or by "
                f"a longer id as {Path(several[0]).with_suffix('').as_posix()}"
            )
        return next((self.base / path for path in files.values()), None), ""

    def _names_in(self, folder: Path) -> set[str]:
        if folder not in self._names:
            self._names[folder] = set()
            with contextlib.suppress(OSError, ValueError):  # ValueError: no folder can have this name
                self._names[folder].update(os.listdir(folder))
        return self._names[folder]

    def _tails(self) -> dict[str, list[Path]]:
        """{end of a path, with or without extension: files}."""
        if self._by_tail is None:
            self._by_tail = {}
            for path in media_files(self.base):
                for whole in {path, path.with_suffix("")}:
                    for depth in range(len(whole.parts)):
                        self._by_tail.setdefault("/".join(whole.parts[depth:]), []).append(path)
        return self._by_tail
