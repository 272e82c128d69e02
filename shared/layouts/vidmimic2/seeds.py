"""Which clips of Hume-Vidmimic2 imitate the same seed video, as far as labels and words tell.

Labels are shares of raters, k / N. Clips were rated by a few people each, seed videos by a hundred or more, and many
clips carry the labels of their seed video: the same vector, in train and in valid, with a large N. Models that know
seed videos by heart score on those clips what they would not score on others.
"""

import math

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.near_duplicates import UnionFind, join_near_duplicates
from shared.files import digest
from shared.text import words

MOST_RATERS = 30
"""Above so many raters a label vector is that of a seed video."""
LARGEST = 150
"""Most raters looked for: fractions of more lie closer to each other than rounded labels do to the truth."""
TOLERANCE = 0.005


def common_denominator(labels: tuple[float, ...]) -> int | None:
    """The smallest N of which all labels are multiples of 1 / N; None when there is none up to LARGEST."""
    values = np.array(labels)
    if not len(values) or not np.isfinite(values).all():
        return None
    counts = values[None] * np.arange(1, LARGEST + 1)[:, None]  # (LARGEST, K)
    fits = np.abs(counts - np.round(counts)).max(axis=1) < TOLERANCE
    return int(np.argmax(fits)) + 1 if fits.any() else None


def seed_names(clips: list[Clip]) -> list[str]:
    """The name of each clip's seed video, "" where nothing tells. A name is a function of what its clips share."""
    groups, names, first = UnionFind(len(clips)), {}, {}
    for i, clip in enumerate(clips):
        if (common_denominator(clip.labels) or 0) > MOST_RATERS:
            key = tuple(round(value, 5) for value in clip.labels)
            names[i] = digest(key)[:8]
            groups.join(i, first.setdefault(key, i))
    join_near_duplicates([clip.transcript for clip in clips], groups)
    members: dict[int, list[int]] = {}
    for i in range(len(clips)):
        members.setdefault(groups.find(i), []).append(i)
    out = [""] * len(clips)
    for some in members.values():
        known = [names[i] for i in some if i in names]
        if not known and len(some) > 1:
            known = [digest(words(clips[i].transcript))[:8] for i in some]
        for i in some:
            out[i] = f"seed-{min(known)}" if known else ""
    return out


def zero_rows(clips: list[Clip]) -> int:
    """How many clips have labels, all of them 0."""
    return sum(bool(clip.labels) and all(value == 0 for value in clip.labels) for clip in clips)


def unlabelled(clips: list[Clip]) -> int:
    """How many clips lack a label."""
    return sum(any(math.isnan(value) for value in clip.labels) for clip in clips)
