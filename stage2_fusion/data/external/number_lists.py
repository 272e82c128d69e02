"""Cells with lists of numbers: JSON, or as pandas writes lists, tuples and NumPy arrays into a CSV."""

import re
from collections.abc import Sequence
from dataclasses import replace

from shared.tables.cells import parse_number
from shared.tables.text_table import TextTable

LIST = re.compile(r"[\[(][-+\d.,eE\s\[\]()naifNulo]*[\])]", re.DOTALL)
"""A cell with a list of numbers, or of lists."""
SCALAR = re.compile(r"np\.float\d+\(([^()]*)\)")
"""How NumPy 2 writes a number in a Python list."""


def lists_apart(table: TextTable) -> TextTable:
    """The table with name_0, name_1, ... in place of each column of number lists of one length; cells may be empty.
    Other columns stay."""
    intact = [row for row in table.rows if not row.problem]
    parts = [_column([row.cells[i] for row in intact]) for i in range(len(table.header))]
    if not any(parts):
        return table
    header: list[str] = []
    for name, cells in zip(table.header, parts, strict=True):
        header += [f"{name}_{i}" for i in range(len(cells[0]))] if cells else [name]
    place = {id(row): i for i, row in enumerate(intact)}
    rows = []
    for row in table.rows:
        own: list[str] = []
        for cell, cells in zip(row.cells, parts, strict=True):
            own += (cells[place[id(row)]] if id(row) in place else [""] * len(cells[0])) if cells else [cell]
        rows.append(replace(row, cells=own))
    return TextTable(header, rows, table.notes)


def _column(cells: Sequence[str]) -> list[list[str]]:
    """The numbers of each cell as strings, "" for an empty cell; [] if the cells are not lists of one length."""
    parsed = [_numbers(cell) if cell else [] for cell in cells]
    lengths = {len(each) for cell, each in zip(cells, parsed, strict=True) if cell and each is not None}
    if len(lengths) != 1 or 0 in lengths or any(each is None for each in parsed):
        return []
    width = lengths.pop()
    return [each or [""] * width for each in parsed if each is not None]


def _numbers(cell: str) -> list[str] | None:
    """The numbers in a list; None for anything else."""
    cell = SCALAR.sub(r"\1", cell) if cell[:1] in "[(" else cell
    if not LIST.fullmatch(cell):
        return None
    parts = re.split(r"\s*,\s*|\s+", cell[1:-1].strip().removesuffix(","))
    return parts if all(part and parse_number(part) is not None for part in parts) else None
