"""Ridge regression on pooled features: the solution, what a missing modality becomes, and the evaluation it writes."""

import numpy as np
import pytest
from helpers import synthetic_features

from shared.ridge import ridge_predict
from stage2_fusion.commands.baseline import main, pooled, standardised
from stage2_fusion.evaluation import results as evaluation


@pytest.mark.parametrize("width", [3, 30])
def test_ridge_is_the_minimum(width):
    rng = np.random.default_rng(0)
    x, y, new = rng.random((12, width)), rng.random((12, 3)), rng.random((5, width))
    y[2, 1], y[:, 2] = np.nan, np.nan
    found = ridge_predict(x, y, new, 0.7)
    for k, rows in ((0, np.arange(12)), (1, np.delete(np.arange(12), 2))):
        # the offset as a last column that costs nothing
        design = np.column_stack([x[rows], np.ones(len(rows))])
        cost = 0.7 * np.diag([*np.ones(width), 0])
        weights = np.linalg.solve(design.T @ design + cost, design.T @ y[rows, k])
        np.testing.assert_allclose(found[:, k], np.column_stack([new, np.ones(5)]) @ weights)
    assert not found[:, 2].any()


def test_pooling_by_hand_and_missing_modalities_stand_at_the_mean():
    rng = np.random.default_rng(0)
    there, also, absent = (
        synthetic_features.sample(rng),
        synthetic_features.sample(rng),
        synthetic_features.sample(rng, missing=("text",)),
    )
    rows = pooled([there, also, absent], ["text"])
    sequence = there["text"]["sequence"].astype(float)
    np.testing.assert_allclose(rows[0], [*sequence.mean(0), *sequence.std(0), *there["text"]["pooled"], 1])
    assert np.isnan(rows[2, :-1]).all() and rows[2, -1] == 0
    x, y = standardised([rows, rows[2:]])
    np.testing.assert_allclose(x[:2].mean(axis=0)[:-1], 0, atol=1e-9)
    assert not x[2, :-1].any() and (y == x[2:]).all()
    assert x[2, -1] < 0 < x[0, -1]  # that it is missing may say something


def test_it_learns_and_writes_an_evaluation(tmp_path, capsys):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 96, "valid": 40, "test": 40})
    scores = {}
    for modalities in ("[vision]", "[vision, audio, text]"):
        out = tmp_path / f"{len(modalities)}.json"
        assert main(["--data", str(data), "--out", str(out), "--modalities", modalities, "--bootstrap", "20"]) == 0
        found = evaluation.read(out)
        scores[modalities] = found.metrics["pcc"]["mean"]
        assert found.metrics["model"] == "ridge" and found.metrics["seen"] == {"in_training": 0, "in_choosing": 0}
        assert len(found.ids) == 40 and (found.predictions >= 0).all() and (found.predictions <= 1).all()
    assert scores["[vision, audio, text]"] > scores["[vision]"] > 0.4
    assert main(["--data", str(data), "--out", str(tmp_path / "v.json"), "--split", "valid", "--bootstrap", "0"]) == 0
    assert "chosen by 40" in capsys.readouterr().out
