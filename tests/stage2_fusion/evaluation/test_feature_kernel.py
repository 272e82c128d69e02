"""Kernel ridge regression on statistics of features, against a slow reference."""

import json
import math

import numpy as np
import pytest
from helpers import synthetic_features

from stage2_fusion.commands.baseline import main as baseline
from stage2_fusion.evaluation import class_baseline, feature_kernel
from stage2_fusion.evaluation.feature_kernel import fit_feature_kernel
from stage2_fusion.evaluation.results import BASELINES


def test_predictions_are_those_of_the_normal_equations(monkeypatch):
    """Two modalities, which some clips lack; a label that is not known."""
    monkeypatch.setattr(feature_kernel, "WIDTHS", (0.5,))
    monkeypatch.setattr("stage2_fusion.evaluation.kernel_baseline.PENALTIES", (0.3,))
    monkeypatch.setattr(feature_kernel, "PENALTIES", (0.3,))
    rng = np.random.default_rng(0)
    parts = [[rng.normal(3, 2, (count, width)) for width in (4, 3)] for count in (12, 6, 5)]
    parts[0][0][0], parts[0][1][1], parts[2][0][2] = np.nan, np.nan, np.nan
    labels = [rng.uniform(size=(count, 2)) for count in (12, 6)]
    labels[0][3, 1] = np.nan
    fit = fit_feature_kernel(parts, *labels)

    def kernel(part: int, i: int, j: int) -> float:
        product = 1.0
        for m in range(2):
            known = parts[0][m][~np.isnan(parts[0][m][:, 0])]
            scale = known.std(axis=0)
            squares = [(((a - b) / scale) ** 2).sum() for k, a in enumerate(known) for b in known[:k]]
            a, b = parts[part][m][i], parts[0][m][j]
            if not np.isnan(a[0]) and not np.isnan(b[0]):
                product *= 1 + math.exp(-(((a - b) / scale) ** 2).sum() / np.median(squares))
        return product - 1

    gram = np.array([[kernel(0, i, j) for j in range(12)] for i in range(12)])
    cross = np.array([[kernel(2, i, j) for j in range(12)] for i in range(5)])
    for k in range(2):
        rows = ~np.isnan(labels[0][:, k])
        y = labels[0][rows, k]
        weights = np.linalg.solve(gram[np.ix_(rows, rows)] + 0.3 * np.eye(rows.sum()), y - y.mean())
        np.testing.assert_allclose(fit.predictions[:, k], np.clip(cross[:, rows] @ weights + y.mean(), 0, 1), atol=1e-6)
    assert fit.options == {"width": 0.5, "penalty": 0.3}


@pytest.mark.parametrize(
    ("kind", "model", "chosen"),
    [
        ("kernel", "kernel ridge on features", {"width", "penalty"}),
        ("logistic", "logistic regression", {"penalty", "classes"}),
    ],
)
def test_command_scores_features_and_stands_with_the_baselines(kind, model, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(class_baseline, "MIN_CLIPS", 1)
    features = synthetic_features.write_features(tmp_path / "f", {"train": 30, "valid": 12, "test": 12})
    out = tmp_path / "baseline.json"
    assert baseline(["--kind", kind, "--data", str(features), "--out", str(out), "--bootstrap", "0"]) == 0
    metrics = json.loads(out.read_text())
    assert metrics["model"] == model and set(metrics["chosen"]) == chosen
    assert metrics["n"] == 12 and metrics["seen"] == {"in_training": 0, "in_choosing": 0}
    assert metrics["model"] in BASELINES
