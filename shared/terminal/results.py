"""The result of a command: a text for people, or with --json one document on stdout and nothing else there.

With --json, everything else that a command prints goes to stderr; with --quiet, it is dropped. This includes C
libraries and child processes.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from shared.terminal.messages import say
from shared.terminal.modes import modes
from shared.terminal.processes import is_main_process

_depth = 0
"""Commands that run in this process: a recipe calls other commands."""
_stdout: TextIOWrapper | None = None
"""The stdout that --quiet and --json reserve for the result."""
_document: Any = None
STEP = "EMIT_STEP"
"""Environment variable: 1 in the process of a step that another command has started."""


def result(text: str, document: Any = None) -> None:
    """Print the result of a command: the text or, with --json, `document`, which is printed when the command ends.
    If another command called this one, the result counts as an ordinary line."""
    global _document
    if not is_main_process():
        return
    if is_step() or not (modes().quiet or modes().json) or (modes().json and document is None):
        say(text)
    elif modes().json:
        _document = document
    elif _stdout is not None:
        print(text, file=_stdout, flush=True)
    else:
        print(text, flush=True)


def offer_document(document: Any) -> None:
    """What --json prints if the command has no other result."""
    global _document
    if _document is None and is_main_process() and not is_step():
        _document = document


def is_step() -> bool:
    """Whether the running command was called by another one, in this process or (STEP) in a separate one."""
    return _depth > 1 or bool(os.environ.get(STEP))


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Mark this block as a running command."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """Reserve stdout for the result if a mode requires it. With --json, the document is printed at the end of the
    block, even after an error."""
    global _stdout, _document
    if not (modes().quiet or modes().json) or sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    other = os.open(os.devnull, os.O_WRONLY) if modes().quiet else _stderr()
    os.dup2(other, 1)
    os.close(other)
    # JSON is UTF-8. What is not, such as a file name, becomes \udc.., which JSON reads too.
    stream = _stdout = os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace")
    _document = None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _stdout = None
        os.dup2(kept, 1)
        with stream:
            if modes().json and _document is not None:
                print(json_text(_document), file=stream)


def _stderr() -> int:
    """A copy of the descriptor of stderr, or of the null device if it is closed."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def json_text(value: Any) -> str:
    """A document as JSON: NaN and infinities are null, paths are strings, dataclasses are objects."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """The value in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
