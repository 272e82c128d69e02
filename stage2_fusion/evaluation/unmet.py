"""Scored clips of unmet groups: people that training has not seen, reacting to videos that it has not seen.

A split by person leaves the seed videos of the test clips in training, with their words and the emotions they evoke.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import read_clips
from stage2_fusion.evaluation.known_clips import KnownClips
from stage2_fusion.evaluation.results import Evaluation, Unmet
from stage2_fusion.evaluation.unknown_training import known_to_encoders


def find_unmet(
    kinds: Sequence[str], scored: Iterable[Mapping[str, str]], met: Iterable[Mapping[str, str]]
) -> Unmet | None:
    """Which of the scored clips share no group of any kind with the clips that trained or selected a system.

    kinds: the kinds of groups; scored, met: the groups of each clip, kind to name, "" = unknown. A scored clip of
    unknown group does not count as unmet. None if nothing is known: without kinds, or with a seen clip of unknown
    group.
    """
    names = [dict(clip) for clip in met]
    of_kind = {kind: {clip.get(kind, "") for clip in names} for kind in kinds}
    if not of_kind or any("" in groups for groups in of_kind.values()):
        return None
    rows = [all(clip.get(kind) and clip[kind] not in groups for kind, groups in of_kind.items()) for clip in scored]
    return Unmet(list(kinds), rows)


def unmet_in_features(features: Path, info: FeatureInfo, ids: Sequence[str], known: KnownClips) -> Unmet | None:
    """`find_unmet` for the clips `ids` of a feature dataset, its encoders and a model that has seen `known`. None also
    if it is unknown what trained them, or if clips of other datasets did, since their groups are unknown."""
    encoders = known_to_encoders(features, info)
    if known.unknown or not known.whole or encoders.unknown:
        return None
    groups = {clip.id: clip.groups for clip in read_clips(features)}
    met = {*known.trained, *known.chosen, *encoders.seen, *encoders.chosen}
    if met - groups.keys():
        return None
    return find_unmet(info.group_names, (groups[name] for name in ids), (groups[name] for name in met))


def common_unmet(evaluations: Sequence[Evaluation]) -> Unmet | None:
    """The clips that are unmet for all of several systems scored on the same clips; None if unknown for one of them."""
    known = _known(evaluations)
    rows = [all(rows) for rows in zip(*(each.rows for each in known), strict=True)]
    return Unmet(known[0].kinds, rows) if known else None


def merged_unmet(evaluations: Sequence[Evaluation]) -> Unmet | None:
    """The same for the concatenated clips of all evaluations, each judged for its own system."""
    known = _known(evaluations)
    return Unmet(known[0].kinds, [row for each in known for row in each.rows]) if known else None


def _known(evaluations: Sequence[Evaluation]) -> list[Unmet]:
    """The `unmet` of all evaluations; empty if one is unknown, or their kinds differ."""
    known = [each.unmet for each in evaluations if each.unmet is not None]
    same = len(known) == len(evaluations) and all(each.kinds == known[0].kinds for each in known)
    return known if same else []
