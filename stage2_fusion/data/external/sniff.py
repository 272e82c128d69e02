"""What a file begins with, by which its format is recognized."""

import codecs
import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.tables.arrow import open_table
from shared.tables.formats import READERS

TEXT = (*READERS, ".arff")
ARRAYS = (".npy", ".npz", ".safetensors", ".pkl", ".pickle", ".p")
ARROW = (".parquet", ".arrow")
SUFFIXES = (*TEXT, *ARRAYS, *ARROW)
"""Files that may hold features. Tools write others beside them: pictures, videos, logs."""
DELIMITERS = ",;\t"
MOST_BYTES = 1 << 20
"""A header is shorter: OpenFace's has 714 columns."""


def encoding_of(start: bytes) -> str:
    """That of a file that begins with `start`: spreadsheets and PowerShell also write UTF-16."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


@dataclass(frozen=True)
class Sniffed:
    """A file, and its first line if it is a table."""

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
        """The names of the columns, without spaces at their ends; [] for other files than tables."""
        if self.suffix in ARROW:
            return _arrow_names(self.path)
        cells = next(csv.reader([self._first_line], delimiter=self.delimiter, skipinitialspace=True), [])
        return [cell.strip() for cell in cells]

    @cached_property
    def encoding(self) -> str:
        """That of its text."""
        with self.path.open("rb") as file:
            return encoding_of(file.read(2))

    @cached_property
    def _first_line(self) -> str:
        if self.suffix not in (".csv", ".tsv", ".tab", ".txt"):
            return ""
        try:
            with self.path.open("rb") as file:
                start = file.read(MOST_BYTES)
        except OSError:
            return ""
        lines = start.decode(encoding_of(start), errors="replace").splitlines()
        return next((line for line in lines if line.strip()), "")


def _arrow_names(path: Path) -> list[str]:
    try:
        return [name.strip() for name in open_table(path).schema.names]
    except Exception:  # Arrow raises errors of many types; reading the file says which
        return []
