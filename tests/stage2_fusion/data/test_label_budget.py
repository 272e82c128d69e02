"""A smaller annotation budget: which clips a model may learn from."""

import itertools

import numpy as np

from stage2_fusion.data.usable_clips import within_budget


def test_a_smaller_budget_is_part_of_a_larger_one_and_takes_whole_groups_of_labeled_clips():
    ids = [f"{i:02d}" for i in range(24)]
    groups = [{"subject": f"s{i % 6}", "seed": f"v{i // 4}"} for i in range(24)]
    labels = np.full((24, 2), 0.5)
    labels[::8] = np.nan  # three clips without any label
    labels[1, 0] = np.nan  # one dimension is enough
    kept = [within_budget(ids, groups, labels, count) for count in range(1, 21)]
    for count, rows in enumerate(kept, 1):
        assert rows.sum() == count and not np.isnan(labels[rows]).all(axis=1).any()
    assert all((more | fewer == more).all() for fewer, more in itertools.pairwise(kept))
    for rows in kept:
        whole = {s for s in range(6) if rows[s::6].sum() == (~np.isnan(labels[s::6]).all(axis=1)).sum()}
        touched = {s for s in range(6) if rows[s::6].any()}
        assert len(touched - whole) <= 1
    assert within_budget(ids, groups, labels, 0).all() and within_budget(ids, groups, labels, 21).all()
    shuffled = np.random.default_rng(0).permutation(24)
    again = within_budget([ids[i] for i in shuffled], [groups[i] for i in shuffled], labels[shuffled], 9)
    assert (again == kept[8][shuffled]).all()


def test_clips_without_groups_are_taken_one_by_one():
    kept = within_budget(["a", "b", "c"], [{}, {}, {"subject": ""}], np.ones((3, 1)), 2)
    assert kept.sum() == 2
