"""What the `encode` methods of all towers share: reading an item, and describing it in an error."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.errors import UserError


def to_array(item: Any) -> np.ndarray | None:
    """The values of a NumPy array or a tensor on any device; None for anything else."""
    if isinstance(item, np.ndarray):
        return item
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu()
        return (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    return None


def describe(item: Any) -> str:
    """Type, shape, dtype and range of an array; else the type, and the beginning of a text."""
    array, kind = to_array(item), f"{type(item).__module__}.{type(item).__qualname__}".removeprefix("builtins.")
    if array is None:
        return f"{kind} {str(item)[:60]!r}" if isinstance(item, str) else kind
    text = f"{kind} of shape {array.shape}, {array.dtype}"
    if array.size and array.dtype.kind in "iuf":
        if not np.isfinite(array).all():
            return f"{text}, with NaN or infinite values"
        text += f", values {array.min():.4g} to {array.max():.4g}"
    return text


def reject(method: str, item: Any, problem: str) -> UserError:
    """The error for an item that `method` cannot read."""
    return UserError(f"{method}: got {describe(item)}: {problem}")


def is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def existing_file(method: str, item: str | os.PathLike) -> Path:
    """The path; UserError unless it is a file."""
    try:
        if Path(item).is_file():
            return Path(item)
    except (OSError, ValueError):  # too long for a name, or with a null byte
        pass
    raise reject(method, str(item), "no such file")


def to_list(method: str, items: Any) -> list:
    """The items of a list or tuple, or the single item in a list. UserError for an empty list."""
    if not isinstance(items, (list, tuple)):
        return [items]
    if not items:
        raise UserError(f"{method}: got an empty list; give at least one item")
    return list(items)


def warn_truncated(truncated: Sequence[bool], limit: str) -> None:
    """A warning where the end of an item was left out."""
    if any(truncated):
        count = f"{sum(truncated)} of {len(truncated)} items" if len(truncated) > 1 else "the item"
        warnings.warn(f"{count} longer than {limit}: the end is left out (see `truncated`)", stacklevel=3)
