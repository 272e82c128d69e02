"""What a cell of a table says: a number, texts, the name of a split, media."""

import math
from typing import Any

from shared.errors import UserError

MISSING = ("", "nan", "na", "n/a", "none", "null")
"""Cells that mean "no number", in lower case."""
SPLITS = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid"}
"""Other names of the splits train, valid and test."""


def parse_number(cell: Any) -> float | None:
    """The finite number in a cell; NaN when the cell is empty or says that there is none; None for anything else."""
    if cell is None or str(cell).strip().lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def parse_label(cell: Any, where: str) -> float:
    """The label in a cell, NaN when there is none. UserError, starting with `where`, when it is not a number."""
    value = parse_number(cell)
    if value is None:
        raise UserError(f"{where}: {cell!r} is not a number; leave it empty if there is no label")
    return value


def cell_texts(cell: Any) -> list[str]:
    """The texts in a cell: none, one, or the entries of a list; stripped, without empty ones."""
    values = cell if isinstance(cell, list) else [cell]
    return [text for value in values if value is not None and (text := str(value).strip())]


def cell_text(cell: Any) -> str:
    """The texts in a cell, joined by spaces."""
    return " ".join(cell_texts(cell))


def split_name(cell: str) -> str:
    """train, valid, test or "", whichever name a table uses for it; other names stay."""
    return SPLITS.get(cell.strip().lower(), cell.strip())


def media_content(cell: Any) -> Any:
    """Bytes or a path from {"bytes", "path"}, as datasets store media; None for an empty cell; other values stay."""
    if isinstance(cell, dict) and "array" not in cell:
        cell = cell.get("bytes") or cell.get("path")
    return cell or None
