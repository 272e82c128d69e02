"""The columns of a table of pairs: media, texts and labels."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shared.dataset.clip import EMI
from shared.dataset.label_scale import LabelOptions, LabelReader, LabelScale
from shared.dataset.media_files import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from shared.errors import UserError
from shared.options.ranges import FrameRate
from shared.tables.cells import cell_texts, media_content, parse_label, parse_number
from shared.tables.columns import ColumnOptions, Header, LabelGuess, guess_labels, refuse_wrong_labels
from stage1_align.data.captions import TextAnnotations

MEDIA = ("image", "video", "audio")


@dataclass
class PairColumnOptions(ColumnOptions, LabelOptions):
    """Columns by name. Others are recognized by their usual names (shared/tables/columns.py)."""

    image: str = ""
    """Pictures."""
    video: str = ""
    """Files with pictures, and with sound if there is no audio column."""
    media: str = ""
    """Files of any kind, if there is no image, video or audio column."""
    caption: str | list[str] = ""
    """Descriptions: a text, or a list of several. Several columns are several captions of one item."""
    labels: list[str] = field(default_factory=list)
    """Intensities, in [0, 1] or in `label_range`. Default: the six EMI dimensions if all are present, otherwise the
    columns that the csv layout takes for labels, if their values are in that range."""
    frame_rate: FrameRate = 8.0
    """Frames per second of a video to select frames from."""


class PairColumns:
    """The role of each column of a table."""

    def __init__(
        self,
        options: PairColumnOptions,
        names: Sequence[str],
        rows: Sequence[Sequence[Any]],
        where: str,
        media_columns: Collection[str] = (),
        not_labels: Collection[str] = (),
        row_name: Callable[[int], str] = lambda i: f"row {i + 1}",
    ):
        """rows: the rows to guess labels from; media_columns: columns with media; not_labels: columns with numbers that
        are no labels according to their type; row_name(i): names a row. UserError if no column has pictures or sound,
        and for a cell without a number in a column of numbers."""
        header, self.where = Header(names, where), where
        self.missing_words = frozenset(options.missing_words)
        found = header.resolve([*MEDIA, "media", "transcript", "split", "caption"], options, media_columns)
        self.columns = {role: [names[i] for i in positions] for role, positions in found.items()}
        if any(self.columns[role] for role in MEDIA) and not options.media:
            self.columns["media"] = []
        self.all_columns = ", ".join(names)
        if not any(self.columns[role] for role in (*MEDIA, "media")):
            raise UserError(
                f"{where}: which column holds pictures or sound? set image, audio or video to one of: "
                f"{self.all_columns}"
            )
        self.labels = {name: names[header.position(name)] for name in options.labels}
        self.notes: list[str] = []
        if self.labels:
            self.reader = LabelReader.of(options, list(self.labels))
            self.refuse_outside([[row[names.index(c)] for c in self.labels.values()] for row in rows], row_name)
        else:
            taken = {i for positions in found.values() for i in positions}
            taken |= {i for i, name in enumerate(names) if name in media_columns}
            self._guess_labels(options, header, rows, guess_labels(header, rows, taken, row_name, not_labels), row_name)
        self.text_kinds = {kind for kind in ("caption", "transcript") if self.columns[kind]}
        self.text_kinds |= {"labels"} if self.labels else set()

    def _guess_labels(
        self,
        options: PairColumnOptions,
        header: Header,
        rows: Sequence[Sequence[Any]],
        guess: LabelGuess,
        row_name: Callable[[int], str],
    ) -> None:
        """Use the guessed columns as labels: the EMI dimensions, or columns with numbers in the label range."""
        reader = LabelReader.of(options, list(guess.positions))
        cells = [[row[i] for i in guess.positions.values()] for row in rows]
        outside = reader.outside(_numbers(cells), list(map(row_name, range(len(rows))))) if guess.positions else None
        bad = [part.name for part in outside.dimensions] if outside else []
        if outside and set(bad) & set(EMI):
            raise UserError(f"{self.where}: {outside} to the options of this source")
        inside = {name: i for name, i in guess.positions.items() if name not in bad}
        refuse_wrong_labels(self.where, {name: cell for name, cell in guess.wrong.items() if name in inside})
        self.labels = {name: header.names[i] for name, i in inside.items()}
        ranges = {name: ends for name, ends in reader.scale.ranges.items() if name in inside}
        self.reader = LabelReader(LabelScale(ranges), reader.codes)
        self.notes = list(guess.notes) if guess.positions else []
        if bad:
            what = f"not labels, since their values are not in {reader.scale.describe(bad)}: {', '.join(bad)}"
            self.notes.append(f"{what}; if they are, name them in the option labels, with their label_range")

    def refuse_outside(self, cells: Sequence[Sequence[Any]], row_name: Callable[[int], str]) -> None:
        """UserError if label cells (N, K) lie outside their range; row_name(i): names a row."""
        outside = self.reader.outside(_numbers(cells), list(map(row_name, range(len(cells))))) if cells else None
        if outside:
            raise UserError(f"{self.where}: {outside} to the options of this source")

    def require_texts(self) -> None:
        """UserError if no column has texts or labels."""
        if not self.text_kinds:
            raise UserError(
                f"{self.where}: which column holds the words? set caption, transcript or labels to one of: "
                f"{self.all_columns}"
            )

    def annotations(self, row: Mapping[str, Any], where: str) -> TextAnnotations:
        """Texts and labels of a row {column: value}; where: the row, for messages."""
        captions = [text for name in self.columns["caption"] for text in self._texts(row.get(name))]
        transcript = " ".join(text for name in self.columns["transcript"] for text in self._texts(row.get(name)))
        labels = [parse_label(row.get(column), f"{where}, column {column}") for column in self.labels.values()]
        return TextAnnotations(transcript, captions, self.reader.fractions(labels, where))

    def _texts(self, cell: Any) -> list[str]:
        return cell_texts(cell, self.missing_words)

    def texts(self, names: Sequence[str]) -> list[int]:
        """Positions of the columns with words and files."""
        roles = (*MEDIA, "media", "caption", "transcript")
        return [names.index(name) for role in roles for name in self.columns[role]]

    def media(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{image, audio or video: a path, bytes, or sound as an array}, without empty cells."""
        cells = {role: row.get(self.columns[role][0]) for role in MEDIA if self.columns[role]}
        for name in self.columns["media"]:
            cell = row.get(name)
            cells[_media_kind(cell.get("path") if isinstance(cell, dict) else cell)] = cell
        return {role: content for role, cell in cells.items() if (content := media_content(cell)) is not None}


def _numbers(cells: Sequence[Sequence[Any]]) -> np.ndarray:
    """The numbers in cells (N, K), NaN for anything else: float64 (N, K)."""
    values = [[parse_number(cell) for cell in row] for row in cells]
    return np.array([[np.nan if value is None else value for value in row] for row in values], np.float64)


def _media_kind(path: Any) -> str:
    """image, audio or video, by the extension."""
    suffix = PurePosixPath(path).suffix.lower() if isinstance(path, str) else ""
    return "image" if suffix in IMAGE_SUFFIXES else "audio" if suffix in AUDIO_SUFFIXES else "video"
