"""The commands that take long at full size, at their smallest, and what they leave behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.files import digest

MEASURED = {
    "seconds",
    "time",
    "samples_per_second",
    "samples_per_second_per_process",
    "data_wait_seconds",
    "memory_mib",
    "files",
    "checksum",
}
"""Keys of JSON files that differ between two equal runs; the last two are digests of files that hold durations."""

COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "synth": lambda base: ["synth", "--clips", 10, "--workers", 1, "--out", "out"],
    "prepare": lambda base: ["prepare", base / "media", "--workers", 1, "--out", "out"],
    "align": lambda base: ["align", "--config", base / "align.yaml", "--data", base / "clips", "--run", "out"],
    "export": lambda base: ["export", base / "align", "--out", "out"],
    "encode": lambda base: ["encode", "--encoders", base / "encoders", "--data", base / "clips", "--out", "out"],
    "fuse": lambda base: ["fuse", "--config", base / "fuse.yaml", "--data", base / "features", "--run", "out"],
    "evaluate": lambda base: [
        *("evaluate", "--model", base / "model", "--data", base / "features"),
        *("--bootstrap", 200, "--out", "out/metrics.json"),
    ],
    "predict": lambda base: ["predict", base / "media", "--model", base / "model", "--out", "out/predictions.csv"],
    "search": lambda base: [
        *("search", "--config", base / "fuse.yaml", "--data", base / "features", "--space", base / "space.yaml"),
        *("--trials", 2, "--workers", 1, "--out", "out"),
    ],
}
"""{command: its words}. Each writes to `out` in its working directory."""


def contents(folder: Path) -> dict[str, Any]:
    """What a finished command left, without what differs between two equal runs: {file: content or its digest}."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"):
        name = str(path.relative_to(folder))
        if path.suffix in (".json", ".jsonl"):
            found[name] = [_timeless(json.loads(line)) for line in _documents(path)]
        elif path.suffix not in (".yaml", ".yml", ".txt") and "events.out" not in name:
            found[name] = digest(path)
    return found


def _documents(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in MEASURED}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
