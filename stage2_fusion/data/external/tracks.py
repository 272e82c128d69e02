"""What a format returns: the rows of one clip, their times, and which rows are usable."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.registry import nearest
from shared.tables.columns import normalize_name
from stage2_fusion.data.external.matching import ClipIndex
from stage2_fusion.data.external.sniff import Sniffed

ANY = MODALITIES
"""For a format that may hold features of any modality."""
KEYS = {"vision": ("vision", "visual", "video"), "audio": ("audio", "acoustic"), "text": ("text", "language")}
"""Names of the array or file of a modality, if it lies beside other modalities."""


@dataclass(eq=False)
class Track:
    """The rows of one clip."""

    names: list[str]
    """What the clip may be called, the most certain name first: parts of paths, with / between folders."""
    where: str
    """The file and the part of it, for messages."""
    values: np.ndarray
    """float (T, C), NaN = missing."""
    columns: list[str]
    """C names; [] for channels without names."""
    times: np.ndarray | None
    """(T,) seconds from the beginning of the clip, NaN = not known; None: the rows are spread over the clip."""
    usable: np.ndarray
    """bool (T,), False where the tool says that it found nothing."""
    confidence: np.ndarray | None = None
    """(T,) in [0, 1], how sure the tool is; NaN = not known."""
    unusable: str = ""
    """Why rows are not usable."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about these rows."""
    problem: str = ""
    """Why they cannot be used; "" if they can."""


EVERY = ("*",)
"""All columns, for a format without columns of its own."""


@dataclass(frozen=True)
class Wanted:
    """What to read."""

    modality: str
    patterns: Sequence[str] = ()
    """Names of columns, or patterns with * and ?; () leaves the choice to the format."""
    labels: Collection[str] = ()
    """Names of the labels of the clips; such a column of the user's own table is not a feature."""
    ids: Sequence[str] = ()
    """Ids of the clips, which tell a clip named "features" from an array of features."""

    def columns(self, names: Iterable[str], own: Sequence[str], left_out: Sequence[str], where: str) -> list[str]:
        """The features among the numeric columns `names`: by default, columns that match a pattern of `own` and none of
        `left_out`. A column with the name of a label is not a feature, unless the tool itself has a column of that
        name. UserError when a label is requested, or a requested pattern matches no column."""
        names = list(names)
        labels = [name for name in names if self.is_label(name) and (own == EVERY or not _matches(name, own))]
        if not self.patterns:
            chosen = [name for name in names if _matches(name, own) and not _matches(name, left_out)]
            return [name for name in chosen if name not in labels]
        for pattern in self.patterns:
            if not any(_matches(name, [pattern]) for name in names):
                raise UserError(f"{where}: no column {pattern!r}: {nearest(pattern, names)}")
        exact = {*self.patterns} & {*names}  # mfcc_sma[1] as a pattern would match mfcc_sma1
        chosen = [name for name in names if name in exact or _matches(name, [*{*self.patterns} - exact])]
        if leak := next((name for name in chosen if name in labels), None):
            raise UserError(f"{where}: column {leak!r} is a label of the clips; rename it if it is a feature")
        return chosen

    def refuse_columns(self, where: object) -> None:
        """UserError when columns are requested from a format without channel names."""
        if self.patterns:
            raise UserError(f"{where}: its channels have no names; leave out external_columns")

    @cached_property
    def _index(self) -> ClipIndex:
        return ClipIndex(self.ids)

    def name_clips(self, keys: Collection[object]) -> bool:
        """Whether more than half of the keys of a file name clips; even x and features may be clips."""
        places = [self._index.find(str(key)) for key in keys]
        return 2 * sum(place is not None and len(place.rows) == 1 for place in places) > len(keys)

    def is_label(self, name: str) -> bool:
        """Whether a column has the name of a label of the clips."""
        return normalize_name(name) in {normalize_name(label) for label in self.labels}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return name in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


class ExternalFormat(Protocol):
    """The format in which a tool writes features. To add one: a class with these members, and a line in formats.py."""

    title: str
    """The usual name of the tool."""
    modalities: Sequence[str]
    """The modalities that its features describe."""

    def recognizes(self, file: Sniffed) -> bool:
        """Whether a file is of this format."""
        ...

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        """The clips of a file. name: the file's path in the given folder, without its suffix; "" if the file itself was
        given. UserError when the file cannot be read."""
        ...

    def how(self, modality: str) -> str:
        """The command that computes such features; "" if unknown."""
        ...
