"""Empty and count the cells of texts, names and files that contain a word for a missing value."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from shared.tables.arrow import EmbeddedMedia
from shared.tables.cells import MISSING_WORDS
from shared.text import counted, first_few

_IN_ANY_CASE = frozenset(word.lower() for word in MISSING_WORDS)


class Emptied(NamedTuple):
    """The rows of a table without words for "missing"."""

    rows: list[list[Any]]
    notes: list[str]


def empty_missing_words(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    positions: Collection[int | None],
    words: Collection[str],
    row_name: Callable[[int], str],
    split: int | None = None,
) -> Emptied:
    """The rows, with "" in each cell at one of the positions that is one of the words. The notes count these cells, and
    cells with such a word in another case, which stay, because somebody may be called Na. row_name(i): names a row;
    split: position of the split names, which are never such words, in any case."""
    columns = {i for i in (*positions, split) if i is not None}
    emptied: Counter[tuple[str, str]] = Counter()
    kept: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], int] = {}
    new_rows = []
    for number, row in enumerate(rows):
        cells = list(row)
        for i in columns:
            cell = cells[i]
            if not isinstance(cell, str) or isinstance(cell, EmbeddedMedia) or cell.lower() not in _IN_ANY_CASE:
                continue
            key = header[i], cell
            first.setdefault(key, number)
            if cell in words or i == split:
                emptied[key] += 1
                cells[i] = ""
            else:
                kept[key] += 1
        new_rows.append(cells)

    def describe(counts: Counter[tuple[str, str]]) -> str:
        parts = [
            f"{counted(count, 'time')} {cell!r} in {name!r} ({row_name(first[name, cell])})"
            for (name, cell), count in counts.items()
        ]
        return first_few(parts, 6)

    notes = []
    if emptied:
        notes.append(
            f"read as missing: {describe(emptied)}; with the option missing_words: [] they are words and names"
        )
    if kept:
        notes.append(f"read as words and names: {describe(kept)}; the option missing_words lists what is missing")
    return Emptied(new_rows, notes)
