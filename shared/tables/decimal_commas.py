"""Decimal commas, common in European spreadsheets: detected for a whole table, not guessed from one cell."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from shared.tables.cells import parse_number
from shared.tables.text_table import TableRow

_COMMA = re.compile(r"[+−-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_POINT = re.compile(r"[+−-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+−-]?[1-9]\d{0,2},\d{3}", re.ASCII)
"""Ambiguous cells such as 1,234, which could also be more than a thousand."""


class Converted(NamedTuple):
    """The rows of a table with decimal points."""

    rows: list[TableRow]
    notes: list[str]


def convert_decimal_commas(header: Sequence[str], rows: list[TableRow], not_numbers: Collection[int]) -> Converted:
    """The rows, with decimal commas replaced by points in numeric columns. not_numbers: columns to leave unchanged.

    A column is converted if most of its cells are numbers, and none has a decimal point. Cells such as 1,234 are
    ambiguous: if no cell of the table proves that its commas are decimal, they stay and are not numbers.
    """
    intact = [row for row in rows if not row.problem]
    columns = {i: [row.cells[i] for row in intact] for i in range(len(header)) if i not in not_numbers}
    columns = {i: cells for i, cells in columns.items() if _has_decimal_commas(cells)}
    if not any(_is_comma(cell) and not _THOUSANDS.fullmatch(cell) for cells in columns.values() for cell in cells):
        return Converted(rows, [])

    def convert(row: TableRow) -> TableRow:
        cells = [c.replace(",", ".") if i in columns and _is_comma(c) else c for i, c in enumerate(row.cells)]
        return row if row.problem else replace(row, cells=cells)

    first = min(columns)
    example = next(row for row in intact if _is_comma(row.cells[first]))
    named = ", ".join(repr(header[i]) for i in columns)
    note = f"decimal commas in {named}, such as {example.cells[first]} in line {example.line}"
    return Converted([convert(row) for row in rows], [note])


def _is_comma(cell: str) -> bool:
    return _COMMA.fullmatch(cell) is not None


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether most cells are numbers, some with a decimal comma, none with a decimal point."""
    values = {cell: parse_number(cell) for cell in set(cells)}
    filled = [cell for cell in cells if (value := values[cell]) is None or not math.isnan(value)]
    commas = sum(map(_is_comma, filled))
    numbers = commas + sum(values[cell] is not None for cell in filled)
    return commas > 0 and 2 * numbers > len(filled) and not any(_POINT.fullmatch(cell) for cell in filled)
