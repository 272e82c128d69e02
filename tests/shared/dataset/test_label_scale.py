"""The range of labels: given, refused, or a code of missing values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from shared.commands import check, prepare
from shared.dataset.clip import EMI, Clip, ClipSource
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.label_scale import LabelOptions, LabelScale, require_fractions, scale_labels
from shared.errors import UserError
from shared.layouts.registry import read_source
from stage2_fusion.prediction.sources import read_clips

NAN = math.nan


def source(*columns: list[float], names: tuple[str, ...] = ("Joy", "Fear")) -> ClipSource:
    """Clips c0, c1, ... with a label of each column."""
    rows = [tuple(row) for row in zip(*columns, strict=True)]
    return ClipSource([Clip(f"c{i}", None, labels=row) for i, row in enumerate(rows)], names[: len(columns)])


def labels(clip_source: ClipSource) -> np.ndarray:
    return np.array([clip.labels for clip in clip_source.clips])


@pytest.mark.parametrize(
    "given",
    [
        "0,100",
        "[0, 100]",
        " 0 , 100 ",
        [0, 100],
        {"Joy": [0, 100], "fear": [0.0, 100]},
        "{Joy: [0, 100], Fear: [0, 100]}",
    ],
)
def test_labels_become_fractions_of_their_range(given):
    scaled = scale_labels(source([0, 41.3, NAN], [100, 50, 25]), LabelOptions(given), "x")
    np.testing.assert_allclose(labels(scaled), [[0, 1], [0.413, 0.5], [NAN, 0.25]])
    assert scaled.label_ranges == {"Joy": [0, 100], "Fear": [0, 100]}
    scale = LabelScale.of(scaled.label_names, scaled.label_ranges)
    np.testing.assert_allclose(scale.values(labels(scaled)), [[0, 100], [41.3, 50], [NAN, 25]])


def test_ranges_that_begin_elsewhere_and_differ():
    options = LabelOptions("{Joy: [1, 7], Fear: [-1, 1]}")
    scaled = scale_labels(source([1, 4, 7, 2.5], [-1, 0, 1, 0.5]), options, "x")
    np.testing.assert_allclose(labels(scaled).T, [[0, 0.5, 1, 0.25], [0, 0.5, 1, 0.75]])
    only_joy = scale_labels(source([1, 4, 7], [0.1, 0.2, 1.0]), LabelOptions({"Joy": [1, 7]}), "x")
    assert labels(only_joy)[:, 1].tolist() == [0.1, 0.2, 1.0]  # not named: untouched, to the bit


def test_labels_in_0_to_1_are_untouched():
    values = [0.1, 1 / 3, 1.0, NAN, 0.0]
    scaled = scale_labels(source(values, [0.25] * 5), LabelOptions(), "x")
    assert repr(labels(scaled)[:, 0].tolist()) == repr(values) and scaled.label_ranges == {}
    rounded = scale_labels(source([1 + 1e-7, -1e-8], [0.0, 1.0]), LabelOptions(), "x")
    assert labels(rounded)[:, 0].tolist() == [1, 0]
    bare = scale_labels(source(names=()), LabelOptions("0,5"), "x")
    assert bare.label_names == () and "no column is read as labels" in bare.notes[-1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ([0, 41.3, 97], [3, 60, 0]),
            ("4 of 6 labels of Joy, Fear lie outside [0, 1] (from 0 to 97)", "Joy 41.3 of 'c1'", "--label_range=0,100"),
        ),
        (([1, 4, 7, 2, 5], [1, 6, 3, 3, 2]), ("--label_range=1,7",)),
        (([1, 4.5, 7, 2.5, 5], [1, 6, 3, 3, 2]), ("--label_range=1,7",)),
        (([-0.4, 0.9, 0.1], [0.2, -0.8, -1]), ("--label_range=-1,1",)),
        (([0.4, 0.9, 0.1], [20, 30, 77]), ("3 of 3 labels of Fear", "--label_range '{Fear: [0, 100]}'")),
        (
            ([-1, 0.9, -1, 0.3], [0.2, -1, 0.1, -5]),
            ("if -1 (3 times) and -5 (1 time) mean not labeled, add --missing_labels=-1,-5",),
        ),
        (([999, 0.9, 0.5, 999], [0.2, 0.1, 0, 0]), ("999 (2 times) means not labeled, add --missing_labels=999",)),
        (([-99, 40, 80, 12], [0, 55, 20, 99]), ("--missing_labels=-99", "--label_range=0,100")),
        (([0.1] * 40 + [5], [0.3] * 41), ("1 of 41 labels of Joy lies outside", "5 of 'c40'", "correct them")),
    ],
)
def test_labels_outside_are_refused_with_what_to_do(columns, words):
    with pytest.raises(UserError) as error:
        scale_labels(source(*columns), LabelOptions(), "t.csv")
    message = str(error.value)
    assert message.startswith("t.csv: ") and "\n" not in message
    for part in words:
        assert part in message


def test_the_suggested_options_are_accepted():
    columns = ([-99, 40, 80, 12], [0, 55, 20, 99])
    scaled = scale_labels(source(*columns), LabelOptions("0,100", "-99"), "x")
    np.testing.assert_allclose(labels(scaled), [[NAN, 0], [0.4, 0.55], [0.8, 0.2], [0.12, 0.99]])
    assert "1 label is -99, which means not labeled (missing_labels)" in scaled.notes
    scaled = scale_labels(source([-1, 0.9, 999], [0.2, -5, 0.1]), LabelOptions(missing_labels="-1, -5,999"), "x")
    np.testing.assert_allclose(labels(scaled), [[NAN, 0.2], [0.9, NAN], [NAN, 0.1]])


def test_labels_outside_the_given_range_are_refused():
    with pytest.raises(UserError, match=r"1 of 3 labels of Joy lies outside \[0, 100\] \(from 3 to 250\), such as 250"):
        scale_labels(source([3, 250, 7], [1, 2, 3]), LabelOptions("0,100"), "x")


def test_a_dimension_on_another_scale_is_noted():
    scaled = scale_labels(source([10, 90], [0.3, 0.7]), LabelOptions("0,100"), "x")
    assert "all labels of Fear lie in [0, 1], though label_range says 0 to 100" in scaled.notes[-1]


@pytest.mark.parametrize("given", ["1", "0,1,2", "a,b", "5,5", "7,1", "0,inf", "0,nan", "{Joy: 3}", [True, 5], "]["])
def test_ranges_that_are_none_are_refused(given):
    with pytest.raises(UserError, match=r"label_range|cannot be read"):
        LabelOptions(given)
    with pytest.raises(UserError, match="no label is called 'Yoy': did you mean 'Joy'"):
        scale_labels(source([1]), LabelOptions({"Yoy": [0, 5]}), "x")
    with pytest.raises(UserError, match="missing_labels is 'none'"):
        LabelOptions(missing_labels="none")


def test_a_layout_may_decide_the_range_itself():
    fixed = source([0.5, 1.0], [0, 0.2])
    fixed.label_ranges = {}
    assert labels(scale_labels(fixed, LabelOptions(), "x")).tolist() == [[0.5, 0], [1, 0.2]]
    with pytest.raises(UserError, match="this layout defines the range"):
        scale_labels(fixed, LabelOptions("0,5"), "x")


def write_table(folder: Path, *columns: list) -> Path:
    """A table of clips that have words alone, so that nothing is decoded."""
    rows = [f"gone{i}.mp4,some words {i},{','.join(map(str, row))}" for i, row in enumerate(zip(*columns, strict=True))]
    names = ["Excitement", "Joy"][-len(columns) :]
    (folder / "t.csv").write_text("\n".join([f"file,text,{','.join(names)}", *rows]) + "\n")
    return folder / "t.csv"


def test_check_and_prepare_refuse_what_fuse_would_and_take_the_options(tmp_path, capsys):
    table = write_table(tmp_path, [0, 41.3, -1, 97], [100, 3, 60, 0])
    out, report = tmp_path / "clips", tmp_path / "report.json"
    with pytest.raises(UserError, match=r"--missing_labels=-1.*--label_range=0,100"):
        check.main([str(table), "--out", str(report)])
    outside = json.loads(report.read_text())["outside"]["labels"]
    assert outside["Excitement"] == {"gone1": 41.3, "gone2": -1, "gone3": 97}
    assert "41.3" not in capsys.readouterr().err
    with pytest.raises(UserError, match=r"--missing_labels=-1.*--label_range=0,100"):
        prepare.main([str(table), "--out", str(out)])
    assert not out.exists()
    options = ["--label_range", "0,100", "--missing_labels", "-1"]
    assert check.main([str(table), "--out", str(report), *options]) == 0
    labels = json.loads(report.read_text())["labels"]["Excitement"]
    assert labels["missing"] == 1 and labels["bins"] == [0, 100] and labels["mean"] == pytest.approx(138.3 / 3)
    assert prepare.main([str(table), "--out", str(out), *options, "--workers", "1"]) == 0
    assert "1 label is -1, which means not labeled" in capsys.readouterr().out
    clips = ClipDataset.open(out)
    np.testing.assert_allclose(clips.labels(), [[0, 1], [0.413, 0.03], [NAN, 0.6], [0.97, 0]], rtol=1e-6)
    assert clips.info.label_ranges == {"Excitement": [0, 100], "Joy": [0, 100]}
    with pytest.raises(UserError, match="made with other clips or labels"):  # 0 to 200 would give other numbers
        prepare.main([str(table), "--out", str(out), "--label_range=0,200", "--missing_labels=-1"])


def test_a_range_that_begins_with_a_minus_sign_is_an_option(tmp_path):
    table = write_table(tmp_path, [-0.5, 1], [0, -1])
    assert prepare.main([str(table), "--out", str(tmp_path / "c"), "--label_range", "-1,1", "--workers", "1"]) == 0
    np.testing.assert_allclose(ClipDataset.open(tmp_path / "c").labels(), [[0.25, 0.5], [1, 0]])


def test_prediction_does_not_care_about_labels(tmp_path):
    found = read_clips([write_table(tmp_path, [41.3, -1])])
    assert [clip.labels for clip in found.clips] == [(), ()] and not found.failures


def test_datasets_of_older_versions_are_refused_before_the_work(tmp_path):
    table = write_table(tmp_path, [0.1, 0.413], [0.5, 0.97])
    assert prepare.main([str(table), "--out", str(tmp_path / "c"), "--workers", "1"]) == 0
    clips = ClipDataset.open(tmp_path / "c")
    with pytest.raises(
        UserError, match=r"2 of 2 labels of Excitement lie outside .*'gone1'.*--label_range.*`emit prepare`"
    ):
        require_fractions(clips.labels() * [100, 1], clips.label_names, clips.column("id"), "c")


@pytest.mark.parametrize(("factor", "refused"), [(1, False), (100, True)])
def test_a_copy_of_vidmimic2_on_another_scale_is_refused_but_not_single_bad_cells(tmp_path, factor, refused):
    rows = [[f"0000{i}", *(factor * value for value in (0.1, 0.9, 0, 0.33, 0, 0.5))] for i in range(4)]
    rows[2][1] = -1
    rows[3][2] = 5 if factor == 1 else 500
    lines = [",".join(map(str, row)) for row in [["Filename", *EMI], *rows]]
    (tmp_path / "train_split.csv").write_text("\n".join(lines) + "\n")
    if refused:
        with pytest.raises(UserError, match=r"train_split.csv: 15 of 15 labels above 0 are above 1 .up to 500., but"):
            read_source(tmp_path, "vidmimic2")
        return
    clips = read_source(tmp_path, "vidmimic2").clips
    assert np.isnan(labels(ClipSource(clips))).sum() == 2 and "not a number in [0, 1]" in clips[3].problems[0]
    with pytest.raises(UserError, match="this layout defines the range"):
        prepare.main([str(tmp_path), "--out", str(tmp_path / "c"), "--label_range", "0,100"])


def test_a_numeric_column_that_may_hold_no_labels_is_named(tmp_path):
    rows = [f"gone{i}.mp4,some words {i},0.{i},{1990 + i}" for i in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["file,text,glad,year", *rows]) + "\n")
    advice = r"4 of 4 labels of year lie.*if year has no labels, .* --layout_options '{labels: \[glad\]}'"
    with pytest.raises(UserError, match=advice):
        prepare.main([str(tmp_path / "t.csv"), "--out", str(tmp_path / "c")])
