"""Match the features of another tool to clips: names of files, paths and ids against the ids of the clips."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from shared.dataset.media_files import IMAGE_SUFFIXES, MEDIA_SUFFIXES
from shared.tables.media_finder import fold
from shared.text import first_few

NUMBER = re.compile(r"0*(\d+?)(\.0*)?")
DIGITS = re.compile(r"\d+")
PADDING = re.compile(r"(?<!\d)(?<!\d\.)0+(?=\d)", re.ASCII)
"""Leading zeros of a number, but not zeros after a decimal point."""
JOINED = re.compile(r"\$_\$|[/ -]")
"""Separators between the parts of a name, such as a video and the number of its segment; other names have _."""
PART = re.compile(r"(?<=.)[/_. -][^/_. -]*")
"""A part of a name after the first one, with the separator before it."""


@dataclass
class Matches:
    """Which track belongs to which clip."""

    track_of: dict[int, int] = field(default_factory=dict)
    """Row of a clip to the number of its track."""
    unmatched: list[tuple[int, str]] = field(default_factory=list)
    """Numbers of tracks without a clip, and why."""
    respelled: list[int] = field(default_factory=list)
    """Rows of clips with a differently named track: other zeros or separators, or an ending that most tracks have."""


def match(names: Sequence[Sequence[str]], ids: Sequence[str]) -> Matches:
    """names: for each track, the names that its clip may have, the most certain first; ids: of the clips.

    A name matches an id exactly; or without the suffix of a media file, capitals and Unicode form; or if one is the end
    of the other's path. The longest common part decides. Paths that share only their end (features/x, clips/x) match if
    the end identifies a clip by itself: it is not a number, no two clips have it, and the folder before it is not a
    folder of the clips, apart from its number (s1, s2).

    Failing that, zeros (7, 00007; clip_1, clip_01) and separators (video/1, video_1, video$_$1) may differ. As a last
    resort, an ending that most tracks have is removed (clip01/openface, clip01_openface). Tracks that fit several
    clips, and clips that several tracks fit equally well, stay unmatched.
    """
    index = ClipIndex(ids)
    candidates: dict[int, list[tuple[int, int]]] = {}  # row: (how certain, track)
    found = Matches()
    shared = _shared_endings(names)
    for number, several in enumerate(names):
        places = index.find_any(several)
        if not places:
            others = (index.find_any(each) for each in _without(several, shared))
            places = [_Place(place.rows, -1) for place in next(filter(None, others), [])]
        certain = [place for place in places if len(place.rows) == 1]
        if certain:
            best = max(certain, key=lambda place: place.certainty)  # the first of equals
            candidates.setdefault(best.rows[0], []).append((best.certainty, number))
        elif places:
            fitting = first_few([ids[row] for row in places[0].rows])
            found.unmatched.append((number, f"fits several clips ({fitting}); name it by a longer part of the path"))
        else:
            called = " or ".join(name[:80] for name in several[: 1 + (len(several) == 2)])  # the file and its only row
            found.unmatched.append((number, f"no clip is called {called or 'so'}{index.folder_hint(several)}"))
    for row, fitting_tracks in candidates.items():
        most = max(certainty for certainty, _ in fitting_tracks)
        first = [number for certainty, number in fitting_tracks if certainty == most]
        if len(first) == 1:
            found.track_of[row] = first[0]
            found.respelled += [row] if most <= 0 else []
        for certainty, number in fitting_tracks:
            if certainty < most:
                found.unmatched.append((number, f"clip {ids[row]} has features of a closer name"))
            elif len(first) > 1:
                found.unmatched.append((number, f"{len(first)} features fit clip {ids[row]} equally well; leave one"))
    found.unmatched.sort()
    return found


@dataclass
class _Place:
    rows: list[int]
    certainty: int


class _Ends:
    """Clips by name, and by the ends of their names."""

    def __init__(self) -> None:
        self.whole: dict[str, list[int]] = {}
        self.tails: dict[str, list[int]] = {}
        self.folders: set[str] = set()

    def add(self, form: str, row: int) -> None:
        self.folders.update(DIGITS.sub("", folder) for folder in form.split("/")[:-1])
        _add(self.whole, form, row)
        for tail in _tails(form):
            _add(self.tails, tail, row)

    @cached_property
    def shared(self) -> set[int]:
        """Numbers of folders in the ends that several clips share."""
        return {tail.count("/") for tail, rows in self.tails.items() if len(rows) > 1}

    def find(self, forms: Sequence[str]) -> _Place | None:
        for form in forms:
            if rows := self.whole.get(form):
                return _Place(rows, 10**5)
        for form in forms:  # the name is the end of an id
            if rows := self.tails.get(form):
                return _Place(rows, 1 + form.count("/"))
        for form in forms:
            for tail in _tails(form):
                if rows := self.whole.get(tail):  # an id is the end of the name
                    return _Place(rows, 1 + tail.count("/"))
                if (rows := self.tails.get(tail)) and self._names_a_clip(tail, form):
                    return _Place(rows, 1 + tail.count("/"))
        return None

    def _names_a_clip(self, tail: str, form: str) -> bool:
        """Whether the end of a path identifies a clip, although the folders before it differ."""
        folder = form.removesuffix(f"/{tail}").rpartition("/")[2]
        is_number = "/" not in tail and NUMBER.fullmatch(tail) is not None
        return not is_number and tail.count("/") not in self.shared and DIGITS.sub("", folder) not in self.folders


class ClipIndex:
    """The clips by every name that they may have."""

    def __init__(self, ids: Sequence[str]):
        self.exact = {name: row for row, name in enumerate(ids)}
        self.names, self.numbers = _Ends(), _Ends()
        self.joined, self.joined_ends = dict[str, list[int]](), dict[str, list[int]]()
        for row, name in enumerate(ids):
            for form in _forms(name):
                self.names.add(form, row)
                self.numbers.add(_number(form), row)
                _add(self.joined, _joined(form), row)
                for end in (form, *_tails(form)):
                    _add(self.joined_ends, _joined(end), row)

    def find(self, name: str) -> _Place | None:
        if name in self.exact:
            return _Place([self.exact[name]], 10**6)
        forms = [*_forms(name)]
        if place := self.names.find(forms):
            return place
        if place := self.numbers.find([_number(form) for form in forms]):
            return _Place(place.rows, 0)
        ends = (self.joined_ends.get(_joined(form)) for form in forms)  # the name ends an id
        whole = (self.joined.get(_joined(tail)) for form in forms for tail in _tails(form))  # an id ends the name
        return next((_Place(rows, 0) for rows in (*ends, *whole) if rows), None)

    def folder_hint(self, names: Iterable[str]) -> str:
        """What to do about a file in a folder with the name of a clip."""
        folders = (name.rpartition("/")[0] for name in names)
        called = next((folder for folder in folders if folder and self.find(folder) is not None), "")
        return f", though one is called {called}: leave one file in it, named so" if called else ""

    def find_any(self, names: Iterable[str]) -> list[_Place]:
        """The places of the names that have one."""
        return [place for name in names if (place := self.find(name)) is not None]


def _add(index: dict[str, list[int]], key: str, row: int) -> None:
    rows = index.setdefault(key, [])
    if row not in rows:
        rows.append(row)


def _forms(name: str) -> Iterator[str]:
    """The folded name, with / between folders; also without the suffix of a media file."""
    whole = fold(name.strip("'\"").replace("\\", "/").removeprefix("./").removeprefix("/"))
    yield whole
    path = PurePosixPath(whole)
    if path.suffix in (*MEDIA_SUFFIXES, *IMAGE_SUFFIXES) and path.stem:
        yield path.with_suffix("").as_posix()


def _tails(form: str) -> Iterable[str]:
    """The ends of a path at folder boundaries, the longest first, without the path itself."""
    parts = form.split("/")
    return ["/".join(parts[i:]) for i in range(1, len(parts))]


def _number(form: str) -> str:
    """A name without the zeros that spreadsheets and people add to its numbers or take from them."""
    folder, slash, name = form.rpartition("/")
    matched = NUMBER.fullmatch(name) if name.isascii() else None
    return PADDING.sub("", f"{folder}{slash}{matched[1] if matched else name}")


def _joined(form: str) -> str:
    """A name with all parts joined by _ and without leading zeros; the same for video/01 and video$_$1."""
    return PADDING.sub("", JOINED.sub("_", form))


def _endings(name: str) -> list[str]:
    """The ends of a name from each separator on, the shortest first, up to a part without a letter: a number identifies
    the clip."""
    endings, ending = [], ""
    for part in reversed(PART.findall([*_forms(name)][-1])):
        if not any(map(str.isalpha, part)):
            break
        ending = part + ending
        endings.append(ending)
    return endings


def _shared_endings(names: Sequence[Sequence[str]]) -> set[str]:
    """The endings that more than half of the tracks have, and at least two."""
    count = Counter(ending for several in names for ending in {each for name in several for each in _endings(name)})
    return {ending for ending, times in count.items() if 2 * times > max(len(names), 2)}


def _without(several: Sequence[str], shared: set[str]) -> Iterator[list[str]]:
    """The names of a track without the shared endings, the shortest ending first."""
    for ending in sorted({each for name in several for each in _endings(name)} & shared, key=len):
        yield [form.removesuffix(ending) for name in several for form in _forms(name) if form.endswith(ending)]
