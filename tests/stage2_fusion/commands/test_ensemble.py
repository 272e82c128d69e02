"""Averages by hand, weights against a slow minimiser, and no weights from clips that flatter a member."""

import json

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.commands import ensemble as module
from stage2_fusion.commands.ensemble import apply, ensemble, fit_weights, main, ranks, ridge_weights
from stage2_fusion.commands.evidence_config import EnsembleConfig
from stage2_fusion.evaluation import results as evaluation


def made(rng, count, noise):
    """Labels (N, 2) and the predictions of members with these noises."""
    labels = rng.random((count, 2))
    return labels, [np.clip(labels + rng.normal(0, n, labels.shape), 0, 1) for n in noise]


def test_averages_by_hand(tmp_path):
    labels = [0.1, 0.5, 0.9]
    a = write_evaluation(tmp_path / "a.json", [0.0, 0.2, 0.4], labels)
    b = write_evaluation(tmp_path / "b.json", [0.4, 0.0, 0.2], labels)
    ensemble(EnsembleConfig([a, b], tmp_path / "mean.json"))
    np.testing.assert_allclose(evaluation.read(tmp_path / "mean.json").predictions[:, 0], [0.2, 0.1, 0.3])
    ensemble(EnsembleConfig([a, b], tmp_path / "rank.json", method="rank"))
    # ranks 1 2 3 and 3 1 2, less a half, of three: (0.5 + 2.5) / 2, (1.5 + 0.5) / 2, (2.5 + 1.5) / 2
    found = evaluation.read(tmp_path / "rank.json")
    np.testing.assert_allclose(found.predictions[:, 0], [1.5 / 3, 1 / 3, 2 / 3], atol=1e-6)
    assert found.metrics["model"] == "ensemble" and found.metrics["configuration"] == {"method": "rank"}
    np.testing.assert_allclose(ranks(np.array([[1.0], [1.0], [5.0]]))[:, 0], [1 / 3, 1 / 3, 2.5 / 3])  # a tie


def test_what_the_labels_allow_is_handed_on(tmp_path, capsys):
    ceiling = {"ceiling": {"mean": 0.8, "per_dimension": {"d0": 0.8}}}
    a = write_evaluation(tmp_path / "a.json", [0.0, 0.2, 0.4], [0.0, 0.2, 0.4], **ceiling)
    assert main([str(a), str(a), "--out", str(tmp_path / "e.json")]) == 0
    assert "ceiling 0.800; 125.0% of it reached" in capsys.readouterr().out


def test_ridge_weights_are_the_minimum():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    x, y = rng.random((30, 3)), rng.random(30)
    y[4] = np.nan
    weights, offset = ridge_weights(x, y, 0.3)
    rows = ~np.isnan(y)

    def loss(p):
        pull = 0.3 * rows.sum() * x[rows].var(axis=0).mean()
        return ((y[rows] - p[3] - x[rows] @ p[:3]) ** 2).sum() + pull * ((p[:3] - 1 / 3) ** 2).sum()

    np.testing.assert_allclose([*weights, offset], minimize(loss, np.zeros(4), tol=1e-12).x, atol=1e-4)
    np.testing.assert_allclose(ridge_weights(x, y, 1e9)[0], 1 / 3, atol=1e-6)
    np.testing.assert_allclose(ridge_weights(np.ones((4, 2)), np.arange(4.0), 1.0)[0], 0.5)
    np.testing.assert_allclose(ridge_weights(x, np.full(30, np.nan), 1.0)[0], 1 / 3)


def test_weights_learned_on_valid_prefer_the_better_member(tmp_path):
    rng = np.random.default_rng(1)
    paths = {}
    for split, count in (("valid", 60), ("test", 60)):
        labels, members = made(rng, count, (0.15, 0.9))
        for name, predictions in zip("ab", members, strict=True):
            ids = [f"{split}{i}" for i in range(count)]
            paths[split, name] = write_evaluation(
                tmp_path / f"{split}_{name}.json", predictions, labels, ids, split=split
            )
    on, fit = ([paths[split, name] for name in "ab"] for split in ("test", "valid"))
    found = ensemble(EnsembleConfig(on, tmp_path / "e.json", method="ridge", fit=fit))
    assert all(a > 0.6 and b < 0.3 for a, b in found["member_weights"].values())
    alone, mean = (
        evaluation.read(paths["test", "a"]).metrics["pcc"]["mean"],
        ensemble(EnsembleConfig(on, tmp_path / "m.json"))["pcc"]["mean"],
    )
    assert found["pcc"]["mean"] > mean and found["pcc"]["mean"] > alone - 0.02
    # The labels that are scored decide nothing: other labels, the same predictions.
    labels = rng.random((60, 2))
    others = [
        write_evaluation(
            tmp_path / f"o{path.name}", evaluation.read(path).predictions, labels, evaluation.read(path).ids
        )
        for path in on
    ]
    ensemble(EnsembleConfig(others, tmp_path / "o.json", method="ridge", fit=fit))
    np.testing.assert_array_equal(
        evaluation.read(tmp_path / "o.json").predictions, evaluation.read(tmp_path / "e.json").predictions
    )
    assert (
        main([*map(str, on), "--method", "ridge", "--fit", f"[{fit[0]}, {fit[1]}]", "--out", str(tmp_path / "c.json")])
        == 0
    )
    assert json.loads((tmp_path / "c.json").read_text())["member_weights"] == found["member_weights"]


