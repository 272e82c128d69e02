"""`emit compare`: paired differences against a slow loop; evaluations that do not compare are refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.commands.compare import CompareConfig, compare, main

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 3))
LABELS[RNG.random(LABELS.shape) < 0.1] = np.nan
LABELS[:, 2] = np.nan
GOOD = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.3, LABELS.shape)
POOR = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.9, LABELS.shape)


def test_difference_equals_slow_loop(tmp_path):
    a, b = write_evaluation(tmp_path / "a.json", GOOD, LABELS), write_evaluation(tmp_path / "b.json", POOR, LABELS)
    comparison = compare(CompareConfig(a, b, tmp_path / "d.json", bootstrap=60, seed=3))
    assert json.loads((tmp_path / "d.json").read_text()) == asdict(comparison)
    each = [[pcc(x[:, k], LABELS[:, k]) for k in range(2)] for x in (GOOD, POOR)]
    assert comparison.per_dimension["d2"] is None  # not labeled
    assert comparison.mean.difference == pytest.approx(np.mean(each[0]) - np.mean(each[1]), abs=1e-5)
    assert comparison.per_dimension["d1"].difference == pytest.approx(each[0][1] - each[1][1], abs=1e-5)
    groups, differences = np.arange(40) % 5, []
    for counts in np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=60):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(5) for _ in range(counts[g])])
        means = [np.mean([pcc(x[rows, k], LABELS[rows, k]) for k in range(2)]) for x in (GOOD, POOR)]
        differences.append(means[0] - means[1])
    np.testing.assert_allclose(comparison.mean.interval, np.percentile(differences, [2.5, 97.5]), atol=1e-5)
    assert comparison.mean.a_ahead == np.mean(np.array(differences) > 0) > 0.9


def test_row_order_does_not_matter(tmp_path, capsys):
    a, reversed_rows = write_evaluation(tmp_path / "a.json", GOOD, LABELS), np.arange(40)[::-1]
    ids, groups = [f"c{i:03d}" for i in reversed_rows], [f"s{i % 5}" for i in reversed_rows]
    b = write_evaluation(tmp_path / "b.json", GOOD[reversed_rows], LABELS[reversed_rows], ids, groups, training_seed=1)
    comparison = compare(CompareConfig(a, b, bootstrap=20))
    assert comparison.mean.interval == [0, 0] and comparison.mean.a_ahead == 0.5
    assert main([str(a), str(b), "--bootstrap", "20"]) == 0
    assert "n/a: not labeled" in capsys.readouterr().out


def test_other_clips_labels_and_groups_are_refused(tmp_path):
    a = write_evaluation(tmp_path / "a.json", GOOD, LABELS)

    def refused(match, *args, **info):
        with pytest.raises(UserError, match=match):
            compare(CompareConfig(a, write_evaluation(tmp_path / "b.json", *args, **info)))

    refused("different clips; 39 of 40 and 39 are shared", GOOD[:39], LABELS[:39])
    changed = LABELS.copy()
    changed[0, 0] = 0.123
    refused("different labels", GOOD, changed)
    refused("different groups", GOOD, LABELS, groups=["s0"] * 40)
    refused("dimensions d0, d1, but", GOOD[:, :2], LABELS[:, :2])
