"""`emit ensemble`: averages by hand, weights against a minimizer, and no weights from clips that flatter a member."""

import json

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.files import write_csv
from shared.metrics import DimensionScores, pcc
from stage2_fusion.commands.ensemble import EnsembleConfig, combine_predictions, ensemble, main
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.evaluation import ensembling, result_files
from stage2_fusion.evaluation.ensembling import apply_weights, fit_weights, group_folds, rank_fractions, ridge_weights
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import FoldPart, SeenClips
from stage2_fusion.prediction.tables import TableDescription, read_prediction_table


def noisy_members(rng, count, noise):
    """Labels (N, 2) and the predictions of members with these noises."""
    labels = rng.random((count, 2))
    return labels, [np.clip(labels + rng.normal(0, n, labels.shape), 0, 1) for n in noise]


def write_members(folder, name, members, labels, ids=None, **info):
    """One evaluation per member; a value of `info` that is a list holds one for each."""
    return [
        write_evaluation(
            folder / f"{name}{i}.json",
            predictions,
            labels,
            ids,
            **{key: value[i] if isinstance(value, list) else value for key, value in info.items()},
        )
        for i, predictions in enumerate(members)
    ]


def test_average_and_rank_match_hand_computation(tmp_path):
    labels = [0.1, 0.5, 0.9]
    members = write_members(tmp_path, "m", [[0.0, 0.2, 0.4], [0.4, 0.0, 0.2]], labels)
    ensemble(EnsembleConfig(members, tmp_path / "mean.json"))
    np.testing.assert_allclose(read_evaluation(tmp_path / "mean.json").predictions[:, 0], [0.2, 0.1, 0.3])
    ensemble(EnsembleConfig(members, tmp_path / "rank.json", method="rank"))
    # ranks 1 2 3 and 3 1 2, less a half, of three: (0.5 + 2.5) / 2, (1.5 + 0.5) / 2, (2.5 + 1.5) / 2
    evaluation = read_evaluation(tmp_path / "rank.json")
    np.testing.assert_allclose(evaluation.predictions[:, 0], [1.5 / 3, 1 / 3, 2 / 3], atol=1e-6)
    assert evaluation.info.model == "ensemble" and evaluation.info.configuration == {"method": "rank"}
    np.testing.assert_allclose(rank_fractions(np.array([[1.0], [1.0], [5.0]]))[:, 0], [1 / 3, 1 / 3, 2.5 / 3])  # a tie


def test_ceiling_of_labels_is_kept(tmp_path, capsys):
    ceiling = DimensionScores(0.8, {"d0": 0.8})
    a = write_evaluation(tmp_path / "a.json", [0.0, 0.2, 0.4], [0.0, 0.2, 0.4], ceiling=ceiling)
    b = write_evaluation(tmp_path / "b.json", [0.0, 0.2, 0.4], [0.0, 0.2, 0.4], ceiling=ceiling, training_seed=1)
    assert main([str(a), str(b), "--out", str(tmp_path / "e.json")]) == 0
    assert "ceiling 0.800; 125.0% of it reached" in capsys.readouterr().out


def test_ridge_weights_minimize_their_loss():
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


def test_weights_learned_on_valid_prefer_better_member(tmp_path):
    rng = np.random.default_rng(1)
    paths = {}
    for split in ("valid", "test"):
        labels, members = noisy_members(rng, 60, (0.15, 0.9))
        paths[split] = write_members(tmp_path, split, members, labels, [f"{split}{i}" for i in range(60)], split=split)
    config = EnsembleConfig(paths["test"], tmp_path / "e.json", method="ridge", fit=paths["valid"])
    combined = ensemble(config)
    member_weights = combined.info.sections["member_weights"]
    assert all(a > 0.6 and b < 0.3 for a, b in member_weights.values())
    alone = read_evaluation(paths["test"][0]).mean_pcc
    average = ensemble(EnsembleConfig(paths["test"], tmp_path / "m.json")).mean_pcc
    assert combined.mean_pcc > average and combined.mean_pcc > alone - 0.02
    argv = [*map(str, paths["test"]), "--method", "ridge", "--fit", "[{}, {}]".format(*paths["valid"])]
    assert main([*argv, "--out", str(tmp_path / "c.json")]) == 0
    assert json.loads((tmp_path / "c.json").read_text())["member_weights"] == member_weights
    # The labels that are scored decide nothing: other labels, the same predictions.
    members = [read_evaluation(path) for path in paths["test"]]
    others = write_members(tmp_path, "o", [m.predictions for m in members], rng.random((60, 2)), members[0].ids)
    ensemble(EnsembleConfig(others, tmp_path / "o.json", method="ridge", fit=paths["valid"]))
    np.testing.assert_array_equal(
        read_evaluation(tmp_path / "o.json").predictions, read_evaluation(tmp_path / "e.json").predictions
    )


