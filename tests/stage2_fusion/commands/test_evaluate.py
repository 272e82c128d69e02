"""`emit evaluate`: the agreed metrics, the ceiling, and damage scores worked out by hand."""

import csv
import json

import numpy as np
import pytest
from helpers import synthetic_features

from shared.errors import UserError
from shared.files import digest
from shared.metrics import pcc
from stage2_fusion.commands.evaluate import against_truth, evaluate, main
from stage2_fusion.config import EvaluateConfig
from stage2_fusion.data.batches import collate
from stage2_fusion.data.features import MODALITIES, FeatureDataset, write
from stage2_fusion.evaluation import results as evaluation
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Features, an untrained model and a truth.csv."""
    folder = tmp_path_factory.mktemp("evaluate")
    samples = synthetic_features.samples({"test": 40, "valid": 8}, zeros=0.2)
    info = write(folder / "features", samples, synthetic_features.info())
    config = FusionConfig.from_features(
        info,
        model="dual_stage",
        options={"width": 16, "steps": 4},
        max_sequence_steps=128,
        training={"loss": {"mse": 1.0}},
    )
    model = FusionModel.build(config.model, config.options, FeatureSpec.of(info))
    model.fit_statistics(samples)
    model.save_pretrained(folder / "model", config, {"seconds": 7.5})
    rows = []
    for i, sample in enumerate(s for s in samples if s["view"] == 0):
        latent = np.clip(sample["labels"] + 0.1 * np.sin(i), 0, 1)
        rows.append([sample["id"], *latent, "blur" if i % 3 == 0 else "", "no_track" if i % 4 == 0 else "", ""])
    columns = ["id", "true_d0", "true_d1", *(f"{name}_damage" for name in MODALITIES)]
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


def test_metrics_are_those_agreed(made, tmp_path):
    out = tmp_path / "metrics.json"
    config = EvaluateConfig(
        model=made / "model", data=made / "features", out=out, truth=made / "truth.csv", bootstrap=50
    )
    metrics = evaluate(config)
    assert json.loads(out.read_text()) == metrics
    assert metrics["n"] == 40 and metrics["groups"] == 7  # subjects
    assert 0 < metrics["pcc_nonzero"]["n"] < 40
    for key in ("pcc", "pcc_nonzero", "ccc", "mae"):
        assert set(metrics[key]["per_dimension"]) == {"d0", "d1"} and "mean" in metrics[key]
    assert len(metrics["pcc"]["interval"]) == 2
    assert metrics["share_of_ceiling"] == pytest.approx(metrics["pcc"]["mean"] / metrics["ceiling"]["mean"])
    assert metrics["damage"]["vision"]["clips"] > 0 and metrics["damage"]["text"] is None
    assert set(metrics["damaged_on_purpose"]) == {"pcc_undamaged", "pcc_damaged", "views", "by_modality", "damage"}
    falls = metrics["damaged_on_purpose"]["by_modality"]
    assert sum(part["views"] for part in falls.values()) == metrics["damaged_on_purpose"]["views"] == 40
    assert metrics["made_from"]["encoders"] == "e" * 16
    assert metrics["made_from"]["model_digest"] == digest(made / "model" / "model.safetensors")
    assert metrics["training"] == {"loss": {"mse": 1.0}, "finetune": {}, "seconds": 7.5}
    assert metrics["leak_probe"]["pcc"] is None and "no labelled training clips" in metrics["leak_probe"]["why"]
    assert metrics["seen"] is None and metrics["seeds"] == {"training": None, "bootstrap": 0}
    assert metrics["configuration"] == {"width": 16, "steps": 4} and metrics["seconds"] > 0
    clips = FeatureDataset.open(made / "features", "test", (0,))
    found = evaluation.read(out)
    assert found.ids == [sample["id"] for sample in clips.samples]
    assert found.groups == [sample["groups"]["subject"] for sample in clips.samples]
    np.testing.assert_array_equal(found.labels, clips.labels())
    assert metrics["clips"]["group"] == "subject" and metrics["clips"]["groups"] == 7

    with (tmp_path / "metrics_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Filename"] for row in rows] == [f"test{i:03d}" for i in range(40)]
    found = [pcc([float(row[name]) for row in rows], _labels(made, name)) for name in ("d0", "d1")]
    assert metrics["pcc"]["mean"] == pytest.approx(np.mean(found), abs=1e-4)
    again = EvaluateConfig(model=made / "model", data=made / "features", out=out, bootstrap=50, batch_size=3)
    assert evaluate(again)["pcc"]["mean"] == pytest.approx(metrics["pcc"]["mean"], abs=1e-5)


def _labels(made, name):
    data = FeatureDataset.open(made / "features", "test", (0,))
    return data.labels()[:, int(name[1])]


def test_explanations_are_the_model_step_by_step(made, tmp_path):
    out = tmp_path / "metrics.json"
    evaluate(EvaluateConfig(made / "model", made / "features", out=out, bootstrap=0, batch_size=7, explain=True))
    lines = [json.loads(line) for line in (tmp_path / "metrics_explained.jsonl").read_text().splitlines()]
    clips = FeatureDataset.open(made / "features", "test", (0,))
    assert [line["Filename"] for line in lines] == [sample["id"] for sample in clips.samples]
    model = FusionModel.from_pretrained(made / "model")
    for line, sample in zip(lines, clips.samples, strict=True):
        output = model(collate([sample]))
        there = output.step_mask[0].numpy()
        times = (np.arange(4) + 0.5) / 4 * sample["duration"]  # four steps cover the clip evenly
        np.testing.assert_allclose(line["times"], times[there], atol=1e-4)
        for m, name in enumerate(MODALITIES):
            np.testing.assert_allclose(line["weights"][name], output.weights[0, there, m], atol=1e-4)
        for k, name in enumerate(("d0", "d1")):
            np.testing.assert_allclose(line["attention"][name], output.attention[0, k][there], atol=1e-4)
            assert sum(line["attention"][name]) == pytest.approx(1, abs=1e-3)


def test_ceiling_and_damage_by_hand(tmp_path):
    (tmp_path / "truth.csv").write_text(
        "id,true_a,vision_damage,audio_damage,text_damage\n"
        "clips/0.mp4,1,blur,no_track,\n"
        "clips/1.mp4,2,,noise,missing\n"
        "clips/2.mp4,3,occlusion,silence,\n"
        "clips/3.mp4,4,,,\n"
        "clips/4.mp4,5,blur,,\n"
        "clips/5.mp4,6,darkness,,missing\n"
    )
    samples = [{"id": str(i)} for i in range(6)]
    labels = np.array([[1.0], [3.0], [2.0], [np.nan], [np.nan], [np.nan]])
    weights = np.array(
        [[0.2, 0, 0.8], [0.5, 0.5, 0], [0.6, 0.1, 0.3], [0.4, 0.3, 0.3], [0.1, 0.6, 0.3], [0.45, 0.55, 0]]
    )
    found = against_truth(tmp_path / "truth.csv", samples, labels, weights, ["a"])
    assert found["ceiling"]["mean"] == pytest.approx(0.5)
    # vision, clips that show all three: damaged .6 and .1 against .4; vision and audio: .45 against .5; clip 0 has no
    # equal. Two of three pairs are won.
    assert found["damage"]["vision"]["auc"] == pytest.approx(2 / 3)
    assert found["damage"]["vision"]["by_kind"] == {"blur": 1.0, "darkness": 1.0, "occlusion": 0.0}
    # audio: the clip without a track does not count; all three: .1 against .3 and .6; vision and audio: .5 against .55
    assert found["damage"]["audio"]["auc"] == pytest.approx(1.0) and found["damage"]["audio"]["clips"] == 2
    assert found["damage"]["text"] is None
    assert found["damage"]["mean_auc"] == pytest.approx(5 / 6)


def test_the_command_prints_a_table(made, tmp_path, capsys):
    argv = ["--model", made / "model", "--data", made / "features", "--truth", made / "truth.csv", "--bootstrap", 20]
    assert main([*map(str, argv), "--out", str(tmp_path / "m.json")]) == 0
    printed = capsys.readouterr().out
    assert "mean" in printed and "95 % interval" in printed and "ceiling" in printed
    assert "(7 groups; of fewer than 20" in printed


def test_features_that_do_not_fit_are_refused(made, tmp_path):
    def refused(info, match):
        write(tmp_path / "f", synthetic_features.samples({"test": 3}, k=len(info["label_names"])), info)
        with pytest.raises(UserError, match=match):
            evaluate(EvaluateConfig(model=made / "model", data=tmp_path / "f"))

    refused(
        synthetic_features.info() | {"encoders": {"path": "", "digest": "other", "config": {}}},
        "features of encoders other",
    )
    refused(synthetic_features.info(3), "label_names")
    slower = {"path": "", "digest": "d" * 16, "prepare": {"frame_rate": 2}}
    refused(synthetic_features.info() | {"data": slower}, "prepare them again with --frame_rate 4")


def test_damaged_models_and_truths_are_one_line(made, tmp_path):
    with pytest.raises(UserError, match="no fusion model here"):
        evaluate(EvaluateConfig(model=tmp_path, data=made / "features"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((made / "model" / "config.json").read_bytes())
    for content in (None, b"", b"garbage" * 100, (made / "model" / "model.safetensors").read_bytes()[:-100]):
        if content is not None:
            (tmp_path / "model" / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="missing or damaged"):
            evaluate(EvaluateConfig(model=tmp_path / "model", data=made / "features"))
    (tmp_path / "truth.csv").write_text("id,true_d0\ntest000,1\n")
    with pytest.raises(UserError, match="39 clips are not in it"):
        evaluate(
            EvaluateConfig(
                model=made / "model", data=made / "features", truth=tmp_path / "truth.csv", out=tmp_path / "m.json"
            )
        )
