"""Shared by the `encode` methods of all towers: telling files, lists and single items apart."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError
from shared.media.arrays import reject
from shared.media.remarks import note_lines, problem_lines

if TYPE_CHECKING:
    from shared.media.decode import Media


def is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def existing_file(method: str, item: str | os.PathLike) -> Path:
    """The path; UserError unless it is a file."""
    name = os.fsdecode(item)  # a path object may contain bytes
    try:
        if Path(name).is_file():
            return Path(name)
    except (OSError, ValueError):  # the name is too long, or has a null byte
        pass
    raise reject(method, name, "no such file")


def to_list(method: str, items: Any) -> list:
    """The items of a list or tuple, or the single item in a list. UserError for an empty list."""
    if not isinstance(items, (list, tuple)):
        return [items]
    if not items:
        raise UserError(f"{method}: got an empty list; give at least one item")
    return list(items)


def warn_truncated(truncated: Sequence[bool], limit: str) -> None:
    """Warn if the end of an item was cut off."""
    if any(truncated):
        count = f"{sum(truncated)} of {len(truncated)} items" if len(truncated) > 1 else "the item"
        warnings.warn(f"{count} longer than {limit}: the end is cut off (see `truncated`)", stacklevel=3)


def warn_repaired(path: Path, media: "Media") -> None:
    """Warn about repairs, omissions and mixing while a file was decoded."""
    damaged = [f"{media.damaged_packets} damaged packets left out"] if media.damaged_packets else []
    if lines := [*damaged, *problem_lines(media.remarks), *note_lines(media.remarks)]:
        warnings.warn(f"{path}: {'; '.join(lines)}", stacklevel=4)
