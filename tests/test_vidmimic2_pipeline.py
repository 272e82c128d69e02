"""Hume-Vidmimic2 as distributed, from its folders to scores: with our own encoders, and with the features that come
with the dataset."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import emit
from helpers.stage1_tiny import TOWERS

from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.layouts.vidmimic2.pickles import read_features
from stage2_fusion.data.features import FeatureDataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A folder with a corpus in the official layout, encoders, both kinds of features, and a fusion model of each."""
    folder = tmp_path_factory.mktemp("vidmimic2")
    root, clips, encoders = folder / "root", folder / "clips", folder / "encoders"
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    align["train"] = {"epochs": 1, "batch_size": 8, "mixed_precision": "no"}
    (folder / "align.yaml").write_text(yaml.safe_dump(align))
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": {"epochs": 2, "batch_size": 8}}
    (folder / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    assert emit("synth", "--layout", "vidmimic2", "--clips", 24, "--out", root, "--workers", 1) == 0
    assert emit("check", root) == 0
    options = ["--layout_options", "{crops: precomputed}"]
    assert emit("prepare", root, *options, "--out", clips, "--workers", 1) == 0
    assert emit("align", "--config", folder / "align.yaml", "--data", clips, "--run", folder / "align") == 0
    assert emit("export", folder / "align", "--out", encoders) == 0
    assert emit("encode", "--encoders", encoders, "--data", clips, "--out", folder / "own") == 0
    assert emit("encode", "--precomputed", root, "--data", clips, "--out", folder / "precomputed") == 0
    both = ["--precomputed", root, "--encoders", encoders]
    assert emit("encode", *both, "--data", clips, "--out", folder / "words", "--damaged_views", 1) == 0
    for name in ("own", "precomputed", "words"):
        run = ["--data", folder / name, "--run", folder / f"fuse_{name}"]
        assert emit("fuse", "--config", folder / "fuse.yaml", *run) == 0
    return folder


def ids(root: Path, split: str) -> set[str]:
    with (root / f"{split}_split.csv").open() as file:
        return {row["Filename"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", ["own", "precomputed", "words"])
def test_validation_clips_are_scored(pipeline, name):
    out = pipeline / f"{name}.json"
    model = pipeline / f"fuse_{name}" / "model"
    assert emit("evaluate", "--model", model, "--data", pipeline / name, "--split", "valid", "--out", out) == 0
    metrics = json.loads(out.read_text())
    assert set(metrics["pcc"]["per_dimension"]) == set(EMI) and -1 <= metrics["pcc"]["mean"] <= 1
    assert metrics["n"] == len(ids(pipeline / "root", "valid")) and metrics["clips"]["group"] == "seed"
    assert (metrics["weights"]["text"] is None) == (name == "precomputed")
    # What the networks behind precomputed features were trained on is not known, but it was not these clips.
    unknown = "the features of vision and audio came with the dataset: their training is not known"
    chosen = f"the epoch of the encoders was chosen by {metrics['n']} of these clips"
    expected = {"own": [chosen], "words": [unknown, chosen], "precomputed": [unknown]}[name]
    assert metrics["seen_by_encoders"] == 0 and metrics["notes"] == expected
    assert (model / "encoders").is_dir() == (name != "precomputed")


def test_test_split_has_no_labels_to_score(pipeline):
    with pytest.raises(UserError, match="no clip of split 'test' is labeled"):
        emit(
            "evaluate",
            "--model",
            pipeline / "fuse_precomputed" / "model",
            "--data",
            pipeline / "precomputed",
            "--split",
            "test",
        )


def test_precomputed_features_equal_the_pickles(pipeline):
    data, counts = FeatureDataset.open(pipeline / "precomputed"), {"vision": 0, "audio": 0}
    assert {sample.split for sample in data.samples} == {"train", "valid", "test"}
    for views in data.by_clip():
        sample = views[0]
        place = pipeline / "root" / ("test_data" if sample.split == "test" else ".")
        for modality, folder in (("vision", "vit"), ("audio", "wav2vec2")):
            path = place / folder / f"{sample.id}.pkl"
            stored = read_features(path) if path.exists() else np.zeros((0, 1), np.float32)
            part = sample.modality(modality)
            assert part.steps == len(stored)
            if len(stored):
                np.testing.assert_array_equal(part.sequence, stored.astype(np.float16))
                assert part.quality.any() and len(part.quality) == len(stored)
                assert (np.diff(part.times) > 0).all() and part.times[-1] < sample.duration + 0.1
                counts[modality] += 1
        assert not sample.text.steps and not any(sample.modality(m).pooled.any() for m in counts)
    assert min(counts.values()) > 12


def test_text_features_beside_precomputed_ones_come_from_the_encoders(pipeline):
    own, words = (FeatureDataset.open(pipeline / name, views=(0,)) for name in ("own", "words"))
    assert words.info.widths == {**own.info.widths, "vision": 384, "audio": 768}
    for a, b in zip(own.samples, words.samples, strict=True):
        for key in ("sequence", "pooled", "quality"):
            np.testing.assert_array_equal(getattr(a.text, key), getattr(b.text, key))
        assert not b.audio.pooled.any()


def read_predictions(path: Path) -> dict[str, list[float]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Filename"] for row in rows] == sorted({row["Filename"] for row in rows})
    return {row["Filename"]: [float(row[name]) for name in EMI] for row in rows}


@pytest.mark.parametrize("name", ["own", "precomputed", "words"])
def test_predictions_from_features_equal_those_of_an_evaluation(pipeline, name, tmp_path):
    """With damaged views in the features, and on a split without labels too."""
    model, data = pipeline / f"fuse_{name}" / "model", pipeline / name
    assert emit("evaluate", "--model", model, "--data", data, "--split", "valid", "--out", tmp_path / "e.json") == 0
    out = tmp_path / "p.csv"
    assert emit("predict", "--model", model, "--data", data, "--split", "valid", "--out", out) == 0
    predicted, evaluated = read_predictions(out), read_predictions(tmp_path / "e_predictions.csv")
    assert predicted.keys() == evaluated.keys() == ids(pipeline / "root", "valid")
    np.testing.assert_allclose(list(predicted.values()), list(evaluated.values()), atol=2e-6)
    assert emit("predict", "--model", model, "--data", data, "--split", "test", "--out", out) == 0
    assert read_predictions(out).keys() == ids(pipeline / "root", "test")


def test_media_are_read_with_the_layout_of_the_training_clips(pipeline, tmp_path, capsys):
    """With the crops of the dataset, so that the numbers are those from features; one row for picture and sound."""
    model, root, test = pipeline / "fuse_own" / "model", pipeline / "root", ids(pipeline / "root", "test")
    emit("predict", "--model", model, "--data", pipeline / "own", "--split", "test", "--out", tmp_path / "f.csv")
    expected = read_predictions(tmp_path / "f.csv")
    capsys.readouterr()
    for source, options in ((root, ["--split", "test"]), (root / "test_data", [])):
        out = tmp_path / "p.csv"
        assert emit("predict", source, "--model", model, "--out", out, *options) == 0
        said = capsys.readouterr().err
        assert "layout vidmimic2 {crops: precomputed}, as the training clips of the model" in said
        assert "seen in training" not in said
        predicted = read_predictions(out)
        assert predicted.keys() == test
        np.testing.assert_allclose(list(predicted.values()), [expected[name] for name in predicted], atol=1e-4)
    from stage2_fusion import Predictor

    predictor = Predictor.from_pretrained(model)
    for result in predictor.predict_source(root, split="test"):
        np.testing.assert_allclose(list(result.intensities.values()), expected[result.id], atol=1e-4)
    own = ["--layout", "vidmimic2", "--layout_options", "{crops: own}", "--split", "test"]
    assert emit("predict", root, "--model", model, "--out", tmp_path / "own.csv", *own) == 0
    other = read_predictions(tmp_path / "own.csv")
    assert max(abs(other[n][k] - expected[n][k]) for n in test for k in range(len(EMI))) > 1e-3


@pytest.mark.parametrize("name", ["own", "precomputed"])
def test_submission_is_accepted_and_scores_as_an_evaluation_does(pipeline, name, tmp_path, capsys):
    model, data, root = pipeline / f"fuse_{name}" / "model", pipeline / name, pipeline / "root"
    out, common = tmp_path / "submission.csv", ["--model", model, "--data", data]
    assert emit("submit", root, *common, "--out", out) == 0
    assert out.read_text().splitlines()[0] == (root / "test_split.csv").read_text().splitlines()[0]
    assert [row.split(",")[0] for row in out.read_text().splitlines()[1:]] == sorted(ids(root, "test"))
    assert emit("submit", root, "--check", out) == 0
    emit("evaluate", *common, "--split", "valid", "--out", tmp_path / "e.json")
    capsys.readouterr()
    assert emit("submit", root, *common, "--split", "valid", "--out", tmp_path / "valid.csv") == 0
    pcc = json.loads((tmp_path / "e.json").read_text())["pcc"]["mean"]
    assert f"mean PCC {pcc:.4f} on {len(ids(root, 'valid'))} labeled clips" in capsys.readouterr().out
    submitted, evaluated = read_predictions(tmp_path / "valid.csv"), read_predictions(tmp_path / "e_predictions.csv")
    np.testing.assert_allclose(list(submitted.values()), list(evaluated.values()), atol=2e-6)
    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines[:1], *lines[2:]]))
    assert emit("submit", root, "--check", out) == 1
    assert f"missing ids (1): {min(ids(root, 'test'))}" in capsys.readouterr().out


def test_submission_from_media_fills_clips_that_cannot_be_read(pipeline, tmp_path, capsys):
    """A test clip loses its files and its words; it gets the mean labels of the training clips."""
    root, model = tmp_path / "root", pipeline / "fuse_own" / "model"
    shutil.copytree(pipeline / "root", root)
    lost, out = min(ids(root, "test")), tmp_path / "submission.csv"
    for path in (root / "test_data").glob(f"*/{lost}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert emit("submit", root, "--model", model, "--out", out) == 0
    assert (
        f"1 clip without a prediction: the mean label of the training clips stands in: {lost}"
        in capsys.readouterr().err
    )
    with (root / "train_split.csv").open() as file:
        means = np.mean([[float(row[name]) for name in EMI] for row in csv.DictReader(file)], axis=0)
    rows = read_predictions(out)
    np.testing.assert_allclose(rows[lost], means, atol=0.05)  # clips that could not be prepared taught nothing
    assert lost in (tmp_path / "submission_filled.csv").read_text() and rows.keys() == ids(root, "test")
    mean = tmp_path / "mean.csv"
    emit("predict", "--data", pipeline / "own", "--split", "test", "--model", model, "--out", tmp_path / "p.csv")
    assert emit("ensemble", out, tmp_path / "p.csv", "--out", mean) == 0
    assert emit("submit", root, "--predictions", mean, "--out", tmp_path / "final.csv") == 0
    assert emit("submit", root, "--check", tmp_path / "final.csv") == 0


def test_training_clips_are_said_to_be_seen(pipeline, tmp_path, capsys):
    model, root = pipeline / "fuse_own" / "model", pipeline / "root"
    counts = f"{len(ids(root, 'train'))} of the clips trained this model and {len(ids(root, 'valid'))} chose its epoch"
    emit("predict", "--data", pipeline / "own", "--model", model, "--out", tmp_path / "p.csv")
    assert counts in capsys.readouterr().err
    emit("predict", root / "raw", "--model", model, "--out", tmp_path / "p.csv")
    said = capsys.readouterr().err
    assert counts in said and "read as media alone, unlike the training clips (layout vidmimic2" in said
    with pytest.raises(UserError, match="no clips of split 'tset'; splits here: test, train, valid"):
        emit("predict", root, "--model", model, "--split", "tset", "--out", tmp_path / "p.csv")


@pytest.mark.parametrize("more", [[], ["--encoders"]])
def test_prediction_with_precomputed_features_is_refused_in_one_line(pipeline, more, tmp_path):
    video = next((pipeline / "root" / "raw").iterdir())
    more = [*more, pipeline / "encoders"] if more else []
    with pytest.raises(UserError, match="features that came with its clips") as caught:
        emit("predict", "--model", pipeline / "fuse_precomputed" / "model", video, *more, "--out", tmp_path / "p.csv")
    assert "\n" not in str(caught.value) and not (tmp_path / "p.csv").exists()


def test_features_of_another_kind_are_refused(pipeline):
    with pytest.raises(UserError, match="run `emit encode` with --precomputed"):
        emit(
            "evaluate",
            "--model",
            pipeline / "fuse_precomputed" / "model",
            "--data",
            pipeline / "own",
            "--split",
            "valid",
        )
    with pytest.raises(UserError, match="with the encoders kept in the model folder"):
        emit(
            "evaluate",
            "--model",
            pipeline / "fuse_own" / "model",
            "--data",
            pipeline / "precomputed",
            "--split",
            "valid",
        )


def test_subset_of_the_clips_gets_the_same_scores(pipeline, tmp_path):
    """A dataset of the validation clips alone has the same features in other files."""
    root = tmp_path / "root"
    shutil.copytree(pipeline / "root", root, ignore=shutil.ignore_patterns("test_data", "test_split.csv", "truth.csv"))
    with (root / "train_split.csv").open() as file:
        header = file.readline()
    (root / "train_split.csv").write_text(header)
    options = ["--layout_options", "{crops: precomputed}"]
    assert emit("prepare", root, *options, "--out", tmp_path / "clips", "--workers", 1) == 0
    assert emit("encode", "--precomputed", root, "--data", tmp_path / "clips", "--out", tmp_path / "features") == 0
    model = pipeline / "fuse_precomputed" / "model"
    scored = []
    for data in (tmp_path / "features", pipeline / "precomputed"):
        out = tmp_path / "m.json"
        assert emit("evaluate", "--model", model, "--data", data, "--split", "valid", "--out", out) == 0
        scored.append(json.loads(out.read_text())["pcc"])
    assert scored[0] == scored[1]
