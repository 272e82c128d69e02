"""`emit check`: what a source holds and what is wrong with it, before anything takes long. Nothing is decoded.

emit check my_videos/labels.csv --out report.json
"""

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared import config as configuration
from shared.dataset.check_report import page
from shared.dataset.clip import Clip, ClipSource, StoredMedia
from shared.dataset.near_duplicates import join_near_duplicates
from shared.errors import UserError
from shared.files import digest, write_json
from shared.layouts.registry import guess_layout, read_source
from shared.media.headers import evenly, read_header
from shared.text import words

BINS = 10
"""Bars of a label's histogram."""
IMPLAUSIBLE_RATE = 121
"""Frames a second: beyond it the header gives a time base, not a rate."""
HASHED = 1 << 20
"""Bytes at either end of a file by which files of equal size are compared before they are read whole."""
TABLES = 1 << 30
"""Bytes of tables up to which the media in them are read to be compared."""


@dataclass
class CheckConfig:
    """Say what would be read of a source, what is missing, and what lies on both sides of a split."""

    source: Path = field()
    """What `emit prepare` would be given: a folder, or a table."""
    layout: str | None = None
    """How the source is laid out: csv, folder, hf, ravdess or vidmimic2; by default what its files look like."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    """The layout's own options, as `emit prepare` takes them."""
    headers: int = 200
    """Files whose headers are read for durations and rates, evenly spaced: each takes some milliseconds."""
    out: Path | None = None
    """File for all findings, as JSON."""

    def __post_init__(self):
        if self.headers < 1:
            raise ValueError(f"headers is {self.headers}: at least 1 is needed")


def main(argv: list[str] | None = None) -> int:
    """Run `emit check`; 1 when nothing can be read."""
    config = configuration.parse(
        CheckConfig, argv, prog="emit check", example="emit check my_videos/ --out report.json", positional=("source",)
    )
    report = check(config)
    print(page(report))
    if config.out is not None:
        write_json(config.out, report)
    files = report["files"]
    own = files["sound_of_its_own"] + files["crops_of_its_own"]
    if not files["there"] + own + report["transcripts"]["there"]:
        raise UserError(f"{config.source}: none of its {report['clips']} clips has a file or words")
    return 0


def check(config: CheckConfig) -> dict:
    """All findings, as JSON can hold them. UserError when the source gives no clip."""
    if not Path(config.source).exists():
        raise UserError(f"{config.source}: no such file or folder")
    layout = config.layout or guess_layout(Path(config.source))
    source = read_source(config.source, layout, config.layout_options)
    clips = source.clips
    files = _files(clips)
    copies, sounds = _copies([clip.media for clip in clips]), _copies([clip.audio for clip in clips])
    alike = _alike(clips)
    return {
        "source": str(config.source),
        "layout": layout,
        "notes": source.notes + _not_compared(clips),
        "clips": len(clips),
        "splits": dict(sorted(Counter(clip.split for clip in clips).items())),
        "files": files,
        "headers": _headers(clips, config.headers),
        "transcripts": {
            "there": sum(bool(clip.transcript) for clip in clips),
            "words": _spread([len(words(clip.transcript)) for clip in clips if clip.transcript]),
        },
        "labels": _labels(source),
        "zero_rows": _zero_rows(clips),
        "groups": {name: _group(clips, name) for name in source.group_names},
        "duplicates": {
            "files": _several(clips, copies),
            "sounds": _several(clips, sounds),
            "transcripts": _several(clips, alike),
        },
        "leakage": _leakage(source, {"same file": copies, "same sound": sounds, "nearly the same words": alike}),
        "remarks": {clip.id: list(clip.remarks) for clip in clips if clip.remarks},
    }


