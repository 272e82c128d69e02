"""How the clips of a dataset were read. Datasets and models store it, to read other clips the same way."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import ClipSource
from shared.layouts.registry import LAYOUTS, read_source
from shared.text import one_line


@dataclass(frozen=True)
class UsedLayout:
    """A layout with its options, except paths, which are different for other clips."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    split_by: str = ""
    """The group that was kept whole when splits were drawn; "" = the first one."""

    @classmethod
    def of(cls, name: str, options: dict[str, Any], split_by: str | None = None) -> "UsedLayout":
        """From the options of `emit prepare`."""
        return cls(name, {key: value for key, value in options.items() if key not in _places(name)}, split_by or "")

    def read(self, source: Path, saved_in: Path | None = None) -> ClipSource:
        """Clips of another source. saved_in: the folder that names the layout, which is not trusted: its path options
        are ignored, and it cannot name a class to import. UserError if the source cannot be read this way."""
        LAYOUTS.get(self.name, saved_in)
        return read_source(source, self.name, UsedLayout.of(self.name, self.options).options)

    def __str__(self) -> str:
        options = ", ".join(f"{_shown(name)}: {_shown(value)}" for name, value in self.options.items())
        return f"{_shown(self.name)} {{{options}}}" if options else _shown(self.name)


def _shown(value: Any) -> str:
    """A value for messages, from an untrusted source."""
    text = one_line(value, 60)
    return text if text.isprintable() else ascii(text)


def _places(name: str) -> tuple[str, ...]:
    """The path options of a built-in layout."""
    return getattr(LAYOUTS.get(name), "PLACES", ()) if name in LAYOUTS.parts else ()
