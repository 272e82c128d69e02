"""Reports of a few clips: what they say must be true of a few clips."""

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.metrics import pcc
from shared.text import counted
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import SeenClips
from stage2_fusion.evaluation.verdict import chance_level
from stage2_fusion.report import write_report
from stage2_fusion.report.baseline import fit_by_folds
from stage2_fusion.report.clip_table import ClipTable
from stage2_fusion.report.page import MISSING_TITLE
from stage2_fusion.report.sections.advice import _about_clips


@pytest.fixture
def seven(tmp_path):
    """An evaluation of seven clips of one person."""
    labels = np.array([[0.1, 0.2, 0.5, 0.6, 0.3, 0.9, 0.7]]).T
    predictions = labels * 0.1 + 0.4
    return write_evaluation(tmp_path / "m.json", predictions, labels, groups=["anna"] * 7)


def test_chance_level_is_what_random_orders_reach(seven):
    evaluation = read_evaluation(seven)
    rng, labels = np.random.default_rng(99), evaluation.labels[:, 0]
    expected = np.quantile([pcc(rng.permutation(labels), labels) for _ in range(4000)], 0.95)
    assert chance_level(evaluation) == pytest.approx(expected, abs=0.05)


def test_score_of_one_person_has_no_interval_and_says_what_chance_reaches(seven, tmp_path):
    report = write_report([seven], tmp_path / "r.html", sections=["score", "dimensions"])
    lead = report.sections[0].lead
    assert "(1 " in lead and "there is no interval" in lead and "interval is too narrow" not in lead
    assert f"reach {chance_level(read_evaluation(seven)):.3f} or more" in lead and "this score is above that" in lead
    html = report.path.read_text()
    assert "95 % interval" not in html  # neither a column nor a caption about what is not there


def test_what_is_missing_stands_once_at_the_end(seven, tmp_path):
    report = write_report([seven], tmp_path / "r.html")
    html = report.path.read_text()
    shown, missing = html.split(f">{MISSING_TITLE}</h2>")
    assert all(section.title not in shown for section in report.sections if not (section.blocks or section.lead))
    assert "<strong>Robustness:</strong>" in missing and "<code>emit robustness" in missing
    assert missing.count("<li>") == len(report.missing) > 3


def test_advice_names_what_lacks(seven):
    yes, no = np.ones(7, bool), np.zeros(7, bool)
    labels = np.array([[0.5, np.nan]] * 3 + [[0.5, 0.5]] * 4, dtype=np.float32)
    table = ClipTable(
        list("abcdefg"), ["train"] * 5 + ["test"] * 2, ["joy", "awe"], labels, {}, np.ones(7),
        {"vision": yes, "audio": yes, "text": no},
    )  # fmt: skip
    said = {line.label: line.value for line in _about_clips(table, read_evaluation(seven))}
    assert list(said) == ["More clips to train on", "Words", "The missing labels"]
    assert "learned from 5 clips" in said["More clips to train on"] and "awe (57% of the clips)" in said[list(said)[2]]
    assert counted(1, "person") == "1 person" and counted(2000, "clip") == "2,000 clips"


def test_two_models_on_one_person_are_a_table_without_intervals(seven, tmp_path):
    first = read_evaluation(seven)
    folders = []
    for name, noise in (("a", 0.1), ("b", 0.3)):
        (tmp_path / name).mkdir()
        predictions = first.predictions + noise * np.random.default_rng(0).normal(size=first.labels.shape)
        folders.append(write_evaluation(tmp_path / name / "m.json", predictions, first.labels, groups=["anna"] * 7))
    report = write_report(folders, tmp_path / "r.html", sections=["score", "systems"])
    html = report.path.read_text()
    assert "could not be made" not in html
    assert "Systems compared" in html and "(a/m)" in html and "(b/m)" in html and "the order may be chance" in html


def test_run_without_an_evaluation_is_said(seven, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "truth.csv").write_text("id\n")
    report = write_report([seven, folder], tmp_path / "r.html", sections=["systems"])
    assert any(f"{folder} has no evaluation: run `emit evaluate" in line for line in report.missing)
    assert "compared with" not in report.path.read_text()


@pytest.mark.parametrize(
    ("sign", "baseline", "groups", "said"),
    [
        (-1.0, None, 10, "This model is no better than chance: do not use it."),
        (-1.0, 0.1, 10, "no better than chance and worse than the kernel ridge baseline: do not use it."),
        (1.0, 0.001, 10, "This model is worse than the kernel ridge baseline, which is cheap: do not use it."),
        (1.0, 3.0, 1, "One person cannot tell whether this model is useful"),
        (1.0, 3.0, 10, "On 60 clips of the test set (10 persons)"),
        (0.0, None, 10, "may be no better than chance"),
    ],
)
def test_a_model_of_no_use_is_called_so_at_once(tmp_path, sign, baseline, groups, said):
    rng = np.random.default_rng(3)
    labels = rng.random((60, 1))
    of = {"groups": [f"p{k % groups}" for k in range(60)], "group": "person"}
    noise = rng.normal(size=labels.shape)
    noise = noise - ((noise - noise.mean()) * (labels - labels.mean())).mean() / labels.var() * (labels - labels.mean())
    paths = [write_evaluation(tmp_path / "m.json", (sign or 0.02) * labels + 0.2 * noise, labels, **of)]
    if baseline:
        predictions = labels + baseline * noise
        paths.append(write_evaluation(tmp_path / "b.json", predictions, labels, model="kernel ridge", **of))
    report = write_report(paths, tmp_path / "r.html", sections=["score"])
    assert said in report.sections[0].lead[: len(said) + 30], report.sections[0].lead
    assert ("the strongest cheap baseline, kernel ridge baseline" in report.sections[0].lead) == bool(baseline)


def test_dimension_without_a_score_is_not_counted_and_choosing_clips_are_said(tmp_path):
    labels = np.random.default_rng(0).random((30, 3))
    labels[:, 1] = 0.5
    path = write_evaluation(tmp_path / "m.json", labels, labels, split="valid", seen=SeenClips(0, 30))
    lead = write_report([path], tmp_path / "r.html", sections=["score"]).sections[0].lead
    assert "the mean over 2 dimensions (d1 has no score" in lead and "These clips also selected the epoch" in lead


def test_penalty_is_chosen_by_folds_where_the_validation_clips_are_scored():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(200, 5)), np.array([[0.05], [-0.05], [0.1], [0.0], [0.02]])
    labels = features @ weights + 0.5
    predictions = fit_by_folds(features[:160], labels[:160], [f"p{k % 8}" for k in range(160)], features[160:])
    assert pcc(predictions[:, 0], np.clip(labels[160:, 0], 0, 1)) > 0.99
