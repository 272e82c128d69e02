"""JSON Lines: one object per row; its keys are the columns."""

import io
import json
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.tables.cells import clean
from shared.tables.encodings import read_table_text
from shared.tables.text_table import TableRow, TextTable


def read_json_lines(path: Path, encoding: str = "", lists: bool = False) -> TextTable:
    """As `read_delimited`. A line that is not an object says so in `problem`. Columns with lists or objects are left
    out, with a note. lists: keep columns with lists, as JSON. UserError if no line is an object with a key."""
    text, notes = read_table_text(path, encoding)
    objects = [(i, _parse(line)) for i, line in enumerate(io.StringIO(text, newline=None), 1) if clean(line)]
    names = list(dict.fromkeys(name for _, row in objects for name in row or {}))
    left_out = dict if lists else list | dict
    nested = [name for name in names if any(isinstance((row or {}).get(name), left_out) for _, row in objects)]
    header = [name for name in names if name not in nested]
    if not header:
        raise UserError(f"{path}: no line is a JSON object with texts or numbers")
    rows = [
        TableRow(line, [""] * len(header), "not a JSON object")
        if row is None
        else TableRow(line, [_cell(row.get(name)) for name in header])
        for line, row in objects
    ]
    kinds = "objects" if lists else "lists or objects"
    notes += [f"columns with {kinds} are not read: {', '.join(nested)}"] if nested else []
    return TextTable(header, rows, notes)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. ValueError for a duplicate key, because it is unclear which value is meant."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _cell(value: Any) -> str:
    return "" if value is None else clean(value) if isinstance(value, str) else json.dumps(value)
