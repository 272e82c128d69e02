"""Labels on a scale of their own: everything that a person reads is on it, and no correlation depends on it."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_features import config

from shared.errors import UserError
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.data.features import FeatureDataset, write
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.train import train

RANGES = {"d0": [0.0, 100.0], "d1": [-1.0, 1.0]}
WIDTHS = np.array([100, 2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The same features and model twice: labels in [0, 1] ("one"), and fractions of RANGES ("own")."""
    folder = tmp_path_factory.mktemp("units")
    counts = {"train": 48, "valid": 20, "test": 20}
    for name, ranges in (("one", None), ("own", RANGES)):
        write(folder / name, synthetic_features.samples(counts), synthetic_features.info(label_ranges=ranges))
        model = train(config(folder / name, folder / f"run_{name}", "--model", "concat", "--train.epochs", 2))
        evaluate(EvaluateConfig(model, folder / name, out=folder / f"{name}.json", bootstrap=20))
        baseline(BaselineConfig(folder / name, folder / f"ridge_{name}.json", bootstrap=20))
    return folder


def to_units(fractions: np.ndarray) -> np.ndarray:
    return fractions * WIDTHS + [0, -1]


@pytest.mark.parametrize("name", ["", "ridge_"])
def test_predictions_labels_and_mae_are_in_units_and_correlations_unchanged(folder, name):
    one, own = read_evaluation(folder / f"{name}one.json"), read_evaluation(folder / f"{name}own.json")
    np.testing.assert_allclose(own.predictions, to_units(one.predictions), atol=1e-4)
    np.testing.assert_allclose(own.labels, to_units(one.labels), atol=1e-5)
    assert 20 < own.predictions[:, 0].mean() < 80 and own.predictions[:, 1].min() < 0
    for measure in ("pcc", "ccc", "pcc_nonzero"):
        ours, theirs = (getattr(e.scores, measure).per_dimension for e in (own, one))
        assert ours == pytest.approx(theirs, abs=1e-6)
    mae = one.scores.mae.per_dimension
    assert own.scores.mae.per_dimension == pytest.approx({"d0": 100 * mae["d0"], "d1": 2 * mae["d1"]}, rel=1e-4)
    assert own.scores.pcc.interval == pytest.approx(one.scores.pcc.interval, abs=1e-6)
    assert own.info.label_ranges == RANGES and one.info.label_ranges is None


def test_above_zero_means_above_the_lowest_value_of_the_range(tmp_path):
    rows = synthetic_features.samples({"train": 8, "valid": 4, "test": 12}, zeros=0.5)
    write(tmp_path / "f", rows, synthetic_features.info(label_ranges=RANGES))
    evaluation = baseline(BaselineConfig(tmp_path / "f", tmp_path / "o.json", bootstrap=0))
    expected = sum(bool(row.labels.any()) for row in rows if row.split == "test" and row.view == 0)
    assert 3 <= expected < 12 and evaluation.scores.pcc_nonzero.n == expected


def test_ensembles_and_folds_keep_the_units(folder, tmp_path):
    paths = [folder / "own.json", folder / "ridge_own.json"]
    members = [read_evaluation(path) for path in paths]
    average = ensemble(EnsembleConfig(paths, tmp_path / "e.json", bootstrap=0))
    np.testing.assert_allclose(average.predictions, np.mean([m.predictions for m in members], axis=0), atol=1e-9)
    ridge, same = (
        ensemble(EnsembleConfig(two, tmp_path / "r.json", method="ridge", bootstrap=0))
        for two in (paths, [folder / "one.json", folder / "ridge_one.json"])
    )
    np.testing.assert_allclose(ridge.predictions, to_units(same.predictions), atol=1e-4)
    assert read_evaluation(tmp_path / "e.json").info.label_ranges == RANGES
    merged = merge_folds(MergeFoldsConfig([paths[0]], tmp_path / "m.json", bootstrap=0))
    assert merged.info.label_ranges == RANGES and merged.scores.mae.mean == pytest.approx(members[0].scores.mae.mean)
    with pytest.raises(UserError, match=r"its labels run over 0 to 1, but the labels of .*own.json over 0 to 100"):
        ensemble(EnsembleConfig([paths[0], folder / "one.json"], tmp_path / "x.json"))


def test_model_folder_says_the_units_and_refuses_others(folder, tmp_path):
    model = folder / "run_own" / "model"
    assert json.loads((model / "config.json").read_text())["label_ranges"] == RANGES
    assert "2 intensities (d0 in [0, 100]; d1 in [-1, 1])" in (model / "README.md").read_text()
    with pytest.raises(UserError, match="d0 runs from 0 to 1, but the model was trained on labels from 0 to 100"):
        evaluate(EvaluateConfig(model, folder / "one"))


def test_features_with_labels_outside_0_to_1_are_refused(tmp_path):
    rows = synthetic_features.samples({"train": 20})
    for row in rows:
        row.labels[0] *= 100
    write(tmp_path / "f", rows, synthetic_features.info())
    with pytest.raises(UserError, match=r"labels of d0 lie outside .*--label_range"):
        FeatureDataset.open(tmp_path / "f", "train")


def test_split_folders_keep_the_units(folder, tmp_path):
    from shared.commands.split import main

    assert main([str(folder / "own"), "--folds", "3", "--fold", "0", "--out", str(tmp_path / "s")]) == 0
    assert FeatureDataset.open(tmp_path / "s").info.label_ranges == RANGES