def _files(clips: list[Clip]) -> dict:
    """What of the clips' files is there."""
    there, missing, empty = 0, [], []
    for clip in clips:
        if clip.media is None or not _is_there(clip.media):
            missing.append(clip.id)
            continue
        there += 1
        if isinstance(clip.media, Path) and clip.media.stat().st_size == 0:
            empty.append(clip.id)
    kinds = Counter(clip.media.suffix.lower() for clip in clips if isinstance(clip.media, Path))
    found = {"there": there, "missing": missing, "empty": empty, "kinds": dict(kinds.most_common())}
    found["sound_of_its_own"] = sum(clip.audio is not None and _is_there(clip.audio) for clip in clips)
    found["crops_of_its_own"] = sum(clip.crops is not None and clip.crops.is_dir() for clip in clips)
    return found


def _is_there(file: Path | StoredMedia) -> bool:
    return isinstance(file, StoredMedia) or os.path.isfile(file)


def _copies(files: list[Path | StoredMedia | None]) -> list[str]:
    """For each file a key that files of equal content share; "" for one unlike all others, and for what is empty or
    cannot be read. Only files of equal size are opened, and only those with equal ends are read whole."""
    keys = [""] * len(files)

    def alike(some: list[int], look: Callable) -> list[int]:
        """Those of some files that share with another one of them what is looked at."""
        found = {i: look(files[i]) for i in some}
        count = Counter(found.values())
        for i, key in found.items():
            keys[i] = key if count[key] > 1 else ""
        return [i for i in some if keys[i]]

    cells = [i for i, file in enumerate(files) if isinstance(file, StoredMedia)]
    if _bytes_of_tables(files) <= TABLES:
        alike(cells, _cell)
    some = [i for i, file in enumerate(files) if isinstance(file, Path) and _is_there(file)]
    for look in (_size, _ends, _whole):
        some = alike(some, look)
    return keys


def _not_compared(clips: list[Clip]) -> list[str]:
    size = max(_bytes_of_tables([clip.media for clip in clips]), _bytes_of_tables([clip.audio for clip in clips]))
    return [f"media in tables of {size / 2**30:.1f} GiB are not read to be compared"] if size > TABLES else []


def _bytes_of_tables(files: list[Path | StoredMedia | None]) -> int:
    return sum(path.stat().st_size for path in {file.file for file in files if isinstance(file, StoredMedia)})


def _cell(cell: StoredMedia) -> str:
    try:
        return hashlib.sha256(cell.read()).hexdigest()
    except Exception:  # of pyarrow: whatever a damaged table leads to
        return ""


def _size(path: Path) -> str:
    return str(path.stat().st_size or "")


def _ends(path: Path) -> str:
    try:
        with path.open("rb") as file:
            first = file.read(HASHED)
            file.seek(max(0, os.fstat(file.fileno()).st_size - HASHED))
            return digest([first.hex(), file.read(HASHED).hex()])
    except OSError:
        return ""


def _whole(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        return ""


def _alike(clips: list[Clip]) -> list[str]:
    """For each clip a key that clips with nearly the same words share; "" for those with few words or none."""
    groups = join_near_duplicates([clip.transcript for clip in clips])
    size = Counter(groups.find(i) for i in range(len(clips)))
    return [str(groups.find(i)) if size[groups.find(i)] > 1 else "" for i in range(len(clips))]


def _headers(clips: list[Clip], count: int) -> dict:
    """Durations and rates as the headers of some files tell them."""
    # A sound of its own is what is there where a clip has no other file.
    there = [next((file for file in (clip.media, clip.audio) if file and _is_there(file)), None) for clip in clips]
    paths = [file for file in there if isinstance(file, Path)]
    looked = evenly(paths, count)
    found = [(path, read_header(path)) for path in looked]
    fine = [header for _, header in found if not header.trouble]
    seconds = [header.seconds for header in fine if header.seconds is not None]
    rates = [header.frame_rate for header in fine if header.frame_rate is not None]
    return {
        "looked_at": len(looked),
        "of": len(paths),
        "seconds": _spread(seconds),
        "hours": float(np.mean(seconds)) * len(paths) / 3600 if seconds else 0.0,
        "frame_rate": _spread(rates),
        "implausible_rates": sum(rate > IMPLAUSIBLE_RATE or rate <= 0 for rate in rates),
        "no_picture": sum(header.frame_rate is None for header in fine),
        "no_sound": sum(header.sample_rate is None for header in fine),
        "sample_rates": {str(rate): n for rate, n in Counter(h.sample_rate for h in fine if h.sample_rate).items()},
        "unreadable": {str(path): header.trouble for path, header in found if header.trouble},
    }


def _spread(values: list[float]) -> dict | None:
    """Least, quartiles, 95th percentile and most; None of nothing."""
    if not values:
        return None
    names = ("least", "quarter", "median", "three_quarters", "p95", "most")
    return dict(zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 0.95, 1)).astype(float).tolist(), strict=True))


