"""Drawings take most of the time of a report: tests that do not look at them have a blank one instead."""

import pytest

from stage2_fusion.report import figures, write

BLANK = '<svg viewBox="0 0 10 10" width="10pt"></svg>', b"png"


@pytest.fixture
def drawn(monkeypatch):
    """Real drawings, in coarse dots."""
    monkeypatch.setattr(figures, "PNG_DPI", 30)


@pytest.fixture(autouse=True)
def blank_drawings(request, monkeypatch):
    """A blank drawing for every figure of a test that does not ask for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(write, "render", lambda figure: BLANK)
