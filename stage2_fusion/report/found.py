"""Find the parts of a RUN, recognized by content, whatever the names of their folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_json
from shared.saved.checksum import CLIPS, ENCODERS, FEATURES, FUSION, FolderKind
from stage2_fusion.report.speed_file import FORMAT as SPEED

DEPTH = 4
"""Levels of folders below a RUN that are searched."""
SKIPPED = {"checkpoints", "data", "emit", "tokenizer"}
"""Folders with parts of something already found."""
LARGEST_JSON = 2**26
"""Most bytes of a JSON file to read."""


@dataclass
class Found:
    """Paths of the parts of a RUN, in the order of their names."""

    given: Path
    models: list[Path] = field(default_factory=list)
    """Folders of fusion models."""
    features: list[Path] = field(default_factory=list)
    clips: list[Path] = field(default_factory=list)
    encoders: list[Path] = field(default_factory=list)
    align_runs: list[Path] = field(default_factory=list)
    """Run folders of stage 1."""
    fuse_runs: list[Path] = field(default_factory=list)
    """Run folders of stage 2."""
    evaluations: list[Path] = field(default_factory=list)
    """JSON files of evaluations."""
    robustness: list[Path] = field(default_factory=list)
    """JSON files of `emit robustness`."""
    truths: list[Path] = field(default_factory=list)
    """truth.csv of synthetic corpora."""
    benches: list[Path] = field(default_factory=list)
    """JSON files of `make bench`."""

    def is_empty(self) -> bool:
        return not any(getattr(self, name) for name in self.__dataclass_fields__ if name != "given")


def find_parts(given: Path) -> Found:
    """The parts of a RUN: a folder, or the JSON file of an evaluation. UserError when it is neither."""
    found = Found(given)
    if given.is_file():
        _add_json(found, given)
    elif given.is_dir():
        for folder in _folders(given, DEPTH):
            _add_folder(found, folder)
    else:
        raise UserError(f"{given}: no such file or folder; give the folder of a run, of a model, or an evaluation")
    if found.is_empty():
        raise UserError(
            f"{given}: holds no run, model, dataset or evaluation; give the folder of a run (such as runs/demo), of a "
            "model, or the JSON file of `emit evaluate`"
        )
    return found


def folder_format(folder: Path, kind: FolderKind) -> bool:
    """Whether a folder is of this kind, by the format in its description."""
    content = _json_object(folder / kind.description)
    return content is not None and content.get("format") in (kind.format, kind.unsealed)


def _folders(top: Path, depth: int) -> Iterator[Path]:
    """The folder and its subfolders, sorted, each once: links may form a cycle."""
    seen: set[str] = set()

    def walk(folder: Path, depth: int) -> Iterator[Path]:
        place = os.path.realpath(folder)
        if place in seen:
            return
        seen.add(place)
        yield folder
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if depth and entry.is_dir())
        except OSError:
            return
        for name in names:
            if name not in SKIPPED and not name.startswith("."):
                yield from walk(folder / name, depth - 1)

    return walk(top, depth)


def _add_folder(found: Found, folder: Path) -> None:
    if (folder / CLIPS.description).is_file() and folder_format(folder, CLIPS):
        found.clips.append(folder)
    if (folder / FEATURES.description).is_file() and folder_format(folder, FEATURES):
        found.features.append(folder)
    if (folder / "config.json").is_file():
        if folder_format(folder, FUSION):
            found.models.append(folder)
        elif folder_format(folder, ENCODERS) and folder.parent not in found.models:
            found.encoders.append(folder)
    if (folder / "config.yaml").is_file() and (folder / "made_from.json").is_file():
        text = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
        is_align = any(line.startswith("towers:") for line in text.splitlines())
        (found.align_runs if is_align else found.fuse_runs).append(folder)
    if (folder / "truth.csv").is_file():
        found.truths.append(folder / "truth.csv")
    for path in sorted(folder.glob("*.json")):
        _add_json(found, path)
        if path.name.startswith("metrics") and _json_object(path) is None:
            found.evaluations.append(path)  # damaged; reading it reports that


def _add_json(found: Found, path: Path) -> None:
    content = _json_object(path)
    if content is None:
        return
    if isinstance(content.get("clips"), dict) and "pcc" in content and "predictions_digest" in content:
        found.evaluations.append(path)
    elif "rows" in content and "shares" in content:
        found.robustness.append(path)
    elif content.get("format") == SPEED:
        found.benches.append(path)


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path, "file", "") if path.stat().st_size <= LARGEST_JSON else None
    except (OSError, UserError):
        return None
    return content if isinstance(content, dict) else None
