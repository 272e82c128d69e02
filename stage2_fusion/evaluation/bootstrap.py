"""Bootstrap samples of the mean PCC over several evaluations: on the same clips (seeds) or on different ones
(folds)."""

import itertools

import numpy as np

from shared.metrics import bootstrap_pcc, mean_over_dimensions, scorable
from shared.training.sampling import derive_seed
from stage2_fusion.evaluation.results import ClipDigests, Evaluation
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips


def joint_draws(evaluations: list[Evaluation], resamples: int, seed: int, crossed: bool = False) -> np.ndarray | None:
    """Mean PCC over dimensions and evaluations in each bootstrap sample: float64 (resamples,).

    Evaluations of the same clips share the samples of their groups; evaluations of different clips have independent
    samples (Davison and Hinkley 1997, section 3.2: several samples). Samples depend only on seed and clips, so the
    difference of two systems on the same clips is paired. None when evaluations share only some of their clips, or all
    clips of one evaluation are of one group.

    crossed: over two kinds of groups at once; None if an evaluation has no second kind.

    The caller must know whether disjoint clips also show different people, because two corpora may use the same names.
    """
    clip_sets = group_by_clips(evaluations)
    if clip_sets is None:
        return None
    if crossed and any(evaluation.crossed is None for evaluation in evaluations):
        return None
    draws = []
    for digests, same in clip_sets.items():
        known = scorable(same[0].labels)
        labels, groups = same[0].labels[:, known], np.array(same[0].groups)
        others = np.array(same[0].crossed) if crossed else None  # (N,)
        set_seed = seed if len(clip_sets) == 1 else derive_seed("clips", seed, *digests)
        for evaluation in same:
            drawn = bootstrap_pcc(
                evaluation.predictions[:, known], labels, groups, resamples, set_seed, others
            )  # (R, K')
            draws.append(mean_over_dimensions(drawn))
    if not all(map(len, draws)):
        return None
    return np.mean(draws, axis=0)


def group_by_clips(evaluations: list[Evaluation]) -> dict[ClipDigests, list[Evaluation]] | None:
    """The evaluations by the clips, labels and groups that they score; None when two such sets share some clips."""
    clip_sets: dict[ClipDigests, list[Evaluation]] = {}
    for evaluation in evaluations:
        clip_sets.setdefault(evaluation.digests, []).append(evaluation)
    for a, b in itertools.combinations(clip_sets.values(), 2):
        if _share_clips(a[0], b[0]):
            return None
    return clip_sets


def _share_clips(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations share clips, by content; if that is unknown, whether most common names have equal labels.
    Names alone do not tell: two corpora may use the same ones, and rows of zeros are equal by chance."""
    if (shared := shared_clips(ClipSet.scored(a), ClipSet.scored(b))) is not None:
        return bool(shared)
    row_of = {name: row for row, name in enumerate(b.ids)}
    common = [(row, row_of[name]) for row, name in enumerate(a.ids) if name in row_of]
    equal = [np.array_equal(a.labels[i], b.labels[j], equal_nan=True) for i, j in common]
    return sum(equal) * 2 > len(equal)
