"""The blocks of a section. Texts are plain: the page escapes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure


@dataclass(frozen=True)
class Table:
    """Rows of texts under a header; the first column names its row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    """Columns of numbers, which are right-aligned."""


@dataclass(frozen=True)
class Figure:
    """A drawing of `figures.new_figure`. `write_report` embeds it and writes it as SVG and PNG."""

    name: str
    """Name of its files: lower-case letters, digits and hyphens; unique in a report."""
    alt: str
    """What it shows, for people who cannot see it."""
    drawing: "MatplotlibFigure"
    caption: str = ""


@dataclass(frozen=True)
class Grid:
    """Small figures side by side, as many as fit on the page."""

    figures: Sequence[Figure]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of pixels."""

    name: str
    """As for `Figure`."""
    alt: str
    data: bytes
    """Content of a JPEG or PNG file."""
    caption: str = ""
    kind: Literal["jpeg", "png"] = "jpeg"


@dataclass(frozen=True)
class Fact:
    """A number that stands out."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Lines:
    """A list of texts, each after a label. `Commands` are in backquotes."""

    lines: Sequence[Fact]


@dataclass(frozen=True)
class Beside:
    """A figure and a table side by side if the page has room."""

    left: "Block"
    right: "Block"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Verbatim lines: commands, configuration."""

    text: str


@dataclass(frozen=True)
class Group:
    """Blocks under their own heading; folded groups open on a click."""

    title: str
    blocks: "Sequence[Block]"
    folded: bool = False


Block = Table | Figure | Grid | Picture | Facts | Lines | Beside | Text | Code | Group


@dataclass
class Section:
    """A part of the report under a heading."""

    title: str
    lead: str = ""
    """One or two sentences: what the pictures show and what to conclude."""
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the reader should know about it, one line each."""
    missing: list[str] = field(default_factory=list)
    """What could not be shown and how to get it, one line each; the page lists the lines of all sections at its end."""


class NotFound(Exception):
    """A section lacks something that it needs. The report shows the text of this error instead."""


SectionMaker = Callable[..., Section | None]
"""Takes the `Inputs` of the report; returns None for a section that does not belong in it. `NotFound` and `UserError`
become a line of the report."""
