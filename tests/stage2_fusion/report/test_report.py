"""`emit report` on evaluations, runs and folders with parts missing."""

import json
import re
import shutil
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.files import write_json
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.report import main
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.data.features import write
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import Unmet
from stage2_fusion.report import SECTIONS, Report, figures, write_report
from stage2_fusion.report import write as write_module
from stage2_fusion.report.speed_file import FORMAT, SpeedFile, SpeedRow, Timing
from stage2_fusion.train import train

HOSTILE = "<script>alert('x')</script> & \"$a_b$\" </svg> 名前"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A recipe's folder: features, a stage-2 run, an evaluation, the log of a stage-1 run, a file of `make bench`."""
    folder = tmp_path_factory.mktemp("run") / "demo"
    align = {"config": {"run": str(folder / "align")}}
    info = synthetic_features.info(encoders=EncoderInfo("nowhere", "e" * 16, {"training": align}))
    write(folder / "features", synthetic_features.samples({"train": 64, "valid": 24, "test": 24}, zeros=0.2), info)
    model = train(synthetic_features.config(folder / "features", folder / "fuse", "--train.epochs", 2))
    evaluate(EvaluateConfig(model, folder / "features", out=folder / "metrics.json", bootstrap=50))
    write_align_run(folder / "align")
    speed = SpeedRow("loss", "the loss", "rows/s", "", "", {"ours": [Timing(amount=6.0, wall=2.0, cpu=2.0)]})
    write_json(folder / "bench.json", asdict(SpeedFile(FORMAT, "standard", "a processor", 2, {}, 1, [speed])))
    return folder


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Report:
    """The report of the whole run, with its figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "PNG_DPI", 30)
        patch.setattr(write_module, "render", figures.render)
        return write_report([run], tmp_path_factory.mktemp("whole") / "r.html")


def write_align_run(folder: Path) -> None:
    """What stage 1 leaves: its configuration, and a log of ten steps with two validations."""
    folder.mkdir()
    (folder / "config.yaml").write_text("towers: {}\ndata: nowhere\n")
    write_json(folder / "made_from.json", {})
    lines = [{"step": step, "loss": 3 - 0.1 * step, "scale_vision_text": 14 + step} for step in range(1, 11)]
    for step, recall in ((0, 0.125), (10, 0.375)):
        values = {f"{a}_to_{b}_R@{k}": recall for a, b in (("vision", "text"), ("text", "vision")) for k in (1, 5, 10)}
        lines.append({"step": step, "mean_recall": recall, **values})
    lines.sort(key=lambda line: line["step"])
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 11, "lo')


@pytest.fixture
def evaluation(tmp_path) -> Path:
    """An evaluation of 40 clips in two dimensions."""
    rng = np.random.default_rng(0)
    labels = rng.random((40, 2))
    return write_evaluation(tmp_path / "m.json", labels + 0.3 * rng.normal(size=(40, 2)), labels, model="dual")


class Outline(HTMLParser):
    """What a page consists of; fails on tags that do not match."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def table_cells(html: str, row: str) -> list[str]:
    """The cells after the first row header `row`."""
    match = re.search(rf'<th scope="row">{re.escape(row)}</th>(.*?)</tr>', html)
    assert match, row
    return [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", match[1])]


def test_a_run_fills_every_section_and_its_numbers_are_those_of_the_evaluation(run, whole):
    report = whole
    html, scores = report.path.read_text(), read_evaluation(run / "metrics.json").scores
    assert len(report.sections) == len(SECTIONS.parts)
    assert "could not be made" not in html
    shown = {section.title for section in report.sections if section.lead and section.blocks}
    assert shown >= {"Score", "Predicted against labeled", "Learning curves", "Retrieval", "Systems compared", "Data"}
    assert all(section.blocks or section.missing for section in report.sections)  # never an empty frame
    for name in scores.pcc.per_dimension:
        values = [column.per_dimension[name] for column in (scores.pcc_nonzero, scores.ccc, scores.mae)]
        low, high = scores.pcc.interval_per_dimension[name]
        pcc = f"{scores.pcc.per_dimension[name]:.3f}"
        assert table_cells(html, name) == [pcc, f"{low:.3f} to {high:.3f}", *(f"{value:.3f}" for value in values)]
    assert table_cells(html, "vision → text") == ["0.375 (0.125)"] * 3
    assert "temperature" in html and f"{1 / 24:.4f}" in html
    assert table_cells(html, "train")[:3] == ["64", "64", "7"]
    assert table_cells(html, "the loss (rows/s)")[0] == "3.00"


def test_a_page_is_self_contained_valid_and_named_for_who_cannot_see_it(whole):
    html = whole.path.read_text()
    page = Outline(html)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\((?!#)|@import|<script|<link", html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    drawings = [attributes for attributes in page.of("div") if attributes.get("role") == "img"]
    assert len(drawings) == len(page.of("svg")) and all(drawing["aria-label"] for drawing in drawings)
    assert all(cell["scope"] in ("row", "col") for cell in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table"))
    assert page.of("html") == [{"lang": "en"}] and len(page.of("h1")) == len(page.of("main")) == 1


@pytest.mark.usefixtures("drawn")
def test_the_same_run_gives_the_same_files(run, whole, tmp_path):
    again = write_report([run], tmp_path / "r.html", sections=["score", "embeddings", "retrieval", "configuration"])
    files = sorted(path.name for path in again.figures.iterdir())
    assert len(files) > 6 and {Path(name).suffix for name in files} == {".png", ".svg"}
    for name in files:
        assert (again.figures / name).read_bytes() == (whole.figures / name).read_bytes(), name
    pages = [re.findall(r"<details>.*?</details>", each.path.read_text(), re.DOTALL) for each in (again, whole)]
    assert pages[0] and pages[0] == pages[1][-len(pages[0]) :]


@pytest.mark.usefixtures("drawn")
def test_names_from_data_are_escaped_everywhere(tmp_path):
    rng = np.random.default_rng(0)
    samples = synthetic_features.samples({"train": 24, "valid": 9, "test": 9})
    samples = [replace(s, id=f"{s.id} {HOSTILE}", groups={"subject": s.groups["subject"] + HOSTILE}) for s in samples]
    info = synthetic_features.info(label_names=[f"a {HOSTILE}", "b"])
    write(tmp_path / "f", samples, info)
    ids = [s.id for s in samples if s.split == "test" and s.view == 0]
    labels = rng.random((len(ids), 2))
    path = write_evaluation(tmp_path / "m.json", labels + rng.normal(size=labels.shape), labels, ids, model=HOSTILE)
    html = write_report([path], tmp_path / "r.html").path.read_text()
    Outline(html)
    assert "<script" not in html and "alert(" in html
    html = write_report([tmp_path / "f"], tmp_path / "r.html").path.read_text()
    Outline(html)
    assert "<script" not in html and "alert(" in html and "could not be made" not in html


@pytest.mark.parametrize(
    ("part", "shown", "said"),
    [
        ("metrics.json", {"Score", "Learning curves", "Retrieval", "Data"}, "no verdicts"),
        ("fuse/model", {"Learning curves", "Data"}, "no evaluation"),
        ("fuse", {"Learning curves", "Data"}, "no evaluation"),
        ("features", {"Data", "Retrieval"}, "no evaluation"),
        ("align", {"Learning curves", "Retrieval"}, "no clip dataset"),
    ],
)
def test_a_part_of_a_run_shows_what_it_has_and_says_the_rest(run, tmp_path, part, shown, said):
    shutil.copytree(run, tmp_path / "demo")
    for other in ("metrics.json", "fuse", "features", "align"):
        if other != part.partition("/")[0]:
            path = tmp_path / "demo" / other
            if path.is_dir() and other != "features":
                shutil.rmtree(path)
            elif path.is_file() and part != "metrics.json":
                path.unlink()
    report = write_report([tmp_path / "demo" / part], tmp_path / "r.html")
    assert {section.title for section in report.sections if section.blocks} >= shown
    assert any(said in line for line in report.missing), report.missing
    assert all("\n" not in line and "could not be made" not in line for line in report.missing)


def test_an_evaluation_alone_makes_a_report(evaluation, tmp_path):
    report = write_report([evaluation], tmp_path / "r.html")
    scores = read_evaluation(evaluation).scores
    assert table_cells(report.path.read_text(), "d1")[0] == f"{scores.pcc.per_dimension['d1']:.3f}"
    assert any("no baseline" in line for line in report.missing)


def test_clips_of_unmet_groups_have_a_sentence(tmp_path):
    labels = np.random.default_rng(0).random((40, 2))
    predictions = labels + 0.3 * np.random.default_rng(1).normal(size=(40, 2))
    unmet = Unmet(["subject", "seed"], [i < 12 for i in range(40)])
    path = write_evaluation(tmp_path / "m.json", predictions, labels, model="dual", unmet=unmet)
    expected = np.mean([np.corrcoef(predictions[:12, k], np.float32(labels[:12, k]))[0, 1] for k in range(2)])
    sentence = "On the 12 clips of unmet subject and seed, which neither training nor its validation has met, it is"
    assert f"{sentence} {expected:.3f} (95 % interval" in write_report([path], tmp_path / "r.html").sections[0].lead


def test_several_evaluations_make_a_leaderboard_with_paired_differences(evaluation, tmp_path):
    labels = read_evaluation(evaluation).labels
    close = labels + 0.1 * np.random.default_rng(1).normal(size=labels.shape)
    other = write_evaluation(tmp_path / "other.json", close, labels, model="close")
    elsewhere = write_evaluation(tmp_path / "train.json", close, labels, model="close", split="train")
    report = write_report([evaluation, other, elsewhere], tmp_path / "r.html")
    html = report.path.read_text()
    expected = read_evaluation(other).mean_pcc - read_evaluation(evaluation).mean_pcc
    assert table_cells(html, "close")[3].startswith(f"{expected:+.3f} (")
    assert "close beats it beyond chance" in html
    assert any("split 'train'" in line for line in report.missing)


def test_labels_that_allow_no_score_are_said(tmp_path):
    labels = np.full((12, 2), 0.5)
    path = write_evaluation(tmp_path / "m.json", np.random.default_rng(0).random((12, 2)), labels)
    report = write_report([path], tmp_path / "r.html")
    assert "allow no correlation" in report.sections[0].lead
    assert not any("could not be made" in line for line in report.missing)


@pytest.mark.usefixtures("drawn")
def test_ten_thousand_clips_stay_below_ten_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.random((10_000, 2))
    path = write_evaluation(tmp_path / "m.json", labels + 0.3 * rng.normal(size=labels.shape), labels)
    report = write_report([path], tmp_path / "r.html", sections=["score", "dimensions"])
    assert report.path.stat().st_size < 10e6 / 3  # six dimensions


@pytest.mark.parametrize("damage", ["log.jsonl", "made_from.json", "config.yaml"])
def test_damaged_files_of_a_run_are_lines_and_no_errors(run, tmp_path, damage):
    shutil.copytree(run, tmp_path / "demo")
    for path in (tmp_path / "demo").rglob(damage):
        path.write_bytes(b'{"step": 1, "loss": "many", "valid_pcc": null}\n[]\n\xff\xfe{')
    report = write_report([tmp_path / "demo"], tmp_path / "r.html")
    assert not any("could not be made" in line for line in report.missing), report.missing


def test_results_of_a_run_are_neither_replaced_nor_left_out_silently(tmp_path):
    from stage2_fusion.commands.report import main

    labels = np.random.default_rng(0).random((8, 2))
    whole = write_evaluation(tmp_path / "good.json", labels, labels)
    damaged, before = tmp_path / "metrics.json", whole.read_bytes()
    damaged.write_text('{"pcc": ')
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(whole)])
    assert whole.read_bytes() == before
    report = write_report([tmp_path], tmp_path / "r.html", sections=["score"])
    assert any(str(damaged) in line for line in report.missing)


@pytest.mark.parametrize("content", [None, "folder", "text"])
def test_what_is_no_run_is_one_line(tmp_path, content):
    path = tmp_path / "x"
    if content == "folder":
        path.mkdir()
    elif content == "text":
        path.write_text("nothing")
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*give"):
        write_report([path], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_section_of_ones_own_is_taken_by_import_path_and_its_fault_leaves_the_others(evaluation, tmp_path):
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        report = write_report([evaluation], tmp_path / "r.html", sections=["score", f"{__name__}:faulty"])
    assert report.sections[0].blocks
    assert report.missing[-1].startswith("Faulty: could not be made (ZeroDivisionError")


def faulty(inputs):
    """A section with a bug."""
    return 1 / 0


def test_the_command_prints_the_path_and_what_is_missing(evaluation, tmp_path, capsys):
    out = tmp_path / "sub" / "r.html"
    assert main([str(evaluation), "--out", str(out), "--figures", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: ")
    assert sum(line.startswith("not shown: ") for line in printed.err.splitlines()) > 2
    assert (tmp_path / "figures" / "score.png").is_file() and (tmp_path / "figures" / "score.svg").is_file()
