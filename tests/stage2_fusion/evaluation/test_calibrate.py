"""Calibration at the end of a run: what the model folder holds, that it survives, and what is made of it."""

import csv
import shutil

import numpy as np
import pytest
from helpers import synthetic_features
from safetensors.numpy import load_file, save_file

from shared.errors import UserError
from shared.saved.checksum import seal
from stage2_fusion import FeatureDataset, FusionModel, trainer
from stage2_fusion.commands import predict as predict_command
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.inference import run_model
from stage2_fusion.models.calibration import FILE
from stage2_fusion.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return synthetic_features.write_features(
        tmp_path_factory.mktemp("features") / "features", {"train": 64, "valid": 42, "test": 42}
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "run"


@pytest.fixture(scope="module")
def folder(data, run):
    return train(synthetic_features.config(data, run, "--model", "concat", "--train.epochs", 2))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_scores_are_residuals_of_the_saved_model_on_the_validation_clips(folder, data):
    model, valid = FusionModel.from_pretrained(folder), FeatureDataset.open(data, "valid", (0,))
    fitted = model.calibration.intervals
    predictions = run_model(model, valid.samples, 8).predictions
    expected = np.abs(valid.labels() - predictions) / fitted.spread(predictions)
    np.testing.assert_allclose(fitted.scores, expected, rtol=1e-3, atol=1e-4)
    groups = [sample.groups["subject"] for sample in valid.samples]
    assert len(set(zip(groups, fitted.groups.tolist(), strict=True))) == len(set(groups)) == 7
    missing = np.array([[sample.modality(name).steps == 0 for name in ("vision", "audio", "text")] for sample in valid])
    familiarity = model.calibration.familiarity
    assert missing.any() and (np.isnan(familiarity.validation) == missing.repeat(2, axis=1)).all()
    assert len(familiarity.training) == 64 and not set(familiarity.training_groups) & set(familiarity.validation_groups)


def test_run_that_is_killed_while_it_calibrates_ends_with_the_same_files(folder, data, tmp_path, monkeypatch):
    config = synthetic_features.config(data, tmp_path / "run", "--model", "concat", "--train.epochs", 2)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "calibrate", killed)
        train(config)
    assert not (tmp_path / "run" / "model" / FILE).exists()
    again = train(config)
    for name in (FILE, "model.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_calibration_is_under_the_checksum_and_survives_saving(copy, tmp_path):
    model = FusionModel.from_pretrained(copy)
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / FILE).read_bytes() == (copy / FILE).read_bytes()
    tensors = load_file(copy / FILE)
    save_file({**tensors, "intervals.scores": tensors["intervals.scores"] / 2}, copy / FILE)
    with pytest.raises(UserError, match=f"{FILE} changed"):
        FusionModel.from_pretrained(copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intervals.scores", np.zeros((4, 3), np.float32)),
        ("intervals.groups", np.zeros(3, np.int32)),
        ("intervals.spreads", np.full((2, 3), np.nan, np.float32)),
        ("familiarity.vision.signals.components", np.zeros((2, 2), np.float32)),
        ("familiarity.validation", np.full((3, 6), np.inf, np.float32)),
        ("familiarity.vision.features.mean", np.zeros(3, np.float32)),
        ("familiarity.validation_groups", None),
    ],
)
def test_model_with_a_calibration_of_another_version_says_so_and_predicts_without(copy, capsys, name, value):
    tensors = load_file(copy / FILE) | {name: value}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, copy / FILE)
    seal(copy)
    assert FusionModel.from_pretrained(copy).calibration is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{FILE}: of another version (" in line and "not known; train the model again" in line


def test_evaluation_reports_coverage_and_width(folder, data, tmp_path):
    out = tmp_path / "scores.json"
    evaluation = evaluate(EvaluateConfig(model=folder, data=data, out=out, bootstrap=0, coverage=0.8))
    intervals = evaluation.info.intervals
    fitted, test = FusionModel.from_pretrained(folder).calibration.intervals, FeatureDataset.open(data, "test", (0,))
    predictions = run_model(FusionModel.from_pretrained(folder), test.samples, 8).predictions
    low, high = fitted.bounds(predictions, 0.8)
    inside = ((low <= test.labels()) & (test.labels() <= high)).mean(axis=0)
    assert list(intervals.coverage.per_dimension.values()) == pytest.approx(inside)
    assert list(intervals.width.per_dimension.values()) == pytest.approx((high - low).mean(axis=0))
    assert inside.min() > 0.5 and (high - low).max() < 1
    assert "in 80%" in score_table(evaluation) and (evaluation.info.unlike.count, evaluation.info.unlike.of) == (
        None,
        42,
    )
    assert "unlike the training data: not known (7 people or groups in validation; 19" in score_table(evaluation)
    read = read_evaluation(out)
    assert (read.info.intervals, read.info.unlike) == (intervals, evaluation.info.unlike)


def test_model_without_calibration_is_scored_without_intervals(copy, data, tmp_path):
    (copy / FILE).unlink()
    seal(copy)
    evaluation = evaluate(EvaluateConfig(model=copy, data=data, out=tmp_path / "scores.json", bootstrap=0))
    assert evaluation.info.intervals is None and evaluation.info.unlike is None
    assert " in 90%" not in score_table(evaluation)


def predict(model, data, out, coverage) -> list[dict[str, str]]:
    """The rows that `emit predict --coverage` writes about the test clips."""
    argv = ["--model", model, "--data", data, "--split", "test", "--out", out, "--coverage", coverage]
    assert predict_command.main([str(part) for part in argv]) == 0
    with out.open() as file:
        return list(csv.DictReader(file))


def test_predict_writes_intervals_that_hold_as_many_labels_as_the_evaluation_says(folder, data, tmp_path, capsys):
    rows = predict(folder, data, tmp_path / "predictions.csv", 0.8)
    assert list(rows[0]) == ["Filename", "d0", "d1", "d0_low", "d0_high", "d1_low", "d1_high"]
    info = evaluate(EvaluateConfig(model=folder, data=data, out=tmp_path / "e.json", bootstrap=0, coverage=0.8)).info
    labels = {sample.id: sample.labels for sample in FeatureDataset.open(data, "test", (0,)).samples}
    for k, name in enumerate(("d0", "d1")):
        low, value, high = (np.array([float(row[f"{name}{end}"]) for row in rows]) for end in ("_low", "", "_high"))
        assert (low <= value).all() and (value <= high).all() and (high - low).max() < 1
        label = np.array([labels[row["Filename"]][k] for row in rows])
        assert ((low <= label) & (label <= high)).mean() == pytest.approx(info.intervals.coverage.per_dimension[name])
    assert "7 people or groups in validation" in capsys.readouterr().err
    with (tmp_path / "predictions_basis.csv").open() as file:
        assert {row["unlike"] for row in csv.DictReader(file)} == {"not known"}


def test_predict_says_what_more_coverage_needs_and_refuses_a_model_that_knows_no_intervals(
    copy, data, tmp_path, capsys
):
    rows = predict(copy, data, tmp_path / "all.csv", 0.95)
    assert {(row["d0_low"], row["d1_high"]) for row in rows} == {("0.000000", "1.000000")}
    assert "a coverage of 0.95 needs 19 validation groups with labels, the model has 7" in capsys.readouterr().err
    (copy / FILE).unlink()
    seal(copy)
    with pytest.raises(UserError, match=r"its intervals are not known.*train it again .*or predict without --coverage"):
        predict(copy, data, tmp_path / "none.csv", 0.8)
    assert not (tmp_path / "none.csv").exists()
