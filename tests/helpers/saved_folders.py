"""Edit saved folders as a person, a disk or an attacker would."""

import json
from pathlib import Path
from typing import Any

from shared.saved.checksum import KINDS, seal


def description(folder: Path) -> Path:
    """The JSON file that describes a saved folder."""
    return next(folder / kind.description for kind in KINDS if (folder / kind.description).is_file())


def edit(folder: Path, *keys: str | int, value: Any, sealed: bool = True) -> None:
    """Set the entry at these keys of the description; sealed: with a new checksum, as an attacker would."""
    path = description(folder)
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))
    if sealed:
        seal(folder)
