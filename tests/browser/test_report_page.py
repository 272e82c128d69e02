"""A report in a browser, by keyboard alone."""

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from stage2_fusion.report import write, write_report


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A report with folded parts: the configuration of an evaluation."""
    monkeypatch.setattr(write, "render", lambda figure: ('<svg viewBox="0 0 10 10" width="10pt"></svg>', b"png"))
    labels = np.random.default_rng(0).random((30, 2))
    path = write_evaluation(tmp_path / "m.json", labels, labels, model="dual")
    return write_report([path], tmp_path / "r.html", sections=["score", "configuration"]).path


def test_a_report_is_read_by_keyboard(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0  # seen once it has the focus
    for _ in range(30):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineWidth]"
        )
        assert outline == "3px", tag
        if tag == "SUMMARY":
            break
    assert tag == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")
    assert page.locator("details pre").first.is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "PRE"  # long lines are scrolled by the arrow keys
    page.close()
