"""Which clips of Hume-Vidmimic2 imitate the same seed video, inferred from labels and words.

Labels are shares of raters, k / N. A few people rated each clip, and a hundred or more rated each seed video. Many
clips carry the labels of their seed video: the same vector with a large N, in train and in valid. A model that has
memorized seed videos scores higher on these clips than on others.
"""

import math

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.near_duplicates import UnionFind, join_near_duplicates
from shared.files import digest
from shared.text import words

MAX_CLIP_RATERS = 30
"""A label vector with more raters belongs to a seed video."""
MAX_RATERS = 150
"""Largest number of raters to try: with a larger N, fractions differ by less than the rounding error."""
TOLERANCE = 0.005


def common_denominator(labels: tuple[float, ...]) -> int | None:
    """The smallest N such that all labels are multiples of 1 / N; None if there is none up to MAX_RATERS."""
    values = np.array(labels)
    if not len(values) or not np.isfinite(values).all():
        return None
    counts = values[None] * np.arange(1, MAX_RATERS + 1)[:, None]  # (MAX_RATERS, K)
    fits = np.abs(counts - np.round(counts)).max(axis=1) < TOLERANCE  # (MAX_RATERS,)
    return int(np.argmax(fits)) + 1 if fits.any() else None


def seed_names(clips: list[Clip]) -> list[str]:
    """The name of each clip's seed video, "" if unknown. The name is a function of what its clips share."""
    groups = UnionFind(len(clips))
    label_names: dict[int, str] = {}
    first_row: dict[tuple[float, ...], int] = {}
    for row, clip in enumerate(clips):
        if (common_denominator(clip.labels) or 0) > MAX_CLIP_RATERS:
            key = tuple(round(value, 5) for value in clip.labels)
            label_names[row] = digest(key)[:8]
            groups.join(row, first_row.setdefault(key, row))
    join_near_duplicates([clip.transcript for clip in clips], groups)
    members: dict[int, list[int]] = {}
    for row in range(len(clips)):
        members.setdefault(groups.find(row), []).append(row)
    names = [""] * len(clips)
    for rows in members.values():
        candidates = [label_names[row] for row in rows if row in label_names]
        if not candidates and len(rows) > 1:
            candidates = [digest(words(clips[row].transcript))[:8] for row in rows]
        for row in rows:
            names[row] = f"seed-{min(candidates)}" if candidates else ""
    return names


def count_zero_rows(clips: list[Clip]) -> int:
    """How many clips have labels that are all 0."""
    return sum(bool(clip.labels) and all(value == 0 for value in clip.labels) for clip in clips)


def count_unlabeled(clips: list[Clip]) -> int:
    """How many clips lack a label."""
    return sum(any(math.isnan(value) for value in clip.labels) for clip in clips)
