"""Kernel ridge regression on statistics of clips, against slow references."""

import csv
import itertools
import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import synthetic_features

from shared.commands.prepare import main as prepare
from shared.commands.synth import main as synth
from shared.dataset.clip_dataset import ClipDataset, ClipSample
from shared.dataset.splits import split_dataset
from shared.dataset.training_clips import fingerprints
from shared.errors import UserError
from stage2_fusion.commands.baseline import main as baseline
from stage2_fusion.evaluation import kernel_baseline
from stage2_fusion.evaluation.kernel_baseline import ClipStatistics, fit_kernel_ridge
from stage2_fusion.evaluation.result_files import read_evaluation

RATE = 16000


def clip(rng: np.random.Generator, frames: int, samples: int, words: str) -> ClipSample:
    empty = np.zeros(0, np.float32)
    pictures = rng.integers(0, 256, (frames, 48, 48, 3), dtype=np.uint8)
    sound = rng.normal(0, 0.1, samples).astype(np.float32)
    return ClipSample("x", "", words, 1.0, empty, {}, pictures, empty, sound, empty, empty, empty)


def statistics(rng: np.random.Generator, count: int) -> ClipStatistics:
    """Clips, some of which lack a modality."""
    pixels, gradients, audio = (rng.normal(size=(count, width)) for width in (10, 7, 5))
    pixels[0], gradients[0], audio[1] = np.nan, np.nan, np.nan
    return ClipStatistics(
        pixels, gradients, audio, [list(rng.choice(list("abcd"), 3)) if i != 2 else [] for i in range(count)]
    )


def test_statistics_are_those_over_time_and_nan_without_a_modality():
    rng = np.random.default_rng(0)
    both, silent = clip(rng, 3, 8000, "so Funny"), clip(rng, 1, 0, "")
    found = ClipStatistics.of([both, silent, clip(rng, 0, 400, "")], RATE, ["vision", "audio", "text"])
    assert (
        found.pixels.shape == (3, 2880)
        and found.gradients.shape == (3, 5292)
        and found.audio.shape == (3, 200)
        and found.words[0] == ["so", "funny"]
    )
    assert found.present().tolist() == [[True, True, True], [True, False, False], [False, True, False]]
    gray = both.frames.reshape(3, 24, 2, 24, 2, 3).mean(axis=(2, 4)).round().mean(axis=3) / 255  # (T, 24, 24)
    expected = [gray.mean(0), gray.std(0), gray.max(0), gray.min(0), np.abs(np.diff(gray, axis=0)).mean(0)]
    np.testing.assert_allclose(found.pixels[0].reshape(5, 24, 24), expected, atol=1 / 255)
    each = [ClipStatistics.of([replace(both, frames=both.frames[i : i + 1])], RATE, ["vision"]) for i in range(3)]
    cells = np.stack([one.gradients[0, :1764] for one in each])  # (T, 1764)
    np.testing.assert_allclose(
        found.gradients[0], np.concatenate([cells.mean(0), cells.std(0), cells.max(0)]), atol=1e-6
    )
    only = ClipStatistics.of([both], RATE, ["text"])
    assert only.present().tolist() == [[False, False, True]]