def test_without_fit_each_group_is_weighed_by_the_others(tmp_path):
    rng = np.random.default_rng(2)
    labels, members = made(rng, 50, (0.2, 0.6))
    groups = [f"s{i % 5}" for i in range(50)]
    paths = [write_evaluation(tmp_path / f"{i}.json", x, labels, groups=groups) for i, x in enumerate(members)]
    ensemble(EnsembleConfig(paths, tmp_path / "e.json", method="ridge"))
    found = evaluation.read(tmp_path / "e.json").predictions
    x = np.stack([evaluation.read(path).predictions for path in paths], axis=2)
    y = evaluation.read(paths[0]).labels.astype(float)
    for group in set(groups):  # five groups: each is a part of its own
        out = np.array(groups) == group
        weights, offsets = fit_weights(x[~out], y[~out], [g for g in groups if g != group])
        np.testing.assert_allclose(found[out], apply(x[out], weights, offsets), atol=1e-6)


def test_three_groups_are_enough_and_two_are_not(tmp_path):
    labels, members = made(np.random.default_rng(5), 30, (0.1, 0.8))
    for count, enough in ((3, True), (2, False)):
        groups = [f"s{i % count}" for i in range(30)]
        paths = [write_evaluation(tmp_path / f"{i}.json", x, labels, groups=groups) for i, x in enumerate(members)]
        config = EnsembleConfig(paths, tmp_path / "e.json", method="ridge")
        if enough:
            assert all(a > b for a, b in ensemble(config)["member_weights"].values())
        else:
            with pytest.raises(UserError, match="too few groups"):
                ensemble(config)


def test_the_strength_is_chosen_by_groups_it_was_not_fitted_on(monkeypatch):
    """Members that know nothing: what fits them to one group does not help another."""
    rng = np.random.default_rng(3)
    x, y = rng.random((60, 1, 2)), rng.random((60, 1))
    groups = [f"s{i % 6}" for i in range(60)]
    tried = {}
    for strength in (1e-3, 1e2):
        monkeypatch.setattr(module, "STRENGTHS", (strength,))
        held = np.zeros((60, 1))
        parts = module._parts(groups)
        assert all(len({p for p, g in zip(parts, groups, strict=True) if g == group}) == 1 for group in groups)
        for part in set(parts):
            out = parts == part
            weights, offset = ridge_weights(x[~out, 0], y[~out, 0], strength)
            held[out, 0] = np.clip(x[out, 0] @ weights + offset, 0, 1)
        tried[strength] = pcc(held[:, 0], y[:, 0])
    monkeypatch.setattr(module, "STRENGTHS", (1e-3, 1e2))
    weights, _ = fit_weights(x, y, groups)
    np.testing.assert_allclose(weights[0], ridge_weights(x[:, 0], y[:, 0], max(tried, key=tried.get))[0])


def test_flattering_clips_are_refused(tmp_path):
    rng = np.random.default_rng(4)
    labels, members = made(rng, 20, (0.2, 0.3))
    on = [write_evaluation(tmp_path / f"on{i}.json", x, labels) for i, x in enumerate(members)]

    def refused(match, fit=(), **about):
        ids = about.pop("ids", [f"v{i}" for i in range(20)])
        fit = [write_evaluation(tmp_path / f"f{i}.json", x, labels, ids, **about) for i, x in enumerate(members)]
        with pytest.raises(UserError, match=match):
            ensemble(EnsembleConfig(on, tmp_path / "e.json", method="ridge", fit=fit))

    refused("trained on 7 of these 20 clips; learn weights from valid", seen={"in_training": 7, "in_choosing": 0})
    refused("does not say which clips its model was trained on", seen=None)
    refused("of another model than", model="another")
    refused("aligned on 3 of these 20 clips", seen_by_encoders=3)
    on = [
        write_evaluation(tmp_path / f"on{i}.json", x, labels, seeds={"training": i}) for i, x in enumerate(members)
    ]  # 0 and 1
    refused("of another seed than", seeds={"training": 0})
    weights = [{"made_from": {"model_digest": name}} for name in "ab"]
    on = [write_evaluation(tmp_path / f"on{i}.json", x, labels, **weights[i]) for i, x in enumerate(members)]
    refused("not of the model of .*on0", made_from={"model_digest": "b"})
    parts = {"parts": [{"made_from": {"model_digest": name}} for name in "cd"]}
    on = [write_evaluation(tmp_path / f"on{i}.json", x, labels, **parts) for i, x in enumerate(members)]
    refused("not of the model of", parts=parts["parts"][::-1])
    on = [write_evaluation(tmp_path / f"on{i}.json", x, labels, **weights[i]) for i, x in enumerate(members)]
    folds = [
        write_evaluation(tmp_path / f"p{i}.json", x, labels, [f"v{i}" for i in range(20)], **parts)
        for i, x in enumerate(members)
    ]  # of pooled folds, whose models are others than the final one
    assert ensemble(EnsembleConfig(on, tmp_path / "e.json", method="ridge", fit=folds))["member_weights"]
    refused("1 of its clips are also to be scored, such as 'c003'", ids=["c003", *(f"v{i}" for i in range(19))])
    trained = [
        write_evaluation(tmp_path / f"t{i}.json", x, labels, seen={"in_training": 1, "in_choosing": 0})
        for i, x in enumerate(members)
    ]
    with pytest.raises(UserError, match="trained on 1 of these 20"):
        ensemble(EnsembleConfig(trained, tmp_path / "e.json", method="ridge"))
    assert ensemble(EnsembleConfig(trained, tmp_path / "e.json"))["seen"]["in_training"] == 1  # said, not refused
    with pytest.raises(UserError, match="two evaluations or more"):
        EnsembleConfig(on[:1], tmp_path / "e.json")
    with pytest.raises(UserError, match="average has no weights"):
        EnsembleConfig(on, tmp_path / "e.json", fit=on)
