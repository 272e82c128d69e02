"""How the clips of a dataset were read, which datasets and models keep, so that other clips are read the same way."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import ClipSource
from shared.layouts.registry import LAYOUTS, read_source
from shared.text import one_line


@dataclass(frozen=True)
class UsedLayout:
    """A layout with its options, without those that name a place: that of other clips is another one."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    split_by: str = ""
    """The group that was kept whole when splits were drawn; "" = the first one."""

    @classmethod
    def of(cls, name: str, options: dict[str, Any], split_by: str | None = None) -> "UsedLayout":
        """What to keep of the options of `emit prepare`."""
        return cls(name, {key: value for key, value in options.items() if key not in _places(name)}, split_by or "")

    def read(self, source: Path, saved_in: Path | None = None) -> ClipSource:
        """Clips of another source. saved_in: the folder that names the layout, whose author may be anybody: no option
        that names a place is taken from it, and no class of its own is imported. UserError when the source cannot be
        read so."""
        LAYOUTS.get(self.name, saved_in)
        return read_source(source, self.name, UsedLayout.of(self.name, self.options).options)

    def __str__(self) -> str:
        options = ", ".join(f"{_shown(name)}: {_shown(value)}" for name, value in self.options.items())
        return f"{_shown(self.name)} {{{options}}}" if options else _shown(self.name)


def _shown(value: Any) -> str:
    """A value for messages; anybody may have written it."""
    text = one_line(value, 60)
    return text if text.isprintable() else ascii(text)


def _places(name: str) -> tuple[str, ...]:
    """The options of a built-in layout that name a place."""
    return getattr(LAYOUTS.get(name), "PLACES", ()) if name in LAYOUTS.parts else ()
