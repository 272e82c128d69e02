"""Which clips two sets share: the same clips, whatever their ids.

Ids tell within one clip dataset. Between two, equal ids may be of other clips and a copy may have another id, so that
content tells: an equal fingerprint (shared/dataset/training_clips.py).
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import ClipLabels, FeatureSample
from stage2_fusion.evaluation.results import Evaluation


class ClipSet(NamedTuple):
    """What tells clips apart."""

    ids: Sequence[str]
    fingerprints: np.ndarray | None = None
    """uint64 (N, 3), 0 = none; None where nothing holds them."""
    data: str = ""
    """Digest of the clip dataset; "" where it is not known."""
    read: str = ""
    """Digest of the feature dataset, which evaluations of earlier versions say in place of `data`."""

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
        """Whether both are known to be of one clip dataset."""
        return bool(self.data and self.data == other.data) or bool(self.read and self.read == other.read)


def shared_clips(a: ClipSet, b: ClipSet) -> dict[str, str] | None:
    """{id in a: id in b} of the clips that both hold; None if that is not known: they are not of one clip dataset, or
    not known to be, and one of them has no fingerprints."""
    by_id, compared = a.is_of(b), all(each.fingerprints is not None and each.fingerprints.any() for each in (a, b))
    if not by_id and not compared:
        return None
    name_of: dict[int | str, str] = {name: name for name in b.ids} if by_id else {}
    for name, keys in zip(b.ids, _keys(b), strict=True):
        name_of |= dict.fromkeys(keys, name)
    found = {name: [key for key in (name, *keys) if key in name_of] for name, keys in zip(a.ids, _keys(a), strict=True)}
    return {name: name_of[keys[0]] for name, keys in found.items() if keys}


def _keys(clips: ClipSet) -> list[list[int]]:
    """The fingerprints of each clip that it has."""
    rows = [[]] * len(clips.ids) if clips.fingerprints is None else clips.fingerprints.tolist()
    return [list(filter(None, row)) for row in rows]
