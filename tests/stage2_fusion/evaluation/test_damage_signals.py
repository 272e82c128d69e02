"""Learned weights, raw signals and a regression on them as detectors of the same damage."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers import synthetic_features

from shared.errors import UserError
from shared.metrics import roc_auc
from stage2_fusion.data.features import write
from stage2_fusion.data.quality_samples import QualitySample, read_quality
from stage2_fusion.evaluation.damage_detection import damaged_in_corpus, score_damaged_views
from stage2_fusion.evaluation.damage_signals import Comparison, compare_on_purpose, detector_table
from stage2_fusion.evaluation.signal_regression import SignalRegression, logistic_regression, signal_statistics
from stage2_fusion.setup import leave_out_damage


def test_logistic_regression_meets_the_conditions_of_its_minimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = (x @ [1.5, -1, 0] + rng.normal(size=80) > 0.5).astype(float)
    weights = logistic_regression(x, y, 2.0)
    p = 1 / (1 + np.exp(-(x @ weights[:3] + weights[3])))
    np.testing.assert_allclose(x.T @ (p - y) + 2.0 * weights[:3], 0, atol=1e-6)
    assert (p - y).sum() == pytest.approx(0, abs=1e-6)  # the offset is free


def signals(level: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=(6, 2))
    return (level + spread * (noise - noise.mean(axis=0))).astype(np.float32)


def quality_samples(count: int) -> list[QualitySample]:
    """Clips and views: blur lowers the first signal, flicker makes it vary without another mean."""
    rng, out = np.random.default_rng(1), []
    for i in range(count):
        kind = ("blur", "flicker")[i % 2]
        for view, damage, level, spread in ((0, "", 0.8, 0.05), (1, kind, *((0.4, 0.05), (0.8, 0.4))[i % 2])):
            quality = {"vision": signals(level, spread, rng), "audio": np.zeros((0, 2)), "text": np.zeros((0, 2))}
            out.append(QualitySample(f"c{i}", view, {"vision": damage, "audio": "", "text": ""}, quality))
    return out


def test_regression_finds_in_the_deviation_what_no_mean_shows():
    training, scored = quality_samples(60)[:80], quality_samples(60)[80:]
    damaged = np.array([bool(each.damage["vision"]) for each in scored])
    flicker = np.array([each.damage["vision"] != "blur" for each in scored])
    fitted = SignalRegression.fit(training, "vision")
    scores = np.array([fitted.score(each.quality["vision"]) for each in scored])
    assert roc_auc(scores, damaged) == 1.0
    means = np.array([each.quality["vision"].mean() for each in scored])
    np.testing.assert_allclose(means[flicker], 0.8, atol=1e-6)
    # Kinds that the weights have not met are not met here either; without any damage there is no regression.
    met = [each for each in training if each.damage["vision"] != "flicker"]
    unmet = SignalRegression.fit(training, "vision", ["flicker"])
    np.testing.assert_allclose(unmet.slope, SignalRegression.fit(met, "vision").slope)
    assert not np.allclose(unmet.slope, fitted.slope)
    assert SignalRegression.fit(training, "vision", ["blur", "flicker"]) is None
    assert SignalRegression.fit(training, "audio") is None


def test_statistics_are_over_time():
    expected = [2, 3, 1, 2, 3, 4, 1, 1]
    np.testing.assert_allclose(signal_statistics(np.array([[1, 2], [3, 4]])), expected)


def test_detectors_are_compared_on_clean_negatives(tmp_path):
    data = synthetic_features.samples({"train": 30, "test": 30}, seed=4)
    write(tmp_path / "features", data, synthetic_features.info())
    test = [sample for sample in data if sample.split == "test"]
    training = read_quality(tmp_path / "features", {sample.id for sample in data if sample.split == "train"})
    assert [(each.id, each.view) for each in training] == [(s.id, s.view) for s in data if s.split == "train"]
    np.testing.assert_array_equal(training[0].quality["audio"], data[0].audio.quality)

    rng = np.random.default_rng(0)
    weights = np.array(
        [[rng.uniform(0.1, 1) if s.modality(m).steps else 0 for m in ("vision", "audio", "text")] for s in test]
    )
    ids = [sample.id for sample in test if not sample.view]
    came = damaged_in_corpus([{"vision_damage": "blur" if i < 5 else ""} for i in range(len(ids))], ids)
    assert came == {"vision": set(ids[:5]), "audio": set(), "text": set()}
    names = synthetic_features.info().quality
    groups = [sample.id for sample in test]
    found = compare_on_purpose(test, weights, groups, names, training, [], came)
    each = next(each for each in found if each.modality == "vision")
    rows = [i for i, s in enumerate(test) if s.vision.steps and (s.damage["vision"] if s.view else s.id not in ids[:5])]
    damaged = np.array([test[i].view > 0 for i in rows])
    shown = (weights[rows] > 0) @ [1, 2, 4]
    assert each.weight.auc == pytest.approx(roc_auc(-weights[rows, 0], damaged, shown))
    fitted = SignalRegression.fit(training, "vision")
    scores = np.array([fitted.score(test[i].vision.quality) for i in rows])
    assert each.regression.auc == pytest.approx(roc_auc(scores, damaged, shown))
    assert each.regression_lead == pytest.approx(each.weight.auc - each.regression.auc)
    assert each.undamaged == (~damaged).sum() and each.left_out == 5
    scored = score_damaged_views(test, np.zeros((len(test), 2)), weights, came)
    assert scored.damage.vision.auc == pytest.approx(each.weight.auc)

    assert Comparison.from_json(json.loads(json.dumps(asdict(each)))) == each
    lines = detector_table(each)
    assert lines[0].split() == ["vision", "on", "purpose,", "AUC", "all", "synthetic"]
    assert lines[3].split() == ["regression", *[f"{each.regression.auc:.3f}"] * 2]
    assert "5 that came damaged left out" in lines[4]
    # Not known is not clean, and a kind that nobody met is marked.
    unknown = compare_on_purpose(test, weights, groups, names, training, ["synthetic"])[0]
    assert unknown.left_out is None and unknown.regression is None and unknown.unmet == ["synthetic"]
    assert "synthetic*" in detector_table(unknown)[0] and "not known" in detector_table(unknown)[3]


def test_views_of_left_out_damage_are_undamaged_in_training():
    clips = [{s.view: s for s in synthetic_features.samples({"train": 1}, seed=i)} for i in range(8)]
    kinds = {kind for views in clips for kind in views[1].damage.values() if kind}
    kept = leave_out_damage(clips, sorted(kinds), "here")
    for before, after in zip(clips, kept, strict=True):
        assert after[0] is before[0] and after[1].view == 1 and not any(after[1].damage.values())
        assert after[1].vision is before[0].vision
    assert leave_out_damage(clips, [], "here") == clips
    with pytest.raises(UserError, match=r"leave_out_damage fog: no view of here has it"):
        leave_out_damage(clips, ["fog"], "here")
