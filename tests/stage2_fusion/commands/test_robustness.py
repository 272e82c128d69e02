"""`emit robustness`: curves against a slow loop."""

import csv
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import synthetic_features

from shared.dataset.splits import split_dataset
from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.commands.robustness import RobustnessConfig, main, robustness
from stage2_fusion.data.encoder_training import EncoderTraining
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import MODALITIES, FeatureDataset, write
from stage2_fusion.evaluation.robustness import Score, _relative, damage_order
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig, TrainedOn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features with two damaged views, and three untrained models, two of them seeds of one."""
    folder = tmp_path_factory.mktemp("robustness")
    samples = synthetic_features.samples({"test": 40}, views=2)
    info = write(folder / "features", samples, synthetic_features.info(views=2))
    for run in ("concat", "dual_stage", "concat1"):
        name = run.removesuffix("1")
        options = synthetic_features.SMALL[name]
        about = TrainedOn(data=info.data.digest, clips=[], chosen_on=[])
        config = FusionConfig.from_features(info, model=name, options=options, max_sequence_steps=128, trained_on=about)
        model = FusionModel.build(name, options, FeatureSpec.of(info))
        model.fit_statistics(samples)
        model.save_pretrained(folder / run / "model", config)
    return folder


def worse_samples(clips, modality, how):
    """(clean, worse) of the clips that the curve is about."""
    pairs = []
    for views in clips:
        worse = None
        if how == "missing" and views[0].modality(modality).steps:
            worse = views[0].without(modality)
        if how == "damaged":
            worse = next((views[view] for view in (1, 2) if views[view].damage[modality]), None)
        if worse is not None:
            pairs.append((views[0], worse))
    return pairs


def test_curves_equal_slow_loop(folder, tmp_path):
    models = [str(folder / "concat" / "model"), f"ours={folder / 'dual_stage' / 'model'}"]
    out, data = tmp_path / "r.json", folder / "features"
    rows = robustness(RobustnessConfig(models, data, out=out, shares=[0, 0.3, 1], bootstrap=20, seed=4, orders=3))
    assert json.loads(out.read_text())["rows"] == [asdict(row) for row in rows]
    assert {row.model for row in rows} == {"concat", "ours"}
    model = FusionModel.from_pretrained(folder / "concat" / "model")
    clips = FeatureDataset.open(data, "test").by_clip()
    for row in rows:
        assert row.low <= row.high
        if row.model == "ours":
            continue
        pairs = worse_samples(clips, row.modality, row.how)
        labels = np.stack([clean.labels for clean, _ in pairs])
        scores = []
        for order in range(3):
            turn = damage_order(4, order, row.modality, [clean.id for clean, _ in pairs])
            for count in (0, round(row.share * len(pairs))):
                hit = set(turn[:count])
                mixed = [worse if i in hit else clean for i, (clean, worse) in enumerate(pairs)]
                predictions = run_model(model, mixed, 7).predictions
                scores.append(np.mean([pcc(predictions[:, k], labels[:, k]) for k in range(2)]))
        assert row.clips == len(pairs)
        assert row.pcc == pytest.approx(np.mean(scores[1::2]), abs=1e-5)
        assert row.fall == pytest.approx(np.mean(scores[::2]) - np.mean(scores[1::2]), abs=1e-5)
        assert row.fall_low <= row.fall_high and (row.share or row.fall == row.fall_high == 0)
    kinds = {(row.modality, row.how) for row in rows}
    assert {(m, "missing") for m in MODALITIES} <= kinds and {("vision", "damaged"), ("audio", "damaged")} <= kinds
    with (tmp_path / "r.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_models_of_one_name_are_seeds_whose_falls_are_stated_relative_to_another(folder, tmp_path):
    paths = {name: folder / name / "model" for name in ("concat", "concat1", "dual_stage")}

    def rows(*models, against=None):
        out, data = tmp_path / "r.json", folder / "features"
        config = RobustnessConfig(list(models), data, out=out, shares=[0, 0.5], bootstrap=30, orders=2, against=against)
        return {(row.model, row.modality, row.how, row.share): row for row in robustness(config)}

    one, two, other = (rows(f"m={path}") for path in paths.values())
    both = rows(*(f"{name}={path}" for name, path in zip("aab", paths.values(), strict=True)), against="b")
    for (_, *key), row in one.items():
        seeds, reference = both["a", *key], both["b", *key]
        assert seeds.seeds == 2 and reference.seeds == 1 and reference.relative is None
        assert seeds.pcc == pytest.approx((row.pcc + two["m", *key].pcc) / 2)
        assert reference.fall == other["m", *key].fall
        if reference.fall <= 0:
            assert seeds.relative is None
            continue
        assert seeds.relative == pytest.approx(seeds.fall / reference.fall)
        assert (seeds.relative_low is None) == (reference.fall_low <= 0)
    assert any(row.relative is not None for row in both.values())
    with pytest.raises(UserError, match="--against x: no such model; there are m"):
        rows(f"m={paths['concat']}", against="x")


def test_folds_are_scored_as_one_each_by_the_models_that_were_trained_on_it(folder, tmp_path):
    """Against a slow loop over the clips of both folds, at the ends of the curve."""
    data, folds = folder / "features", [tmp_path / "fold0", tmp_path / "fold1"]
    for fold, path in enumerate(folds):
        split_dataset(data, path, folds=2, fold=fold)
    given, models = [], {}
    for seed, run in ((0, "concat"), (1, "concat1")):
        for fold, path in enumerate(folds):
            model = FusionModel.from_pretrained(folder / run / "model")
            list(model.parameters())[-1].data += 0.1 * (fold - 0.5)  # the output bias
            about = replace(model.config.trained_on, features=read_info(path).digest, seed=seed)
            model.save_pretrained(tmp_path / run / str(fold), replace(model.config, trained_on=about))
            given.append(f"m={tmp_path / run / str(fold)}")
            models[seed, fold] = model

    def scored(models):
        out = tmp_path / "r.json"
        config = RobustnessConfig(models, folds=folds, out=out, shares=[0, 1], bootstrap=5, orders=1)
        return robustness(config)

    rows = scored(given)
    assert [asdict(row) for row in scored(given[::-1])] == [asdict(row) for row in rows]
    for row in rows:
        falls = []
        for seed in (0, 1):
            clean, worse, labels = [], [], []
            for fold, path in enumerate(folds):
                pairs = worse_samples(FeatureDataset.open(path, "test").by_clip(), row.modality, row.how)
                for part, samples in zip((clean, worse), zip(*pairs, strict=True), strict=True):
                    part.append(run_model(models[seed, fold], list(samples), 7).predictions)
                labels += [sample.labels for sample, _ in pairs]
            clean, worse, labels = np.concatenate(clean), np.concatenate(worse), np.stack(labels)
            scores = [np.mean([pcc(each[:, k], labels[:, k]) for k in range(2)]) for each in (clean, worse)]
            falls.append(scores[0] - scores[1])
        assert row.seeds == 2 and row.clips == len(labels)
        assert row.fall == pytest.approx(np.mean(falls) if row.share else 0, abs=1e-5)
    assert {row.modality for row in rows} == set(MODALITIES)
    with pytest.raises(UserError, match=r"m: no model of seed 1 was trained on .*fold1"):
        scored(given[:3])
    with pytest.raises(UserError, match="was trained on none of the folds"):
        scored([f"m={folder / 'concat' / 'model'}"])
    with pytest.raises(UserError, match="a fold occurs twice"):
        robustness(RobustnessConfig(given, folds=[folds[0], folds[0]]))


def test_command_prints_table(folder, tmp_path, capsys):
    argv = [str(folder / "concat" / "model"), str(folder / "dual_stage" / "model"), "--against", "concat"]
    argv += ["--data", str(folder / "features"), "--bootstrap", "5", "--out", str(tmp_path / "s.json")]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "missing" in shown and "in brackets as a multiple of concat" in shown


def test_unknown_training_is_refused_or_marked(folder, tmp_path, capsys):
    about = EncoderTraining(unknown="its encoders were also trained on voices.tar")
    info = synthetic_features.info(views=0, encoder_training=about)
    write(tmp_path / "f", synthetic_features.samples({"test": 20}, views=0), info)
    argv = [str(folder / "concat" / "model"), "--data", str(tmp_path / "f"), "--bootstrap", "5", "--orders", "1"]
    argv += ["--out", str(tmp_path / "s.json")]
    with pytest.raises(UserError, match=r"not known .* voices\.tar; or continue with --allow_unknown_training true"):
        main(argv)
    assert main([*argv, "--allow_unknown_training", "true"]) == 0
    assert f"concat: not known whether it was trained on scored clips: {about.unknown}" in capsys.readouterr().out


def test_two_models_of_one_name_are_refused(folder):
    path = str(folder / "concat" / "model")
    with pytest.raises(UserError, match="two models have the same name"):
        robustness(RobustnessConfig([path, path], folder / "features"))


def test_model_given_twice_is_refused_also_as_a_copy(folder, tmp_path):
    path = folder / "concat" / "model"
    shutil.copytree(path, tmp_path / "copy")
    for again in (path, tmp_path / "copy"):
        with pytest.raises(UserError, match="the same model as"):
            robustness(RobustnessConfig([f"a={path}", f"b={again}"], folder / "features"))


def test_rounding_of_a_modality_that_is_not_read_is_no_measure():
    """Sums in another order give PCC that differ in the last bit, whose quotient may be anything."""
    rounding = Score(np.array([2.0**-54, 0.0]), np.full(100, 2.0**-55))
    assert _relative(Score(np.array([-6.75 * 2.0**-54, 0.0]), np.zeros(100)), rounding) == {}
    half = _relative(Score(np.array([0.1, 0.1]), np.full(100, 0.1)), Score(np.array([0.2, 0.2]), np.full(100, 0.2)))
    assert half["relative"] == pytest.approx(0.5) and half["relative_high"] == pytest.approx(0.5)
