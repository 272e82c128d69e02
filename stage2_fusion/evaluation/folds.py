"""The folds of a cross-validation as one evaluation."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.errors import UserError
from stage2_fusion.evaluation.results import (
    Evaluation,
    EvaluationInfo,
    FoldPart,
    combine_seen,
    combine_unknown,
    score_predictions,
)
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.evaluation.unmet import merged_unmet


def merge_evaluations(parts: list[Evaluation], resamples: int, seed: int) -> Evaluation:
    """Score the clips of all parts together; "parts" of the result holds the score of each part alone. UserError when
    two parts share a clip, or differ in model, configuration or kind of group."""
    _check_mergeable(parts)
    infos = [part.info for part in parts]
    seen, seen_by_encoders = combine_seen(infos, sum)
    info = EvaluationInfo(
        split="+".join(dict.fromkeys(info.split or "all" for info in infos)),
        group=infos[0].group,
        model=infos[0].model,
        configuration=infos[0].configuration,
        made_from={"pooled": [str(part.path) for part in parts]},
        training_seed=_training_seeds(infos),
        seen=seen,
        seen_by_encoders=seen_by_encoders,
        unknown_training=combine_unknown(infos),
        data=infos[0].data if len({info.data for info in infos}) == 1 else "",
        label_ranges=infos[0].label_ranges,
        parts=[FoldPart(str(part.path), len(part.ids), part.mean_pcc, part.info.made_from) for part in parts],
        sections={"training": _common_training([info.sections.get("training") for info in infos])},
    )
    kinds = {part.info.crossed_group for part in parts}
    crossed = None
    if len(kinds) == 1 and None not in kinds:
        info.crossed_group = infos[0].crossed_group
        crossed = [name for part in parts for name in part.crossed or ()]
    prints = [part.fingerprints for part in parts if part.fingerprints is not None]  # (N, 3) each
    return score_predictions(
        info,
        parts[0].names,
        [name for part in parts for name in part.ids],
        [group for part in parts for group in part.groups],
        np.concatenate([part.predictions for part in parts]),
        np.concatenate([part.labels for part in parts]),
        resamples,
        seed,
        crossed,
        merged_unmet(parts),
        np.concatenate(prints) if len(prints) == len(parts) else None,
    )


def check_disjoint_folds(folds: Sequence[tuple[Path | None, ClipSet]]) -> None:
    """UserError when two folds, each with its path, share a clip, or hold most of each other's clips under other ids. A
    few such clips are duplicates within a dataset, each scored once."""
    for (path, clips), (other_path, others) in itertools.combinations(folds, 2):
        shared = shared_clips(others, clips)
        if common := set(clips.ids) & set(others.ids):
            name = min(common)
            if shared is not None and name not in shared:
                raise UserError(
                    f"{other_path} and {path}: score different clips called {name!r}; give folds of one dataset"
                )
            raise UserError(f"{other_path} and {path}: both score clip {name!r}; give disjoint folds")
        if shared and 2 * len(shared) > min(len(clips.ids), len(others.ids)):
            name, there = min(shared.items())
            raise UserError(
                f"{other_path} and {path}: {len(shared)} clips of one are in the other under another id, such as "
                f"{name!r} ({there!r} there); give disjoint folds"
            )


def _check_mergeable(parts: list[Evaluation]) -> None:
    check_disjoint_folds([(part.path, ClipSet.scored(part)) for part in parts])
    first = parts[0]
    for part in parts:
        for what, value, expected in (
            ("model", part.info.model, first.info.model),
            ("configuration", part.info.configuration, first.info.configuration),
            ("kind of group", part.info.group, first.info.group),
        ):
            if value != expected:
                raise UserError(f"{part.path}: {what} {value}, but that of {first.path} is {expected}")


def _common_training(parts: list[dict | None]) -> dict | None:
    """How all parts were trained, with their total seconds; None if they were trained differently or one does not
    say."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or any({**part, "seconds": None} != {**known[0], "seconds": None} for part in known):
        return None
    seconds = [part["seconds"] for part in known]
    return {**known[0], "seconds": None if None in seconds else round(sum(seconds), 1)}


def _training_seeds(infos: list[EvaluationInfo]) -> list[int] | None:
    """All training seeds of the parts, which may be merged evaluations themselves; None if none is known."""
    seeds = [info.training_seed for info in infos if info.training_seed is not None]
    return sorted({seed for part in seeds for seed in (part if isinstance(part, list) else [part])}) or None
