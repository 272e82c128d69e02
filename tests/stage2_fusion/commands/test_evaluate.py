"""`emit evaluate`: what metrics.json holds, the tables beside it, explanations, and refusals."""

import csv
import json

import numpy as np
import pytest
from helpers import synthetic_features

from shared.errors import UserError
from shared.files import digest
from shared.metrics import pcc
from shared.saved.checksum import seal
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate, main
from stage2_fusion.data.batches import collate
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo
from stage2_fusion.data.features import MODALITIES, FeatureDataset, write
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig, TrainedOn

OPTIONS = {"width": 16, "steps": 4, "decoder_layers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features, an untrained model and a truth.csv."""
    folder = tmp_path_factory.mktemp("evaluate")
    samples = synthetic_features.samples({"test": 40, "valid": 8}, zeros=0.2)
    info = write(folder / "features", samples, synthetic_features.info())
    config = FusionConfig.from_features(
        info,
        model="dual_stage",
        options=OPTIONS,
        max_sequence_steps=128,
        training={"loss": {"mse": 1.0}},
        trained_on=TrainedOn(data=info.data.digest, clips=["elsewhere"], chosen_on=[]),
    )
    model = FusionModel.build(config.model, config.options, FeatureSpec.of(info))
    model.fit_statistics(samples)
    model.save_pretrained(folder / "model", config, {"seconds": 7.5})
    rows = []
    for i, sample in enumerate(sample for sample in samples if sample.view == 0):
        latent = np.clip(sample.labels + 0.1 * np.sin(i), 0, 1)
        rows.append([sample.id, *latent, "blur" if i % 3 == 0 else "", "no_track" if i % 4 == 0 else "", ""])
    columns = ["id", "true_d0", "true_d1", *(f"{name}_damage" for name in MODALITIES)]
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


@pytest.fixture
def clips(folder):
    """The scored clips."""
    return FeatureDataset.open(folder / "features", "test", (0,))


def test_metrics_file_holds_agreed_keys(folder, tmp_path):
    out = tmp_path / "metrics.json"
    data, truth = folder / "features", folder / "truth.csv"
    evaluation = evaluate(EvaluateConfig(folder / "model", data, out=out, truth=truth, bootstrap=50))
    metrics = json.loads(out.read_text())
    assert metrics == evaluation.to_json()
    assert metrics["n"] == 40 and metrics["groups"] == 7  # subjects
    assert 0 < metrics["pcc_nonzero"]["n"] < 40
    for key in ("pcc", "pcc_nonzero", "ccc", "mae"):
        assert set(metrics[key]["per_dimension"]) == {"d0", "d1"} and "mean" in metrics[key]
    assert len(metrics["pcc"]["interval"]) == 2
    assert metrics["share_of_ceiling"] == pytest.approx(metrics["pcc"]["mean"] / metrics["ceiling"]["mean"])
    assert metrics["damage"]["vision"]["clips"] > 0 and metrics["damage"]["text"] is None
    views = metrics["damaged_on_purpose"]
    assert set(views) == {"pcc_undamaged", "pcc_damaged", "views", "by_modality", "damage"}
    assert sum(part["views"] for part in views["by_modality"].values()) == views["views"] == 40
    assert metrics["made_from"]["encoders"] == "e" * 16
    assert metrics["made_from"]["model_digest"] == digest(folder / "model" / "model.safetensors")
    assert metrics["training"] == {"loss": {"mse": 1.0}, "finetune": {}, "seconds": 7.5}
    assert metrics["leak_probe"]["pcc"] is None and "no labeled training clips" in metrics["leak_probe"]["why"]
    assert metrics["seen"] == {"in_training": 0, "in_choosing": 0} and metrics["seen_by_encoders"] == 0
    assert metrics["seeds"] == {"training": None, "bootstrap": 0}
    assert metrics["configuration"] == OPTIONS and metrics["seconds"] > 0
    assert metrics["clips"]["group"] == "subject" and metrics["clips"]["groups"] == 7


def test_tables_hold_scored_clips(folder, clips, tmp_path):
    out = tmp_path / "metrics.json"
    mean = evaluate(EvaluateConfig(folder / "model", folder / "features", out=out, bootstrap=0)).mean_pcc
    evaluation = read_evaluation(out)
    assert evaluation.ids == [sample.id for sample in clips.samples]
    assert evaluation.groups == [sample.groups["subject"] for sample in clips.samples]
    np.testing.assert_array_equal(evaluation.labels, clips.labels())
    with (tmp_path / "metrics_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Filename"] for row in rows] == [f"test{i:03d}" for i in range(40)]
    each = [pcc([float(row[f"d{k}"]) for row in rows], clips.labels()[:, k]) for k in range(2)]
    assert mean == pytest.approx(np.mean(each), abs=1e-4)
    again = EvaluateConfig(folder / "model", folder / "features", out=out, bootstrap=0, batch_size=3)
    assert evaluate(again).mean_pcc == pytest.approx(mean, abs=1e-5)