def test_without_fit_each_group_is_weighted_by_the_others(tmp_path):
    rng = np.random.default_rng(2)
    labels, members = noisy_members(rng, 50, (0.2, 0.6))
    groups = [f"s{i % 5}" for i in range(50)]
    paths = write_members(tmp_path, "m", members, labels)
    ensemble(EnsembleConfig(paths, tmp_path / "e.json", method="ridge"))
    predictions = read_evaluation(tmp_path / "e.json").predictions
    x = np.stack([read_evaluation(path).predictions for path in paths], axis=2)
    y = read_evaluation(paths[0]).labels.astype(float)
    for group in set(groups):  # five groups: each is a fold of its own
        rows = np.array(groups) == group
        weights, offsets = fit_weights(x[~rows], y[~rows], [g for g in groups if g != group])
        np.testing.assert_allclose(predictions[rows], apply_weights(x[rows], weights, offsets), atol=1e-6)


def test_three_groups_are_enough_and_two_are_not(tmp_path):
    labels, members = noisy_members(np.random.default_rng(5), 30, (0.1, 0.8))
    for count in (3, 2):
        groups = [f"s{i % count}" for i in range(30)]
        paths = [write_evaluation(tmp_path / f"{i}.json", x, labels, groups=groups) for i, x in enumerate(members)]
        config = EnsembleConfig(paths, tmp_path / "e.json", method="ridge")
        if count == 3:
            assert all(a > b for a, b in ensemble(config).info.sections["member_weights"].values())
        else:
            with pytest.raises(UserError, match="too few groups"):
                ensemble(config)


def test_strength_is_chosen_on_held_out_groups(monkeypatch):
    """Members are noise: weights that fit one group do not help another."""
    rng = np.random.default_rng(3)
    x, y = rng.random((60, 1, 2)), rng.random((60, 1))
    groups = [f"s{i % 6}" for i in range(60)]
    folds = group_folds(groups)
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in groups)
    scores = {}
    for strength in (1e-3, 1e2):
        held_out = np.zeros(60)
        for fold in set(folds):
            rows = folds == fold
            weights, offset = ridge_weights(x[~rows, 0], y[~rows, 0], strength)
            held_out[rows] = np.clip(x[rows, 0] @ weights + offset, 0, 1)
        scores[strength] = pcc(held_out, y[:, 0])
    monkeypatch.setattr(ensembling, "STRENGTHS", (1e-3, 1e2))
    weights, _ = fit_weights(x, y, groups)
    np.testing.assert_allclose(weights[0], ridge_weights(x[:, 0], y[:, 0], max(scores, key=scores.get))[0])


@pytest.mark.parametrize(
    ("match", "info", "fit_info"),
    [
        ("trained on 7 of these 20 clips; learn weights from valid", {}, {"seen": SeenClips(7, 0)}),
        ("not known whether these clips were trained on: the model does not", {}, {"seen": None}),
        ("not known whether it was trained on these clips", {}, {"unknown_training": "nobody knows"}),
        ("of another model than", {}, {"model": "another"}),
        ("aligned on 3 of these 20 clips", {}, {"seen_by_encoders": 3}),
        ("of another seed than", {"training_seed": [0, 1]}, {"training_seed": 0}),
        (
            "not of the model of .*on0",
            {"made_from": [{"model_digest": "a"}, {"model_digest": "b"}]},
            {"made_from": {"model_digest": "b"}},
        ),
        (
            "1 of its clips are also to be scored, such as 'c003'",
            {},
            {"ids": ["c003", *(f"v{i}" for i in range(19))]},
        ),
    ],
)
def test_weights_are_not_learned_from_clips_that_flatter(tmp_path, match, info, fit_info):
    labels, members = noisy_members(np.random.default_rng(4), 20, (0.2, 0.3))
    members_on = write_members(tmp_path, "on", members, labels, **info)
    ids = [f"v{i}" for i in range(20)]
    fit = [
        write_evaluation(tmp_path / f"f{i}.json", x, labels, **{"ids": ids, **fit_info}) for i, x in enumerate(members)
    ]
    with pytest.raises(UserError, match=match):
        ensemble(EnsembleConfig(members_on, tmp_path / "e.json", method="ridge", fit=fit))


