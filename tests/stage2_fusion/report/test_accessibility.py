"""What reading, typing and drawing of a report need: contrast, the keyboard, and names in any script."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from stage2_fusion.evaluation.result_files import write_evaluation as write_results
from stage2_fusion.evaluation.results import EvaluationInfo, SeenClips, score_predictions
from stage2_fusion.report import figures, write_report
from stage2_fusion.report.page import CSS

STYLE = CSS.read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
)
TEXTS = [
    *[("text", on) for on in ("page", "surface", "notice")],
    *[("muted", "surface"), ("muted", "page"), ("accent", "surface"), ("accent", "page")],
    *[("fig-text", "fig-surface"), ("fig-muted", "fig-surface")],
]
MARKS = [(f"fig-{name}", "fig-surface") for name in ("blue", "vermilion", "green")] + [("accent", "page")]
NAMES = [
    "Bewunderung 名前",
    "إعجاب",
    "Joy 🎉👩‍🚀",
    "공감",
    "a bell \x07",
    "turned \u202e around",
    "ह‍र्ष <&\"'>",
]


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2.2 of two colors #rrggbb."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_and_marks_stand_out(colors):
    low = {pair: contrast(*(colors[name] for name in pair)) for pair in TEXTS}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    marks = {pair: contrast(*(colors[name] for name in pair)) for pair in MARKS}
    assert {pair: ratio for pair, ratio in marks.items() if ratio < 3} == {}


def test_page_and_figures_have_the_same_light_colors():
    drawn = {name: color for color, name in figures.CSS_NAMES.items() if name != "fig-surface"}
    assert drawn == {name: LIGHT[name] for name in drawn}
    assert set(DARK) == set(LIGHT)


def test_focus_is_seen_and_what_scrolls_can_be_reached(tmp_path):
    labels = np.random.default_rng(0).random((9, 1))
    html = write_report([write_evaluation(tmp_path / "m.json", labels, labels)], tmp_path / "r.html").path.read_text()
    assert re.search(r":focus-visible \{ outline: 3px solid var\(--accent\)", html) and "outline: none" not in html
    assert (
        len(re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+"', html))
        == html.count('class="scroll"')
        > 0
    )
    assert html.count("<pre") == html.count('<pre tabindex="0"')
    assert all(re.match(r"<details><summary>[^<]", part) for part in re.findall(r"<details>.*", html))


@pytest.mark.usefixtures("drawn")
def test_names_in_any_script_stay_whole_in_figures(tmp_path):
    rng, names = np.random.default_rng(0), NAMES
    labels = rng.random((20, len(names)))
    seen = SeenClips(0, 0)
    info = EvaluationInfo("test", "subject", NAMES[0], configuration={}, made_from={}, seen=seen, seen_by_encoders=0)
    ids = [f"{names[i % len(names)]} {i}" for i in range(20)]
    groups = [f"{names[i % 5]}" for i in range(20)]
    scored = score_predictions(info, names, ids, groups, labels + rng.normal(size=labels.shape), labels, 20, 0)
    write_results(tmp_path / "m.json", scored)
    report = write_report([tmp_path / "m.json"], tmp_path / "r.html", sections=["score", "dimensions", "clips"])
    assert not any("could not be made" in line for line in report.missing), report.missing
    texts = ["".join(ElementTree.parse(file).getroot().itertext()) for file in report.figures.glob("*.svg")]
    assert "font-family: 'DejaVu" not in report.path.read_text()  # texts of the page take its font
    for name in names:
        assert any(figures.short(name, 24) in text for text in texts), name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x00b\x07", "a b"),
        ("x\u202ey", "x y"),
        ("👩‍🚀", "👩‍🚀"),
        ("\ud800", "\ufffd"),
        ("إعجاب", "إعجاب"),
        ("a" * 50, "a" * 39 + "…"),
    ],
)
def test_short_names_hold_what_can_be_drawn(name, shown):
    assert figures.short(name) == shown
