"""Dimensions without training labels, splits too small for a score, clips without modalities: named or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import write_evaluation
from helpers.synthetic_features import config

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.commands import evaluate as evaluate_command
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.commands.compare import CompareConfig, compare
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard
from stage2_fusion.commands.merge_folds import main as merge_folds
from stage2_fusion.commands.robustness import RobustnessConfig, robustness
from stage2_fusion.data.features import FeatureSample, write
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FusionModel
from stage2_fusion.train import train

NAN = np.nan
COUNTS = {"train": 16, "valid": 8, "test": 8}


def features(
    path: Path, change: Callable[[FeatureSample, int], FeatureSample | None], k: int = 3, **counts: int
) -> Path:
    """Features in which `change(sample, number of the clip in its split)` has changed every sample."""
    rows, seen = [], {}
    for sample in synthetic_features.samples(COUNTS | counts, k=k, views=1):
        number = seen.setdefault(sample.split, {}).setdefault(sample.id, len(seen[sample.split]))
        rows.append(change(sample, number) or sample)
    write(path, rows, synthetic_features.info(k))
    return path


def unlabeled(sample: FeatureSample, number: int) -> None:
    """d0 is not labeled in training, d2 is 0.5 in all training clips but one without it."""
    if sample.split == "train":
        sample.labels[0] = NAN
        sample.labels[2] = NAN if number == 3 else 0.5


@pytest.mark.parametrize("model", MODELS.names())
def test_no_model_predicts_what_no_label_teaches(model, tmp_path, capsys):
    data = features(tmp_path / "f", unlabeled)
    folder = train(config(data, tmp_path / "run", "--model", model, "--train.epochs", 1))
    printed = "".join(capsys.readouterr())
    assert "d0 (not labeled); d2 (all labels are 0.5)" in printed and printed.count("left out") == 1
    loaded = FusionModel.from_pretrained(folder)
    assert loaded.config.label_names == ["d1"] and loaded.dimensions == 1
    evaluation = evaluate(EvaluateConfig(folder, data, bootstrap=10))
    assert evaluation.names == ["d1"] and evaluation.predictions.shape == (8, 1)
    assert "not predicted by this model: d0, d2" in score_table(evaluation)
    assert evaluation.info.leak_probe.why  # no transcripts here; the probe copes with fewer dimensions


def test_baseline_leaves_the_same_dimensions_out(tmp_path):
    data = features(tmp_path / "f", unlabeled)
    evaluation = baseline(BaselineConfig(data, tmp_path / "o.json", bootstrap=10))
    assert evaluation.names == ["d1"] and "d0 (not labeled); d2 (all labels are 0.5)" in score_table(evaluation)
    assert json.loads((tmp_path / "o.json").read_text())["pcc"]["per_dimension"].keys() == {"d1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, n: s.labels.fill(0.25), "split 'train': nothing can be learned from its labels: d0 (all labels are"),
        (lambda s, n: s.labels.fill(NAN) if s.split == "train" else None, "split 'train': no labeled clips"),
        (lambda s, n: s.labels.fill(NAN) if n and s.split == "train" else None, "d0 (1 labeled clip); d1 (1 labeled"),
        (
            lambda s, n: s.labels.fill(NAN) if n and s.split == "valid" else None,
            "split 'valid': its labels allow no PCC",
        ),
        (lambda s, n: s.labels.fill(NAN) if n > 1 and s.split == "valid" else None, "d0 (2 labeled clips, where a"),
        (lambda s, n: s.labels.fill(0) if s.split == "valid" else None, "d0 (all labels are 0); d1 (all labels are 0)"),
    ],
)
def test_labels_that_allow_nothing_are_refused_by_fuse_and_baseline(change, words, tmp_path):
    data = features(tmp_path / "f", lambda sample, number: change(sample, number), k=2)
    with pytest.raises(UserError) as error:
        train(config(data, tmp_path / "run", "--model", "concat"))
    assert words in str(error.value) and not (tmp_path / "run").exists()
    words = "split 'train': no clip of it is labeled" if "no labeled clips" in words else words
    with pytest.raises(UserError) as error:
        baseline(BaselineConfig(data, tmp_path / "o.json"))
    assert words in str(error.value)


def test_a_dimension_that_validation_cannot_score_is_said_once(tmp_path, capsys):
    def change(sample: FeatureSample, number: int) -> None:
        if sample.split == "valid" and number > 1:
            sample.labels[0] = NAN

    data = features(tmp_path / "f", change, k=2)
    folder = train(config(data, tmp_path / "run", "--model", "concat", "--train.epochs", 2))
    printed = "".join(capsys.readouterr())
    assert printed.count("not scored on split 'valid', and so not counted in its PCC: d0 (2 labeled clips") == 1
    valid = FusionModel.from_pretrained(folder).metrics["valid"]["pcc"]
    assert valid["per_dimension"]["d0"] is None and valid["mean"] == valid["per_dimension"]["d1"]


def test_clips_without_what_the_model_reads_are_refused_or_counted(tmp_path, capsys):
    data = features(tmp_path / "f", lambda sample, number: sample.without("audio"), k=2)
    with pytest.raises(UserError, match="split 'train': none of its 16 clips has audio, so all predictions"):
        train(config(data, tmp_path / "run", "--model", "lstm_vad"))
    with pytest.raises(UserError, match="none of its 16 clips has audio"):
        baseline(BaselineConfig(data, tmp_path / "o.json", modalities=["audio"]))

    def some(sample: FeatureSample, number: int) -> FeatureSample | None:
        if sample.split == "train" and number < 3:
            for name in MODALITIES:
                sample = sample.without(name)
        return sample

    data = features(tmp_path / "g", some, k=2)
    train(config(data, tmp_path / "run2", "--model", "concat", "--train.epochs", 1))
    assert "3 of 16 clips have no vision or audio or text: nothing of them is read" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    data = features(folder / "f", lambda sample, number: None, k=2)
    return train(config(data, folder / "run", "--model", "concat", "--train.epochs", 1))


def test_scores_of_one_clip_are_not_numbers(model, tmp_path, capsys):
    data = features(tmp_path / "f", lambda sample, number: None, k=2, test=1)
    arguments = ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "o.json")]
    assert evaluate_command.main(arguments) == 0
    printed = "".join(capsys.readouterr())
    assert "1 labeled clip, where a correlation needs 3" in printed and "no PCC: each dimension says why" in printed
    for line in printed.splitlines()[1:4]:
        assert line.split()[1:4] == ["n/a"] * 3 and 0 < float(line.split()[4]) < 1  # the error of one clip is a number
    metrics = json.loads((tmp_path / "o.json").read_text())
    assert metrics["pcc"]["mean"] is None and metrics["damaged_on_purpose"]["pcc_damaged"] is None
    with pytest.raises(UserError, match="split 'test': its labels allow no PCC"):
        robustness(RobustnessConfig([str(model)], data, out=tmp_path / "r.json"))


def test_one_group_has_no_interval(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = rng.random((12, 2))
    a, b = (
        write_evaluation(
            tmp_path / f"{name}.json", labels + rng.normal(0, 0.2, labels.shape), labels, groups=["s"] * 12
        )
        for name in ("a", "b")
    )
    metrics = json.loads(a.read_text())
    assert metrics["pcc"]["mean"] > 0.5 and metrics["pcc"]["interval"] is None
    assert set(metrics["pcc"]["interval_per_dimension"].values()) == {None}
    average = ensemble(EnsembleConfig([a, b], tmp_path / "e.json"))
    assert "without an interval: all clips are of one group" in score_table(average)
    difference = compare(CompareConfig(a, b))
    assert difference.mean is not None and difference.mean.interval is None and difference.mean.a_ahead is None
    rows = leaderboard(LeaderboardConfig([f"x={a}", f"x={b}", f"y={b}"], against="y")).rows
    assert all(row.interval is None and row.difference_interval is None for row in rows)


def test_a_dimension_labeled_in_one_group_has_no_interval(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.random((12, 2))
    groups = [f"s{i % 3}" for i in range(12)]
    labels[[group != "s0" for group in groups], 0] = NAN
    path = write_evaluation(tmp_path / "a.json", rng.random((12, 2)), labels, groups=groups)
    intervals = json.loads(path.read_text())["pcc"]["interval_per_dimension"]
    assert intervals["d0"] is None and intervals["d1"][0] < intervals["d1"][1]


def test_folds_and_tables_say_n_a(tmp_path, capsys):
    rng = np.random.default_rng(2)
    labels = rng.random((8, 1))
    small = write_evaluation(tmp_path / "small.json", labels[:2], labels[:2], ids=["x0", "x1"], groups=["g", "h"])
    large = write_evaluation(tmp_path / "large.json", labels[2:], labels[2:], ids=[f"y{i}" for i in range(6)])
    assert merge_folds([str(small), str(large), "--out", str(tmp_path / "m.json")]) == 0
    assert "mean PCC of 1 of the 2 parts alone: 1.000 (n/a, 1.000)" in capsys.readouterr().out
    assert [part["pcc"] for part in json.loads((tmp_path / "m.json").read_text())["parts"]] == [None, pytest.approx(1)]
    board = leaderboard(LeaderboardConfig([f"a={large}", f"b={small}"], out=[tmp_path / "b.csv"]))
    assert [row.system for row in board.rows] == ["a", "b"] and board.rows[1].pcc is None
    assert any("b: no PCC" in line for line in board.text())
    other = write_evaluation(tmp_path / "o.json", 1 - labels[:2], labels[:2], ids=["x0", "x1"], groups=["g", "h"])
    with pytest.raises(UserError, match="too few"):
        ensemble(EnsembleConfig([small, other], tmp_path / "e.json", method="ridge"))
