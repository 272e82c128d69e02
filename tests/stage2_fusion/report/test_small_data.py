"""Reports of a few clips: what they say must be true of a few clips."""

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.metrics import pcc
from shared.text import counted
from stage2_fusion.evaluation.results import read_evaluation
from stage2_fusion.report import write_report
from stage2_fusion.report.clip_table import ClipTable
from stage2_fusion.report.page import MISSING_TITLE
from stage2_fusion.report.sections.advice import _about_clips
from stage2_fusion.report.sections.score import chance_level


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
