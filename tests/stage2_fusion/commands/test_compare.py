"""Paired differences and pooled folds against slow loops; what does not compare is refused."""

import json

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.commands.compare import compare, main
from stage2_fusion.commands.evidence_config import CompareConfig, PoolConfig
from stage2_fusion.commands.merge_folds import main as pool_main
from stage2_fusion.commands.merge_folds import pool
from stage2_fusion.evaluation import results as evaluation

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 3))
LABELS[RNG.random(LABELS.shape) < 0.1] = np.nan
LABELS[:, 2] = np.nan
GOOD = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.3, LABELS.shape)
POOR = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.9, LABELS.shape)


def test_the_difference_equals_a_slow_loop(tmp_path):
    a, b = write_evaluation(tmp_path / "a.json", GOOD, LABELS), write_evaluation(tmp_path / "b.json", POOR, LABELS)
    found = compare(CompareConfig(a, b, tmp_path / "d.json", bootstrap=60, seed=3))
    assert json.loads((tmp_path / "d.json").read_text()) == found
    each = [[pcc(x[:, k], LABELS[:, k]) for k in range(2)] for x in (GOOD, POOR)]
    assert found["per_dimension"]["d2"] is None  # not labelled
    assert found["mean"]["difference"] == pytest.approx(np.mean(each[0]) - np.mean(each[1]), abs=1e-5)
    assert found["per_dimension"]["d1"]["difference"] == pytest.approx(each[0][1] - each[1][1], abs=1e-5)
    groups, differences = np.arange(40) % 5, []
    for counts in np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=60):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(5) for _ in range(counts[g])])
        one = [np.mean([pcc(x[rows, k], LABELS[rows, k]) for k in range(2)]) for x in (GOOD, POOR)]
        differences.append(one[0] - one[1])
    np.testing.assert_allclose(found["mean"]["interval"], np.percentile(differences, [2.5, 97.5]), atol=1e-5)
    assert found["mean"]["a_ahead"] == np.mean(np.array(differences) > 0) > 0.9


def test_a_system_is_as_good_as_itself_and_order_of_rows_is_nothing(tmp_path, capsys):
    a, turn = write_evaluation(tmp_path / "a.json", GOOD, LABELS), np.arange(40)[::-1]
    ids, groups = [f"c{i:03d}" for i in turn], [f"s{i % 5}" for i in turn]
    b = write_evaluation(tmp_path / "b.json", GOOD[turn], LABELS[turn], ids, groups)
    found = compare(CompareConfig(a, b, bootstrap=20))
    assert found["mean"]["interval"] == [0, 0] and found["mean"]["a_ahead"] == 0.5
    assert main([str(a), str(b), "--bootstrap", "20"]) == 0
    assert "not labelled" in capsys.readouterr().out


def test_other_clips_labels_and_groups_are_refused(tmp_path):
    a = write_evaluation(tmp_path / "a.json", GOOD, LABELS)

    def refused(match, *args, **about):
        with pytest.raises(UserError, match=match):
            compare(CompareConfig(a, write_evaluation(tmp_path / "b.json", *args, **about)))

    refused("different clips; 39 of 40 and 39 are shared", GOOD[:39], LABELS[:39])
    changed = LABELS.copy()
    changed[0, 0] = 0.123
    refused("different labels", GOOD, changed)
    refused("different groups", GOOD, LABELS, groups=["s0"] * 40)
    refused("dimensions d0, d1, but", GOOD[:, :2], LABELS[:, :2])


def test_what_was_written_comes_back_and_a_changed_table_is_noticed(tmp_path):
    a = write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    found = evaluation.read(a)
    np.testing.assert_array_equal(found.labels, LABELS.astype(np.float32))
    np.testing.assert_allclose(found.predictions, GOOD, atol=1e-6)
    table = tmp_path / "a_labels.csv"
    text = table.read_text()
    table.write_text(text.replace(text.splitlines()[1].split(",")[2], "0.77"))
    with pytest.raises(UserError, match=r"a\.json: the tables beside it are of other clips or labels"):
        evaluation.read(a)
    write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    write_evaluation(tmp_path / "b.json", POOR, LABELS)
    (tmp_path / "b_predictions.csv").replace(tmp_path / "a_predictions.csv")  # of another run, of the same clips
    with pytest.raises(UserError, match=r"a\.json: the predictions beside it are not those it scores"):
        evaluation.read(a)
    table.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        evaluation.read(a)
    a.write_text("{}")
    with pytest.raises(UserError, match="not an evaluation"):
        evaluation.read(a)


def test_folds_are_scored_as_one(tmp_path, capsys):
    ids, groups = np.array([f"c{i:03d}" for i in range(40)]), np.array([f"s{i % 5}" for i in range(40)])
    parts = []
    for i, rows in enumerate((groups < "s2", groups >= "s2")):
        about = {"seen": {"in_training": i, "in_choosing": 2}, "seeds": {"training": 7}, "seen_by_encoders": 2 + i}
        parts.append(
            write_evaluation(tmp_path / f"{i}.json", GOOD[rows], LABELS[rows], ids[rows], groups[rows], **about)
        )
    found = pool(PoolConfig(parts, tmp_path / "all.json", bootstrap=30))
    whole = evaluation.read(write_evaluation(tmp_path / "whole.json", GOOD, LABELS)).metrics
    assert found["pcc"]["mean"] == pytest.approx(whole["pcc"]["mean"], abs=1e-5)
    assert found["clips"] == whole["clips"] and found["seen"] == {"in_training": 1, "in_choosing": 4}
    assert found["seeds"]["training"] == [7] and found["seen_by_encoders"] == 5
    assert [part["n"] for part in found["parts"]] == [16, 24]
    compare(CompareConfig(tmp_path / "all.json", tmp_path / "whole.json", bootstrap=5))  # of the same clips
    assert pool_main([*map(str, parts), "--out", str(tmp_path / "again.json"), "--bootstrap", "5"]) == 0
    each = [evaluation.read(part).metrics["pcc"]["mean"] for part in parts]
    assert f"of the 2 parts alone: {np.mean(each):.3f}" in capsys.readouterr().out
    with pytest.raises(UserError, match="both score clip 'c000'"):
        pool(PoolConfig([parts[0], tmp_path / "whole.json"], tmp_path / "x.json"))
    other = write_evaluation(tmp_path / "o.json", GOOD, LABELS, ids=[f"o{i}" for i in range(40)], model="another")
    with pytest.raises(UserError, match="model another, but that of"):
        pool(PoolConfig([parts[0], other], tmp_path / "x.json"))
    about = {"ids": [f"o{i}" for i in range(40)], "seeds": {"training": 9}}
    wider = write_evaluation(tmp_path / "w.json", GOOD, LABELS, configuration={"width": 8}, **about)
    with pytest.raises(UserError, match=r"configuration \{'width': 8\}, but that of"):
        pool(PoolConfig([parts[0], wider], tmp_path / "x.json"))
    more = write_evaluation(tmp_path / "m.json", GOOD, LABELS, **about)
    assert pool(PoolConfig([tmp_path / "all.json", more], tmp_path / "x.json"))["seeds"]["training"] == [7, 9]
