"""What a source contains and what is wrong with it. Nothing is decoded."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.equal_files import equal_file_keys, file_exists, not_compared_notes
from shared.dataset.label_scale import LabelOptions, LabelScale, outside_labels, source_scale, without_codes
from shared.dataset.near_duplicates import join_near_duplicates
from shared.dataset.transcripts import Words, inspect_transcripts
from shared.layouts.registry import guess_layout, read_source, require_source
from shared.media.headers import evenly_spaced, read_header
from shared.metrics import why_no_pcc, why_not_learned
from shared.terminal.progress import track
from shared.text import words

BINS = 10
"""Bars of a label's histogram."""
IMPLAUSIBLE_RATE = 121
"""Frames per second; a higher number in a header is a time base, not a rate."""
DUPLICATES = {"files": "same file", "sounds": "same sound", "transcripts": "nearly the same words"}
"""What clips may share, besides groups."""

Report = dict[str, Any]
"""A JSON document or a section of it."""
TextReader = Callable[[list[str], list[str]], list[str]]
"""Returns lines about what a text encoder cannot read, given the ids and texts of clips."""


def check_source(
    path: Path,
    layout: str | None = None,
    layout_options: dict[str, Any] | None = None,
    header_count: int = 200,
    label_options: LabelOptions | None = None,
    read_texts: TextReader | None = None,
) -> Report:
    """Report what a source contains and what is wrong with it. Nothing is decoded.

    header_count: number of files to read the headers of; label_options: range of the labels and codes of missing ones;
    read_texts: reports what a text encoder cannot read in the transcripts.
    Raises UserError if the source has no clips.
    """
    require_source(path)
    layout = layout or guess_layout(path)
    label_options = label_options or LabelOptions()
    source = without_codes(read_source(path, layout, layout_options), label_options)
    scale = source_scale(source, label_options)
    clips = source.clips
    media_files, sound_files = [clip.media for clip in clips], [clip.audio for clip in clips]
    keys = {
        "files": equal_file_keys(media_files),
        "sounds": equal_file_keys(sound_files),
        "transcripts": _transcript_keys(clips),
    }
    return {
        "source": str(path),
        "layout": layout,
        "notes": source.notes + not_compared_notes(media_files, sound_files),
        "clips": len(clips),
        "splits": dict(sorted(Counter(clip.split for clip in clips).items())),
        "files": _files(clips),
        "headers": _headers(clips, header_count),
        "transcripts": _transcripts(clips, read_texts),
        "labels": _labels(source, scale),
        "outside": _outside(source, scale),
        "zero_rows": _zero_rows(clips, scale),
        "useless_labels": _useless_labels(source),
        "groups": {name: _group(clips, name) for name in source.group_names},
        "duplicates": {kind: _duplicates(clips, values) for kind, values in keys.items()},
        "leakage": _leakage(source, keys),
        "left_out": {row.row: row.reason for row in source.left_out},
        "problems": {clip.id: list(clip.problems) for clip in clips if clip.problems},
    }


def _files(clips: list[Clip]) -> Report:
    """Which files of the clips exist."""
    missing = [c.id for c in clips if not c.words_alone and (c.media is None or not file_exists(c.media))]
    paths = [(clip.id, clip.media) for clip in clips if isinstance(clip.media, Path)]
    words_alone = sum(clip.words_alone for clip in clips)
    return {
        "there": len(clips) - len(missing) - words_alone,
        "words_alone": words_alone,
        "missing": missing,
        "empty": [name for name, path in paths if file_exists(path) and path.stat().st_size == 0],
        "kinds": dict(Counter(path.suffix.lower() for _, path in paths).most_common()),
        "sound_of_its_own": sum(clip.audio is not None and file_exists(clip.audio) for clip in clips),
        "crops_of_its_own": sum(clip.crops is not None and clip.crops.is_dir() for clip in clips),
    }


def _transcripts(clips: list[Clip], read_texts: TextReader | None) -> Report:
    """The number of words, and what text encoders may not be able to read."""
    ids, texts = [clip.id for clip in clips], [clip.transcript or "" for clip in clips]
    report = inspect_transcripts(map(Words, ids, [clip.split for clip in clips], texts))
    return {
        "there": sum(bool(clip.transcript) for clip in clips),
        "words": _quantiles([len(words(clip.transcript)) for clip in clips if clip.transcript]),
        **asdict(report),
        "notes": report.notes(guess=read_texts is None) + (read_texts(ids, texts) if read_texts else []),
    }


def _transcript_keys(clips: list[Clip]) -> list[str]:
    """For each clip a key shared by clips with nearly the same words; "" for clips with few words or none."""
    groups = join_near_duplicates([clip.transcript for clip in clips])
    size = Counter(groups.find(i) for i in range(len(clips)))
    return [str(groups.find(i)) if size[groups.find(i)] > 1 else "" for i in range(len(clips))]


