"""Which clips two sets share, whatever their ids.

Ids identify clips within one clip dataset. Between two, different clips may have equal ids and a copy another id, so
clips are compared by content, with fingerprints (shared/dataset/training_clips.py).
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import ClipLabels, FeatureSample
from stage2_fusion.evaluation.results import Evaluation


class ClipSet(NamedTuple):
    """The identity of clips."""

    ids: Sequence[str]
    fingerprints: np.ndarray | None = None
    """uint64 (N, 3), 0 = none; None if they are not stored."""
    data: str = ""
    """Digest of the clip dataset; "" if unknown."""
    read: str = ""
    """Digest of the feature dataset, which evaluations of earlier versions have in place of `data`."""

    @classmethod
    def scored(cls, evaluation: Evaluation) -> Self:
        """The clips of an evaluation."""
        made_from = evaluation.info.made_from
        data = evaluation.info.data or made_from.get("clips") or ""
        return cls(evaluation.ids, evaluation.fingerprints, data, made_from.get("features") or "")

    @classmethod
    def encoded(cls, clips: Sequence[ClipLabels] | Sequence[FeatureSample], info: FeatureInfo) -> Self:
        """Clips of a feature dataset, with `info`, its features.json."""
        prints = np.array([clip.fingerprints for clip in clips], np.uint64).reshape(-1, 3)  # (N, 3)
        return cls([clip.id for clip in clips], prints, info.data.digest, info.digest)

    def is_of(self, other: "ClipSet") -> bool:
        """Whether both are known to belong to one clip dataset."""
        return bool(self.data and self.data == other.data) or bool(self.read and self.read == other.read)


def shared_clips(a: ClipSet, b: ClipSet) -> dict[str, str] | None:
    """{id in a: id in b} of the clips in both; None if unknown: they are not known to belong to one clip dataset, and
    one of them has no fingerprints."""
    by_id, compared = a.is_of(b), all(each.fingerprints is not None and each.fingerprints.any() for each in (a, b))
    if not by_id and not compared:
        return None
    name_of: dict[int | str, str] = {name: name for name in b.ids} if by_id else {}
    for name, keys in zip(b.ids, _keys(b), strict=True):
        name_of |= dict.fromkeys(keys, name)
    found = {name: [key for key in (name, *keys) if key in name_of] for name, keys in zip(a.ids, _keys(a), strict=True)}
    return {name: name_of[keys[0]] for name, keys in found.items() if keys}


def _keys(clips: ClipSet) -> list[list[int]]:
    """The nonzero fingerprints of each clip."""
    rows = [[]] * len(clips.ids) if clips.fingerprints is None else clips.fingerprints.tolist()
    return [list(filter(None, row)) for row in rows]
