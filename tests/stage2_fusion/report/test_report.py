"""`emit report` on evaluations, runs and folders with parts missing."""

import re

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from stage2_fusion.evaluation.results import read_evaluation
from stage2_fusion.report import write_report


@pytest.fixture
def evaluation(tmp_path):
    """An evaluation of 40 clips in two dimensions."""
    rng = np.random.default_rng(0)
    labels = rng.random((40, 2))
    return write_evaluation(tmp_path / "m.json", labels + 0.3 * rng.normal(size=(40, 2)), labels, model="dual")


def test_an_evaluation_alone_makes_a_report_with_its_scores(evaluation, tmp_path):
    report = write_report([evaluation], tmp_path / "r.html")
    html, scores = report.path.read_text(), read_evaluation(evaluation).scores
    for name, value in scores.pcc.per_dimension.items():
        assert re.search(rf'<th scope="row">{name}</th><td class="number">{value:.3f}</td>', html)
    assert any("no baseline" in line for line in report.missing)
    assert "could not be made" not in html


@pytest.mark.parametrize("content", [None, "folder", "text"])
def test_what_is_no_run_is_one_line(tmp_path, content):
    path = tmp_path / "x"
    if content == "folder":
        path.mkdir()
    elif content == "text":
        path.write_text("nothing")
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*give"):
        write_report([path], tmp_path / "r.html")