def _headers(clips: list[Clip], count: int) -> Report:
    """Durations and rates from the headers of `count` files."""
    # If a clip's media file does not exist, read its sound file.
    first = [next((f for f in (clip.media, clip.audio) if f and file_exists(f)), None) for clip in clips]
    paths = [file for file in first if isinstance(file, Path)]
    chosen = track(evenly_spaced(paths, count), "read headers", "files")
    headers = {path: read_header(path) for path in chosen}
    readable = [header for header in headers.values() if not header.reason]
    seconds = [header.seconds for header in readable if header.seconds is not None]
    rates = [header.frame_rate for header in readable if header.frame_rate is not None]
    sample_rates = Counter(header.sample_rate for header in readable if header.sample_rate)
    return {
        "looked_at": len(headers),
        "of": len(paths),
        "seconds": _quantiles(seconds),
        "hours": float(np.mean(seconds)) * len(paths) / 3600 if seconds else 0.0,
        "frame_rate": _quantiles(rates),
        "implausible_rates": sum(rate > IMPLAUSIBLE_RATE or rate <= 0 for rate in rates),
        "no_picture": sum(header.frame_rate is None for header in readable),
        "no_sound": sum(header.sample_rate is None for header in readable),
        "sample_rates": {str(rate): number for rate, number in sample_rates.items()},
        "unreadable": {str(path): header.reason for path, header in headers.items() if header.reason},
        "several_tracks": {str(path): header.remarks for path, header in headers.items() if header.remarks},
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Minimum, quartiles, 95th percentile and maximum; None without values."""
    if not values:
        return None
    names = ("least", "quarter", "median", "three_quarters", "p95", "most")
    return dict(zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 0.95, 1)).astype(float).tolist(), strict=True))


def _labels(source: ClipSource, scale: LabelScale) -> Report:
    """For each label: clips without it, share above the lowest value of its range, mean, histogram over its range (from
    its minimum to its maximum if it leaves the range), and splits in which no clip has it."""
    out: Report = {}
    for k, name in enumerate(source.label_names):
        values = np.array([clip.labels[k] for clip in source.clips], np.float64)
        known = values[np.isfinite(values)]
        if not len(known):
            out[name] = {"missing": len(values)}
            continue
        low, high = scale.ranges[name]
        lowest = low
        if known.min() < low or known.max() > high:
            low, high = float(known.min()), float(known.max())
        bars = np.histogram(known, BINS, (low, high if high > low else low + 1))[0]
        out[name] = {
            "missing": int(len(values) - len(known)),
            "above_zero": float((known > lowest).mean()),
            "mean": float(known.mean()),
            "range_given": list(scale.ranges[name]),
            "range": [float(known.min()), float(known.max())],
            "bins": [low, high],
            "histogram": bars.tolist(),
            "constant": bool(known.min() == known.max()),
        }
    return out


def _outside(source: ClipSource, scale: LabelScale) -> Report:
    """The message about labels outside their range, and all of them by dimension and clip; {} without any."""
    outside = outside_labels(source, scale)
    if outside is None:
        return {}
    labels_outside = {part.name: dict(zip(part.clips, part.values, strict=True)) for part in outside.dimensions}
    return {"what": str(outside), "labels": labels_outside}


def _useless_labels(source: ClipSource) -> dict[str, dict[str, str]]:
    """{split: {label: why}}: labels of train that teach nothing, and of valid and test that allow no PCC."""
    useless: dict[str, dict[str, str]] = {}
    for split, why in (("train", why_not_learned), ("valid", why_no_pcc), ("test", why_no_pcc)):
        rows = [clip.labels for clip in source.clips if clip.split == split]
        reasons = {name: why([row[k] for row in rows]) for k, name in enumerate(source.label_names)}
        if rows and any(reasons.values()):
            useless[split] = {name: reason for name, reason in reasons.items() if reason}
    return useless


def _zero_rows(clips: list[Clip], scale: LabelScale) -> dict[str, dict[str, int]]:
    """For each split: the number of rows with all labels known, and of rows with all labels zero, the lowest value of
    their range."""
    out: dict[str, dict[str, int]] = {}
    for clip in clips:
        if clip.labels and not any(math.isnan(value) for value in clip.labels):
            counts = out.setdefault(clip.split, {"rows": 0, "zero": 0})
            counts["rows"] += 1
            counts["zero"] += clip.labels == tuple(low for low, _ in scale.ranges.values())
    return dict(sorted(out.items()))


def _group(clips: list[Clip], name: str) -> Report:
    count = Counter(value for clip in clips if (value := clip.groups.get(name)))
    return {
        "values": len(count),
        "clips_each": _quantiles(list(count.values())),
        "clips_without": sum(not clip.groups.get(name) for clip in clips),
    }


def _duplicates(clips: list[Clip], keys: list[str]) -> list[list[str]]:
    """Ids of clips that share a key, largest sets first."""
    sets = _sets(clips, keys)
    ids = [[clip.id for clip in group] for group in sets]
    return sorted((names for names in ids if len(names) > 1), key=lambda names: (-len(names), names))


def _leakage(source: ClipSource, keys: dict[str, list[str]]) -> Report:
    """What is in more than one split: {what: {"sets": number, "clips": number, "examples": pairs of clips}}.

    keys: keys of duplicates, by kind; groups are compared too.
    """
    clips = source.clips
    named = {name: [clip.groups.get(name, "") for clip in clips] for name in source.group_names}
    named |= {DUPLICATES[kind]: values for kind, values in keys.items()}
    leaks = {name: _in_several_splits(clips, values) for name, values in named.items()}
    return {name: leak for name, leak in leaks.items() if leak["sets"]}


def _in_several_splits(clips: list[Clip], keys: list[str]) -> Report:
    sets = [[clip for clip in group if clip.split] for group in _sets(clips, keys)]
    leaking = [group for group in sets if len({clip.split for clip in group}) > 1]
    examples = []
    for group in leaking[:3]:
        other = next(clip for clip in group if clip.split != group[0].split)
        examples.append(f"{group[0].id} ({group[0].split}) and {other.id} ({other.split})")
    return {"sets": len(leaking), "clips": sum(map(len, leaking)), "examples": examples}


def _sets(clips: list[Clip], keys: list[str]) -> list[list[Clip]]:
    """Sets of clips that share a key; clips with the key "" are in none."""
    sets: dict[str, list[Clip]] = defaultdict(list)
    for clip, key in zip(clips, keys, strict=True):
        if key:
            sets[key].append(clip)
    return list(sets.values())
