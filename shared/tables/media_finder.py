"""Finds the media files named in a table, tolerating different spellings."""

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from shared.dataset.media_files import AUDIO_SUFFIXES, IMAGE_SUFFIXES, MEDIA_SUFFIXES, media_files
from shared.text import counted, first_few

HINTS = 5
"""Missing files to look up similar names for: if more are missing, the first ones show why."""
MAX_NAMES = 20_000
"""Most names to compare with when looking for a similar one."""
_NUMBER = re.compile(r"0*(\d+?)(\.0*)?")


class FoundMedia(NamedTuple):
    """The result of looking up a file name from a table."""

    path: Path | None
    """The file; if none matches, the path as named, or None for an id."""
    problem: str = ""
    """Why no file was chosen, if known."""
    by_number: bool = False
    """Whether the name is the file's number in another spelling: 7 or 7.0 for 00007.mp4."""


class MediaFinder:
    """Finds media files under a folder. Each folder is listed only once."""

    def __init__(self, base: Path, hints: int = HINTS):
        """hints: missing files to look up similar names for."""
        self.base = base
        self._names: dict[Path, dict[str, list[str]]] = {}
        self._by_tail: dict[str, list[Path]] | None = None
        self._by_folded_tail: dict[str, list[Path]] = {}
        self._hints = hints
        self._renamed: dict[str, str] = {}

    def find(self, name: str) -> FoundMedia:
        """The file `name`; if it does not exist, the only file with a name that differs in a missing media extension,
        then in capitals, spaces and Unicode forms, then in how its number is written, then in its extension. None for
        an empty name."""
        if not name:
            return FoundMedia(None)
        if re.match(r"[a-z][a-z0-9+]+://", name, re.IGNORECASE):
            scheme, _, rest = name.partition("://")
            if scheme.lower() != "file":
                return FoundMedia(self.base / name, f"{name}: an address, not a file; download it")
            name = unquote(rest)
        path = self.base / name.replace("\\", "/")
        folder = self._folder(path.parent)
        names = self._names_in(folder)
        if path.name in names.get(fold(path.name), ()):
            return self._found(name, path, folder / path.name)
        for suffix in MEDIA_SUFFIXES:
            if path.name + suffix in names.get(fold(path.name + suffix), ()):
                return self._found(name, path.with_name(path.name + suffix), folder / (path.name + suffix))
        several, by_number = self._similar(path.name, names)
        if len(several) == 1:
            found = self._found(name, path, folder / several[0])
            return found._replace(by_number=by_number)
        if several:
            return FoundMedia(
                path, f"{name!r} may be {first_few(sorted(several))}; none is used: write it like the file"
            )
        return FoundMedia(path, self._hint(name, folder, names))

    def find_by_id(self, name: str) -> FoundMedia:
        """The media file with the relative path `name`, with or without its extension, or a path that ends with it;
        compared as in `find`. Among files that differ only in their extension, the first extension in MEDIA_SUFFIXES
        wins. A problem if several files match."""
        tails = self._tails()
        key, by_number = name.replace("\\", "/").removeprefix("./"), False
        matches = tails.get(key) or self._by_folded_tail.get(fold(key), [])
        if not matches and (number := _number(key)) is not None:
            matches, by_number = self._by_folded_tail.get(f"number {number}", []), True
        is_other = key not in tails
        # A file directly in the folder has no longer name to distinguish it from files in subfolders.
        matches = [path for path in matches if key in (path.as_posix(), path.with_suffix("").as_posix())] or matches
        matches = sorted(matches, key=lambda path: MEDIA_SUFFIXES.index(path.suffix.lower()))
        files = {str(path.with_suffix("")): path for path in reversed(matches)}
        if len(files) > 1:
            files = {os.path.realpath(self.base / path): path for path in files.values()}  # links to one file
        several = sorted(path.as_posix() for path in files.values())
        if len(several) > 1:
            return FoundMedia(
                None,
                f"{name!r} may be {first_few(several)}; none is used: name it in a path column, or by "
                f"a longer id as {Path(several[0]).with_suffix('').as_posix()}",
            )
        if not several:
            return FoundMedia(None, self._hint(name, self.base, {}))
        if is_other:
            self._renamed[name] = several[0]
        return FoundMedia(self.base / several[0], by_number=by_number)

    def notes(self) -> list[str]:
        """Which names were found in another spelling."""
        shown = [f"{name!r} is {file}" for name, file in self._renamed.items()]
        return (
            [f"{counted(len(shown), 'file')} named differently than in the table: {first_few(shown)}"] if shown else []
        )

    def _found(self, name: str, named: Path, file: Path) -> FoundMedia:
        if named != file:
            self._renamed[name] = os.path.relpath(file, self.base)
        return FoundMedia(file)

    def _folder(self, folder: Path) -> Path:
        """The existing folder; if it does not exist, the only one with a name that differs in capitals, spaces and
        Unicode forms."""
        if folder == folder.parent or os.path.isdir(folder):
            return folder
        parent = self._folder(folder.parent)
        same = self._names_in(parent).get(fold(folder.name), [])
        return parent / same[0] if len(same) == 1 else parent / folder.name

    def _similar(self, name: str, names: dict[str, list[str]]) -> tuple[list[str], bool]:
        """Names of files that differ from `name` in the first of these: case and spaces, with a missing extension; the
        spelling of a number; another extension of the same kind. Also whether it is the number."""
        if same := names.get(fold(name)):
            return same, False
        for suffix in MEDIA_SUFFIXES:
            if same := names.get(fold(name + suffix)):
                return same, False
        media = [other for several in names.values() for other in several if _kind(other)]
        stem = PurePosixPath(name).stem if _kind(name) else name
        if (number := _number(stem)) is not None:
            same = [o for o in media if _number(PurePosixPath(o).stem) == number and _kind(name) in ("", _kind(o))]
            if same:
                return _first_suffix(same), True
        same = [o for o in media if _kind(o) == _kind(name) and fold(PurePosixPath(o).stem) == fold(stem)]
        return _first_suffix(same), False

    def _hint(self, name: str, folder: Path, names: dict[str, list[str]]) -> str:
        """A hint at the file with the most similar name; "" if there is none."""
        if not self._hints:
            return ""
        self._hints -= 1
        last = PurePosixPath(name.replace("\\", "/")).name
        elsewhere = self._tails().get(last) or self._by_folded_tail.get(fold(last), [])
        if elsewhere:
            return f"no file {name}; did you mean {elsewhere[0].as_posix()}?"
        known = [o for several in names.values() for o in several] or [path.name for path in media_files(self.base)]
        stem = fold(PurePosixPath(last).stem)
        close = [o for o in known if _kind(o) and fold(PurePosixPath(o).stem) == stem]
        close = close or difflib.get_close_matches(last, known[:MAX_NAMES], n=1)
        return f"no file {name}; did you mean {close[0]}?" if close else ""

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        """{folded name: names} of a folder, without hidden ones."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            with contextlib.suppress(OSError, ValueError):  # ValueError: no folder can have this name
                for name in sorted(os.listdir(folder)):
                    names.setdefault(fold(name), []).append(name)
            self._names[folder] = names
        return self._names[folder]

    def _tails(self) -> dict[str, list[Path]]:
        """{end of a path, with or without extension: files}."""
        if self._by_tail is None:
            self._by_tail = {}
            for path in media_files(self.base):
                for whole in {path, path.with_suffix("")}:
                    for depth in range(len(whole.parts)):
                        tail = "/".join(whole.parts[depth:])
                        self._by_tail.setdefault(tail, []).append(path)
                        self._by_folded_tail.setdefault(fold(tail), []).append(path)
                if (number := _number(path.stem)) is not None:
                    self._by_folded_tail.setdefault(f"number {number}", []).append(path)
        return self._by_tail


def fold(name: str) -> str:
    """A name in lower case, in one Unicode form, with single spaces between words and none next to dots."""
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return re.sub(r"\s*([./])\s*", r"\1", " ".join(name.split()))


def _number(stem: str) -> int | None:
    """The number in a name such as 00007, 7 or 7.0."""
    match = _NUMBER.fullmatch(stem) if stem.isascii() else None
    return int(match[1]) if match else None


def _kind(name: str) -> str:
    """video, audio or image, by the extension; "" for any other."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in MEDIA_SUFFIXES:
        return "image" if suffix in IMAGE_SUFFIXES else ""
    return "audio" if suffix in AUDIO_SUFFIXES else "video"


def _first_suffix(names: Iterable[str]) -> list[str]:
    """Among names that differ only in their extension, the one with the first extension in MEDIA_SUFFIXES."""
    order = [*MEDIA_SUFFIXES, *IMAGE_SUFFIXES]
    ordered = sorted(names, key=lambda name: order.index(PurePosixPath(name).suffix.lower()), reverse=True)
    return list({PurePosixPath(name).stem: name for name in ordered}.values())
