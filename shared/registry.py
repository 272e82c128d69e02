"""A family of interchangeable parts (towers, fusion models, layouts): names on one side, import paths on the other."""

import difflib
import importlib
import inspect
from typing import Any

from shared.errors import UserError


def nearest(name: str, names) -> str:
    """A hint naming the closest of `names`, or all of them when none is close."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(sorted(names))}"


class Registry:
    """Maps a name to `"module:attribute"`; the module is imported only when its part is asked for."""

    def __init__(self, family: str, parts: dict[str, str]):
        self.family = family
        self.parts = dict(parts)

    def names(self) -> list[str]:
        return sorted(self.parts)

    def get(self, name: str) -> Any:
        """The part called `name`; UserError names the nearest one when there is none."""
        if name not in self.parts:
            raise UserError(f"no {self.family} called {name!r}: {nearest(name, self.parts)}")
        module, attribute = self.parts[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def make(self, spec: str) -> Any:
        """The part that "NAME" or "NAME:PATH" (with a file or folder of its own) describes, made; UserError when it is
        written otherwise."""
        name, _, path = spec.partition(":")
        part, given = self.get(name), [path] if path else []
        try:
            inspect.signature(part).bind(*given)
        except TypeError:
            needs = "takes no file" if given else f"needs a file of its own; write {name}:/path/to/it"
            raise UserError(f"the {self.family} {name!r} {needs}") from None
        return part(*given)