def _labels(source: ClipSource) -> dict:
    """Of each label: clips without it, share above 0, mean, histogram over its range ([0, 1] where it lies in it)."""
    out = {}
    for k, name in enumerate(source.label_names):
        values = np.array([clip.labels[k] for clip in source.clips], np.float64)
        known = values[np.isfinite(values)]
        if not len(known):
            out[name] = {"missing": len(values)}
            continue
        low, high = (0.0, 1.0) if known.min() >= 0 and known.max() <= 1 else (float(known.min()), float(known.max()))
        bars = np.histogram(known, BINS, (low, high if high > low else low + 1))[0]
        out[name] = {
            "missing": int(len(values) - len(known)),
            "above_zero": float((known > 0).mean()),
            "mean": float(known.mean()),
            "range": [float(known.min()), float(known.max())],
            "bins": [low, high],
            "histogram": bars.tolist(),
            "constant": bool(known.min() == known.max()),
        }
    return out


def _zero_rows(clips: list[Clip]) -> dict:
    """Per split: rows with every label known, and those of them that are zero throughout."""
    out: dict[str, dict[str, int]] = {}
    for clip in clips:
        if clip.labels and not any(math.isnan(value) for value in clip.labels):
            counts = out.setdefault(clip.split, {"rows": 0, "zero": 0})
            counts["rows"] += 1
            counts["zero"] += all(value == 0 for value in clip.labels)
    return dict(sorted(out.items()))


def _group(clips: list[Clip], name: str) -> dict:
    count = Counter(value for clip in clips if (value := clip.groups.get(name)))
    return {
        "values": len(count),
        "clips_each": _spread(list(count.values())),
        "clips_without": sum(not clip.groups.get(name) for clip in clips),
    }


def _several(clips: list[Clip], keys: list[str]) -> list[list[str]]:
    """Ids of clips that share a key, the largest sets first."""
    sets: dict[str, list[str]] = defaultdict(list)
    for clip, key in zip(clips, keys, strict=True):
        if key:
            sets[key].append(clip.id)
    return sorted((some for some in sets.values() if len(some) > 1), key=lambda some: (-len(some), some))


def _leakage(source: ClipSource, alike: dict[str, list[str]]) -> dict:
    """What lies on both sides of a split: {what: {"sets": how many, "clips": how many, "examples": ids}}. alike: beside
    the groups, what equals what, as keys of the clips."""
    clips = source.clips
    keys: dict[str, list[str]] = {name: [clip.groups.get(name, "") for clip in clips] for name in source.group_names}
    found = {what: _across(clips, lambda i, some=some: some[i]) for what, some in (keys | alike).items()}
    return {what: value for what, value in found.items() if value["sets"]}


def _across(clips: list[Clip], key: Callable[[int], str]) -> dict:
    sets: dict[str, list[Clip]] = defaultdict(list)
    for i, clip in enumerate(clips):
        if key(i) and clip.split:
            sets[key(i)].append(clip)
    torn = [some for some in sets.values() if len({clip.split for clip in some}) > 1]
    examples = []
    for some in torn[:3]:
        other = next(clip for clip in some if clip.split != some[0].split)
        examples.append(f"{some[0].id} ({some[0].split}) and {other.id} ({other.split})")
    return {"sets": len(torn), "clips": sum(map(len, torn)), "examples": examples}


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