def test_explanations_hold_model_output_step_by_step(folder, clips, tmp_path):
    out = tmp_path / "metrics.json"
    evaluate(EvaluateConfig(folder / "model", folder / "features", out=out, bootstrap=0, batch_size=7, explain=True))
    lines = [json.loads(line) for line in (tmp_path / "metrics_explained.jsonl").read_text().splitlines()]
    assert [line["Filename"] for line in lines] == [sample.id for sample in clips.samples]
    model = FusionModel.from_pretrained(folder / "model")
    for line, sample in zip(lines, clips.samples, strict=True):
        output = model(collate([sample]))
        mask = output.step_mask[0].numpy()
        times = (np.arange(4) + 0.5) / 4 * sample.duration  # four steps cover the clip evenly
        np.testing.assert_allclose(line["times"], times[mask], atol=1e-4)
        for m, name in enumerate(MODALITIES):
            np.testing.assert_allclose(line["weights"][name], output.weights[0, mask, m], atol=1e-4)
        for k, name in enumerate(("d0", "d1")):
            np.testing.assert_allclose(line["attention"][name], output.attention[0, k][mask], atol=1e-4)
            assert sum(line["attention"][name]) == pytest.approx(1, abs=1e-3)


def test_command_prints_table(folder, tmp_path, capsys):
    argv = ["--model", folder / "model", "--data", folder / "features", "--truth", folder / "truth.csv"]
    assert main([*map(str, argv), "--bootstrap", "20", "--out", str(tmp_path / "m.json")]) == 0
    printed = capsys.readouterr().out
    assert "mean" in printed and "95 % interval" in printed and "ceiling" in printed
    assert "(7 groups; of fewer than 20" in printed


def test_features_that_do_not_fit_are_refused(folder, tmp_path):
    def refused(info, match):
        write(tmp_path / "f", synthetic_features.samples({"test": 3}, k=len(info.label_names)), info)
        with pytest.raises(UserError, match=match):
            evaluate(EvaluateConfig(folder / "model", tmp_path / "f"))

    refused(synthetic_features.info(encoders=EncoderInfo("", "other", {})), "features of encoders other")
    refused(synthetic_features.info(1), "labels d0, but the model was trained on d1 too")
    refused(synthetic_features.info(label_ranges={"d0": [0, 1], "d1": [0, 100]}), "d1 runs from 0 to 100, but")
    slower = DataInfo("", "d" * 16, {"frame_rate": 2})
    refused(synthetic_features.info(data=slower), "prepare them again with --frame_rate 4")


def test_damaged_model_is_refused_in_one_line(folder, tmp_path):
    with pytest.raises(UserError, match="no fusion model here"):
        evaluate(EvaluateConfig(tmp_path, folder / "features"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((folder / "model" / "config.json").read_bytes())
    for content in (None, b"", b"garbage" * 100, (folder / "model" / "model.safetensors").read_bytes()[:-100]):
        if content is not None:
            (tmp_path / "model" / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"(is missing|is new|changed) since the folder was saved"):
            evaluate(EvaluateConfig(tmp_path / "model", folder / "features"))
        seal(tmp_path / "model")
        with pytest.raises(UserError, match=r"model\.safetensors"):
            evaluate(EvaluateConfig(tmp_path / "model", folder / "features"))


def test_truth_of_another_corpus_is_refused_in_one_line(folder, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("id,true_d0\ntest000,1\n")
    with pytest.raises(UserError, match="39 of 40 clips have no row of their own"):
        evaluate(EvaluateConfig(folder / "model", folder / "features", out=tmp_path / "m.json", truth=truth))