def test_predictions_are_those_of_the_normal_equations(monkeypatch):
    """With one width and penalty: y = m + k(x) (K + penalty I)^-1 (y - m), kernels summed pair by pair in loops."""
    monkeypatch.setattr(kernel_baseline, "WIDTHS", (2.0,))
    monkeypatch.setattr(kernel_baseline, "PENALTIES", (0.3,))
    monkeypatch.setattr(kernel_baseline, "AUDIO_SHARES", (0.5,))
    monkeypatch.setattr(kernel_baseline, "TEXT_SHARES", (0.4,))
    monkeypatch.setattr(kernel_baseline, "PIECES", (1, 2))
    rng = np.random.default_rng(1)
    parts = [statistics(rng, count) for count in (12, 6, 5)]
    labels, valid_labels = rng.random((12, 2)), rng.random((6, 2))
    labels[3, 1] = np.nan
    fit = fit_kernel_ridge(parts, labels, valid_labels)
    train, _, scored = parts

    def standard(name):
        x = getattr(train, name)
        mean, std = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        return [(getattr(part, name) - mean) / std for part in (train, scored)]

    def medians(x):
        rows = x[~np.isnan(x[:, 0])]
        return np.median([((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]])

    views = {name: standard(name) for name in ("pixels", "gradients", "audio")}

    def pairs(words):
        return [*words, *itertools.pairwise(words)]

    def pieces(words):
        text = f" {' '.join(words)} " if words else ""
        return [text[i : i + size] for size in (1, 2) for i in range(len(text) - size + 1)]

    def tf_idf(terms_of, words):
        terms, documents = terms_of(words), [set(terms_of(each)) for each in train.words]
        holding = {term: sum(term in each for each in documents) for term in terms}
        x = {t: (1 + math.log(terms.count(t))) * math.log(13 / holding[t]) for t in terms if holding[t] > 1}
        norm = math.sqrt(sum(v * v for v in x.values())) or 1.0
        return {t: v / norm for t, v in x.items()}

    def kernel(part, i, j):
        total = 0.0
        for name in ("pixels", "gradients", "audio"):
            a, b = views[name][part][i], views[name][0][j]
            if not np.isnan(a[0]) and not np.isnan(b[0]):
                total += 0.5 * math.exp(-((a - b) ** 2).sum() / medians(views[name][0]) / 4)
        for terms_of in (pairs, pieces):
            a, b = (tf_idf(terms_of, words) for words in ((train, scored)[part].words[i], train.words[j]))
            total += 0.2 * sum(a[t] * b[t] for t in a.keys() & b.keys())
        return total

    gram = np.array([[kernel(0, i, j) for j in range(12)] for i in range(12)])
    cross = np.array([[kernel(1, i, j) for j in range(12)] for i in range(5)])
    for k in range(2):
        rows = ~np.isnan(labels[:, k])
        y, count = labels[rows, k], rows.sum()
        weights = np.linalg.solve(gram[np.ix_(rows, rows)] + 0.3 * np.eye(count), y - y.mean())
        np.testing.assert_allclose(fit.predictions[:, k], np.clip(cross[:, rows] @ weights + y.mean(), 0, 1), atol=1e-5)
    assert fit.options == {"width": 2.0, "penalty": 0.3, "audio": 0.5, "text": 0.4}


def test_command_scores_clips_without_encoders(clips, tmp_path):
    assert baseline(["--data", str(clips), "--out", str(tmp_path / "media.json"), "--bootstrap", "20"]) == 0
    metrics = json.loads((tmp_path / "media.json").read_text())
    assert metrics["model"] == "kernel ridge" and metrics["seen"] == {"in_training": 0, "in_choosing": 0}
    assert metrics["clips"]["group"] == "subject" and metrics["seen_by_encoders"] == 0
    words = ["--data", str(clips), "--out", str(tmp_path / "words.json"), "--modalities", '["text"]']
    assert baseline([*words, "--bootstrap", "20"]) == 0
    assert json.loads((tmp_path / "words.json").read_text())["pcc"] != metrics["pcc"]


def test_clips_of_another_dataset_are_scored_and_known_by_their_content(clips, tmp_path):
    """The fold holds the same clips with other splits; the strangers have the same ids."""
    split_dataset(clips, tmp_path / "fold", folds=2, fold=1)
    assert synth(["--out", str(tmp_path / "corpus"), "--clips", "12", "--seed", "9", "--workers", "1"]) == 0
    recipe = ["--frame_size", str(ClipDataset.open(clips).info.recipe.frame_size), "--workers", "1"]
    assert prepare([str(tmp_path / "corpus"), "--out", str(tmp_path / "strangers"), *recipe]) == 0
    own, fold = ClipDataset.open(clips), ClipDataset.open(tmp_path / "fold", "test")
    split_of = dict(zip(own.column("id"), own.column("split"), strict=True))
    known = [split_of[name] for name in fold.column("id")]
    assert "train" in known and set(known) != {"train"}
    assert set(ClipDataset.open(tmp_path / "strangers").column("id")) <= split_of.keys()
    given = ["--data", str(clips), "--bootstrap", "0", "--out", str(tmp_path / "a.json"), "--scored_data"]
    for other, split, seen in (
        ("fold", "test", {"in_training": known.count("train"), "in_choosing": known.count("valid")}),
        ("strangers", "train", {"in_training": 0, "in_choosing": 0}),
    ):
        assert baseline([*given, str(tmp_path / other), "--split", split]) == 0
        evaluation = read_evaluation(tmp_path / "a.json")
        assert asdict(evaluation.info.seen) == seen and evaluation.unmet is None
        scored = ClipDataset.open(tmp_path / other, split)
        own = dict(zip(scored.column("id"), fingerprints(scored), strict=True))
        assert evaluation.ids == sorted(own) and evaluation.info.data == scored.digest
        np.testing.assert_array_equal(evaluation.fingerprints, [own[name] for name in evaluation.ids])
    assert prepare([str(tmp_path / "corpus"), "--out", str(tmp_path / "small"), "--frame_size", "24"]) == 0
    with pytest.raises(UserError, match=r"small: frame_size 24, but .* has \d+; make both alike"):
        baseline([*given, str(tmp_path / "small"), "--split", "train"])


def test_copy_of_a_training_clip_under_another_id_is_known_in_the_same_dataset(tmp_path):
    corpus = tmp_path / "corpus"
    assert synth(["--out", str(corpus), "--clips", "24", "--workers", "1"]) == 0
    with (corpus / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    original = next(row for row in rows if row["split"] == "train" and (corpus / row["Filename"]).is_file())
    copy = original | {"Filename": "clips/copy.mp4", "split": "test"}
    shutil.copy(corpus / original["Filename"], corpus / copy["Filename"])
    with (corpus / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(copy))
        writer.writeheader()
        writer.writerows([*rows, copy])
    assert prepare([str(corpus), "--out", str(tmp_path / "clips"), "--frame_size", "24", "--workers", "1"]) == 0
    assert baseline(["--data", str(tmp_path / "clips"), "--bootstrap", "0", "--out", str(tmp_path / "a.json")]) == 0
    assert asdict(read_evaluation(tmp_path / "a.json").info.seen) == {"in_training": 1, "in_choosing": 0}


def test_kind_that_does_not_read_the_data_is_refused(clips, tmp_path):
    features = synthetic_features.write_features(tmp_path / "f", {"train": 8, "valid": 4, "test": 4})
    wrong = ("--out", str(tmp_path / "a.json"))
    with pytest.raises(UserError, match="holds features, and --kind statistics reads media: give the clip dataset"):
        baseline(["--kind", "statistics", "--data", str(features), *wrong])
    with pytest.raises(UserError, match="holds clips, and --kind ridge reads features: give the output of `emit"):
        baseline(["--kind", "ridge", "--data", str(clips), *wrong])
    assert baseline(["--kind", "ridge", "--data", str(features), *wrong, "--bootstrap", "0"]) == 0


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_split_without_clips_is_refused(clips, tmp_path, split):
    option = {"train": "--train_split", "valid": "--valid_split", "test": "--split"}[split]
    with pytest.raises(Exception, match="no clips in split 'nowhere'"):
        baseline(["--data", str(clips), "--out", str(tmp_path / "a.json"), option, "nowhere"])


def test_texts_alone_are_fitted_once_for_each_weight_of_the_texts(monkeypatch):
    """Widths and shares of pictures and sound that no clip has would give the same kernels again."""
    rng = np.random.default_rng(2)
    parts = [statistics(rng, count) for count in (12, 6, 5)]
    for part in parts:
        for values in (part.pixels, part.gradients, part.audio):
            values[:] = np.nan
    solved, solve = [], kernel_baseline.solve
    monkeypatch.setattr(kernel_baseline, "solve", lambda *given: solved.append(given) or solve(*given))
    fit = fit_kernel_ridge(parts, rng.random((12, 2)), rng.random((6, 2)))
    assert len(solved) == len(kernel_baseline.TEXT_SHARES) and np.ptp(fit.predictions, axis=0).min() > 0