def test_merged_folds_are_compared_with_merged_folds_only(tmp_path):
    labels, members = noisy_members(np.random.default_rng(4), 20, (0.2, 0.3))
    ids = [f"v{i}" for i in range(20)]
    parts = [FoldPart("", 10, 0.5, {"model_digest": name}) for name in "cd"]
    folds = write_members(tmp_path, "p", members, labels, ids)
    for i, x in enumerate(members):
        write_evaluation(folds[i], x, labels, ids, parts=parts)
    final = write_members(tmp_path, "on", members, labels, made_from=[{"model_digest": name} for name in "ab"])
    combined = ensemble(EnsembleConfig(final, tmp_path / "e.json", method="ridge", fit=folds))
    assert combined.info.sections["member_weights"]
    others = [write_evaluation(tmp_path / f"q{i}.json", x, labels, parts=parts[::-1]) for i, x in enumerate(members)]
    with pytest.raises(UserError, match="not of the model of"):
        ensemble(EnsembleConfig(others, tmp_path / "e.json", method="ridge", fit=folds))


def test_average_of_trained_members_states_what_they_have_seen(tmp_path):
    labels, members = noisy_members(np.random.default_rng(4), 20, (0.2, 0.3))
    trained = write_members(tmp_path, "t", members, labels, seen=SeenClips(1, 0))
    with pytest.raises(UserError, match="trained on 1 of these 20"):
        ensemble(EnsembleConfig(trained, tmp_path / "e.json", method="ridge"))
    assert ensemble(EnsembleConfig(trained, tmp_path / "e.json")).info.seen == SeenClips(1, 0)


@pytest.mark.parametrize("method", ["average", "rank", "ridge", "grid"])
def test_predictions_that_are_no_numbers_are_refused(method, tmp_path):
    rng = np.random.default_rng(3)
    labels, members = noisy_members(rng, 30, (0.2, 0.4))
    paths = write_members(tmp_path, "m", members, labels)
    evaluation = read_evaluation(paths[1])
    evaluation.predictions[4, 1] = np.nan
    result_files.write_evaluation(paths[1], evaluation)
    with pytest.raises(UserError, match=r"m1\.json: 1 clip has no prediction, such as c004; evaluate again"):
        ensemble(EnsembleConfig(paths, tmp_path / "e.json", method=method))
    assert not (tmp_path / "e.json").exists()


def test_contradictory_options_are_refused(tmp_path):
    with pytest.raises(UserError, match="two evaluations or more"):
        EnsembleConfig([tmp_path / "a.json"], tmp_path / "e.json")
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    with pytest.raises(UserError, match="average learns no weights"):
        EnsembleConfig(paths, tmp_path / "e.json", fit=paths)
    with pytest.raises(UserError, match="give both, or neither"):
        EnsembleConfig(paths, tmp_path / "e.json", method="gate")
    with pytest.raises(UserError, match="grid learns from labels; give --fit"):
        EnsembleConfig([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "e.csv", method="grid")


def write_table(path, ids, predictions, system, modality):
    """As `emit predict` writes it: rounded, with a description."""
    rows = [[name, *(f"{value:.6f}" for value in row)] for name, row in zip(ids, predictions, strict=True)]
    write_csv(path, ["Filename", "d0", "d1"], rows)
    about = {"system": system, "configuration": {"modalities": [modality]}}
    TableDescription(["d0", "d1"], made_from=about).write(path)
    return path


@pytest.mark.parametrize("method", ["grid", "gate", "ridge"])
def test_tables_are_combined_as_evaluations_of_the_same_clips(method, tmp_path):
    features = synthetic_features.write_features(tmp_path / "f", {"valid": 40, "test": 30}, views=0)
    rng, paths = np.random.default_rng(6), {}
    about = {"model": "quality_gated", "configuration": [{"modalities": [name]} for name in ("text", "audio")]}
    about["data"] = read_info(features).data.digest
    for split, count in (("valid", 40), ("test", 30)):
        labels, members = noisy_members(rng, count, (0.2, 0.5))
        ids = [f"{split}{i:03d}" for i in range(count)]
        paths[split] = write_members(tmp_path, split, members, labels, ids, **about)
    tables = [
        write_table(tmp_path / f"{name}.csv", ids, read_evaluation(path).predictions, "quality_gated", name)
        for name, path in zip(("text", "audio"), paths["test"], strict=True)
    ]
    options = {"method": method, "fit": paths["valid"], "features": features if method == "gate" else None}
    scored = ensemble(EnsembleConfig(paths["test"], tmp_path / "e.json", **options))
    combine_predictions(EnsembleConfig(tables, tmp_path / "e.csv", **options))
    table = read_prediction_table(tmp_path / "e.csv")
    assert table.ids == scored.ids
    np.testing.assert_allclose(table.values, scored.predictions, atol=1e-4)  # six digits, before and after
    with pytest.raises(UserError, match=r"of another system than .*audio.csv; give --fit in the order"):
        combine_predictions(EnsembleConfig(tables[::-1], tmp_path / "o.csv", **options))
    (tmp_path / "text_made_from.json").unlink()
    with pytest.raises(UserError, match=r"text.csv: does not say which model made it"):
        combine_predictions(EnsembleConfig(tables, tmp_path / "o.csv", **options))
