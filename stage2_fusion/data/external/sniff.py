"""The beginning of a file, from which its format is recognized."""

import codecs
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.tables.arrow import open_table
from shared.tables.formats import READERS
from shared.tables.text_table import find_header

TEXT = (*READERS, ".arff")
ARRAYS = (".npy", ".npz", ".safetensors", ".pkl", ".pickle", ".p")
ARROW = (".parquet", ".arrow")
SUFFIXES = (*TEXT, *ARRAYS, *ARROW)
"""Files that may hold features. Tools write others beside them: pictures, videos, logs."""
DELIMITERS = ",;\t"
MOST_BYTES = 1 << 20
"""Longer than any header; OpenFace's has 714 columns."""
MOST_LINES = 50
"""More than the comments before any header."""


def encoding_of(start: bytes) -> str:
    """The encoding of a file that begins with `start`; spreadsheets and PowerShell also write UTF-16."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


@dataclass(frozen=True)
class Sniffed:
    """A file, and the line with the names of its columns if it is a table."""

    path: Path

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @cached_property
    def delimiter(self) -> str:
        """What separates the names in the first line."""
        return max(DELIMITERS, key=self._first_line.count)

    @cached_property
    def header(self) -> list[str]:
        """The names of the columns, without outer spaces; [] if the file is not a table."""
        if self.suffix in ARROW:
            return _arrow_names(self.path)
        cells = next(csv.reader([self._first_line], delimiter=self.delimiter, skipinitialspace=True), [])
        return names_of(cells)

    @cached_property
    def encoding(self) -> str:
        """The encoding of its text."""
        with self.path.open("rb") as file:
            return encoding_of(file.read(2))

    @property
    def lines_before(self) -> int:
        """Lines before the header: Excel's sep=, comments, blank lines."""
        return self._start[0]

    @property
    def _first_line(self) -> str:
        return self._start[1]

    @cached_property
    def _start(self) -> tuple[int, str]:
        """The number of lines before the one with the names, and that line."""
        if self.suffix not in (".csv", ".tsv", ".tab", ".txt"):
            return 0, ""
        try:
            with self.path.open("rb") as file:
                start = file.read(MOST_BYTES)
        except OSError:
            return 0, ""
        lines = start.decode(encoding_of(start), errors="replace").splitlines()[:MOST_LINES]
        number = next((i for i, line in enumerate(lines) if line.strip()), 0)
        if lines and re.match(r'\s*("?sep=|#)', lines[number], re.IGNORECASE):
            number = find_header(lines).line
        return number, lines[number] if lines else ""


def names_of(cells: Iterable[object]) -> list[str]:
    """Names of columns without outer spaces, and without the # that NumPy writes before the first."""
    names = [str(cell).strip() for cell in cells]
    return [names[0].lstrip("# "), *names[1:]] if names else names


def _arrow_names(path: Path) -> list[str]:
    try:
        return [name.strip() for name in open_table(path).schema.names]
    except Exception:  # Arrow raises errors of many types; reading the file says which
        return []
