"""Bootstrap samples of the mean PCC of several evaluations together: seeds on the same clips, or on clips of their
own."""

import itertools

import numpy as np

from stage2_fusion.evaluation.results import Evaluation


def joint_draws(parts: list[Evaluation], resamples: int, seed: int) -> np.ndarray | None:
    """Mean PCC over dimensions and evaluations in each bootstrap sample: float64 (resamples,).

    Evaluations of the same clips see the same sample of their groups, those of other clips an independent one (Davison
    and Hinkley 1997, section 3.2: several samples). Samples are a function of seed and clips alone, so that the
    difference of two systems on the same clips is a paired one. None where clips are shared only in part: then neither
    holds. That other clips are also of other people is for the caller to know: two corpora may name theirs alike.
    """
    from shared.metrics import bootstrap_pcc, mean_over_dimensions
    from shared.training.sampling import derive_seed

    sets = clip_sets(parts)
    if sets is None:
        return None
    draws = []
    for key, same in sets.items():
        known = ~np.isnan(same[0].labels).all(axis=0)  # (K,)
        labels, groups = same[0].labels[:, known], np.array(same[0].groups)
        own = seed if len(sets) == 1 else derive_seed("clips", seed, *key)
        drawn = [bootstrap_pcc(p.predictions[:, known], labels, groups, resamples, own) for p in same]  # (R, K) each
        draws += map(mean_over_dimensions, drawn)
    return np.mean(draws, axis=0)


def clip_sets(parts: list[Evaluation]) -> dict[tuple[str, ...], list[Evaluation]] | None:
    """The evaluations by their clips, labels and groups; None where two sets overlap without being the same."""
    sets: dict[tuple[str, ...], list[Evaluation]] = {}
    for part in parts:
        key = tuple(part.metrics["clips"][name] for name in ("digest", "labels_digest", "groups_digest"))
        sets.setdefault(key, []).append(part)
    for one, other in itertools.combinations(sets.values(), 2):
        if _overlap(one[0], other[0]):
            return None
    return sets


def _overlap(a: Evaluation, b: Evaluation) -> bool:
    """Whether they share clips. Two corpora may name their clips alike, and rows of zeros are alike by chance: most of
    the common names have to have equal labels."""
    place = {name: row for row, name in enumerate(b.ids)}
    common = [(row, place[name]) for row, name in enumerate(a.ids) if name in place]
    equal = [np.array_equal(a.labels[i], b.labels[j], equal_nan=True) for i, j in common]
    return sum(equal) * 2 > len(equal)
