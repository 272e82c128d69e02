"""Curves against a slow loop, with a model whose predictions are worked out by hand."""

import csv
import json

import numpy as np
import pytest
from helpers import synthetic_features

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.commands.evidence_config import RobustnessConfig
from stage2_fusion.commands.robustness import _turn, main, robustness, without
from stage2_fusion.data.features import MODALITIES, FeatureDataset, write
from stage2_fusion.evaluation.inference import run_model
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robustness")
    samples = synthetic_features.samples({"test": 40}, views=2)
    info = write(folder / "features", samples, synthetic_features.info() | {"views": 2})
    for name in ("concat", "dual_stage"):
        model = FusionModel.build(name, options := synthetic_features.SMALL[name], FeatureSpec.of(info))
        model.fit_statistics(samples)
        model.save_pretrained(
            folder / name / "model",
            FusionConfig.from_features(info, model=name, options=options, max_sequence_steps=128),
        )
    return folder


def test_curves_equal_a_slow_loop(made, tmp_path, capsys):
    models = [str(made / "concat" / "model"), f"ours={made / 'dual_stage' / 'model'}"]
    config = RobustnessConfig(
        models, made / "features", out=tmp_path / "r.json", shares=[0, 0.3, 1], bootstrap=20, seed=4, orders=3
    )
    found = robustness(config)
    assert json.loads((tmp_path / "r.json").read_text()) == found
    assert {row["model"] for row in found["rows"]} == {"concat", "ours"}
    model = FusionModel.from_pretrained(made / "concat" / "model")
    clips = FeatureDataset.open(made / "features", "test").by_clip()
    for row in found["rows"]:
        assert row["low"] <= row["high"]
        if row["model"] == "ours":
            continue
        usable, m = [], row["modality"]
        for views in clips:
            worse = without(views[0], m) if row["how"] == "missing" else None
            for view in (1, 2) if row["how"] == "damaged" else ():
                if worse is None and views[view]["damage"][m]:
                    worse = views[view]
            if worse is not None:
                usable.append((views[0], worse))
        count, scores = round(row["share"] * len(usable)), []
        for order in range(3):
            usable.sort(key=lambda entry, order=order, m=m: _turn(4, order, m, entry[0]["id"]))
            for hit in (0, count):
                mixed = [worse if i < hit else clean for i, (clean, worse) in enumerate(usable)]
                predictions = run_model(model, mixed, 7).predictions
                labels = np.stack([clean["labels"] for clean, _ in usable])
                scores.append(np.mean([pcc(predictions[:, k], labels[:, k]) for k in range(2)]))
        assert row["clips"] == len(usable)
        assert row["pcc"] == pytest.approx(np.mean(scores[1::2]), abs=1e-5)
        assert row["fall"] == pytest.approx(np.mean(scores[::2]) - np.mean(scores[1::2]), abs=1e-5)
        assert row["fall_low"] <= row["fall_high"] and (row["share"] or row["fall"] == row["fall_high"] == 0)
    modes = {(row["modality"], row["how"]) for row in found["rows"]}
    assert {(m, "missing") for m in MODALITIES} <= modes and {("vision", "damaged"), ("audio", "damaged")} <= modes
    with (tmp_path / "r.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"])
    argv = [*models, "--data", str(made / "features"), "--out", str(tmp_path / "s.json"), "--bootstrap", "5"]
    assert main(argv) == 0
    assert "missing" in capsys.readouterr().out
    with pytest.raises(UserError, match="two models have one name"):
        robustness(RobustnessConfig([models[0], models[0]], made / "features"))


def test_a_sample_without_a_modality_is_one_that_never_had_it():
    rng = np.random.default_rng(0)
    sample = synthetic_features.sample(rng)
    bare = without(sample, "audio")
    other = synthetic_features.sample(np.random.default_rng(1), missing=("audio",))["audio"]
    for key, value in bare.audio.items():
        assert value.shape == other[key].shape and not value.any()
    assert bare["vision"] is sample["vision"] and without(bare, "audio") is None
