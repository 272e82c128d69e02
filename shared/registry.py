"""A family of interchangeable parts (towers, fusion models, layouts): names on one side, import paths on the other."""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.text import one_line

IMPORT_PATH = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*)(?::(.*))?")
"""`package.module:Class`, optionally followed by `:` and a file."""
MOST_NAMES = 60
"""Most names to list in a message."""
TRUSTED = "EMIT_IMPORT"
"""Environment variable: comma-separated modules; saved folders may name their classes."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint with the closest of `names`; if none is close, all of them, or examples if there are many."""
    known = sorted(set(names))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(known) > MOST_NAMES:
        return f"one of {len(known)}, such as {', '.join(known[:: len(known) // 5][:5])}"
    return f"one of: {', '.join(known)}"


def _trusted() -> list[str]:
    return [name.strip() for name in os.environ.get(TRUSTED, "").split(",")]


class Registry:
    """Maps a name to `"module:attribute"`; the module is imported only when its part is requested.

    Wherever a name is accepted, `package.module:Class` is too: a user's own part needs no fork.
    """

    def __init__(self, family: str, parts: dict[str, str]) -> None:
        self.family = family
        self.parts = dict(parts)

    def names(self) -> list[str]:
        """The names of the built-in parts, sorted."""
        return sorted(self.parts)

    def get(self, name: str, saved_in: str | Path | None = None) -> Any:
        """The part called `name`, or the one at the import path `package.module:Class`. UserError names the nearest
        part if the name is unknown, or the reason if the import fails.

        saved_in: the folder that names the part, if not a person. Loading a folder must not import code chosen by its
        author: the module of an import path must already be imported, or be listed in EMIT_IMPORT."""
        if name in self.parts:
            module, attribute = self.parts[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        if ":" in name:
            module = name.partition(":")[0]
            if saved_in is not None and module not in sys.modules and module not in _trusted():
                raise UserError(
                    f"{saved_in}: names custom code, the {self.family} {name!r}, which loading does not import; "
                    f"if you trust it, import {module} first, or set {TRUSTED}={module}"
                )
            return self._imported(name)
        raise UserError(f"no {self.family} called {name!r}: {nearest(name, self.parts)}")

    def _imported(self, path: str) -> Any:
        name, _, attribute = path.partition(":")
        try:
            module = importlib.import_module(name)
        except Exception as error:  # the module is the user's: its import may raise anything
            reason = f"{type(error).__name__}: {one_line(error, 200)}"
            hint = "; is its package installed, or its folder on PYTHONPATH?" if isinstance(error, ImportError) else ""
            raise UserError(f"{self.family} {path!r} cannot be imported ({reason}){hint}") from None
        if not hasattr(module, attribute):
            public = [known for known in vars(module) if not known.startswith("_")]
            hint = nearest(attribute, public) if public else "it is empty"
            raise UserError(f"{self.family} {path!r}: the module {name} has no {attribute!r}: {hint}")
        return getattr(module, attribute)

    def split(self, spec: str) -> tuple[str, str]:
        """The name and the file of "NAME" or "NAME:FILE", where NAME may be an import path; "" without a file."""
        name, _, path = spec.partition(":")
        own = None if name in self.parts else IMPORT_PATH.fullmatch(spec)
        return (own[1], own[2] or "") if own else (name, path)

    def make(self, spec: str) -> Any:
        """An instance of the part described by "NAME" or "NAME:FILE"; UserError if the part needs a file and `spec` has
        none, or vice versa."""
        name, path = self.split(spec)
        part, arguments = self.get(name), [path] if path else []
        try:
            inspect.signature(part).bind(*arguments)
        except TypeError:
            needs = "takes no file" if arguments else f"needs a file; write {name}:/path/to/it"
            raise UserError(f"the {self.family} {name!r} {needs}") from None
        return part(*arguments)
