"""Submissions: hand-computed values, and a checker that names what is wrong with each broken copy of a right one."""

import csv
from pathlib import Path

import numpy as np
import pytest

from shared.dataset.clip import EMI, Clip, ClipSource
from shared.errors import UserError
from shared.layouts.vidmimic2.layout import UNLISTED
from stage2_fusion.prediction.submission import Asked, check_submission, make_submission

NAN = float("nan")
HEADER = ["Filename", *EMI]


def asked(ids=("00012", "00010", "00011"), names=EMI, labels=None, ranges=None) -> Asked:
    labels = labels or {}
    clips = [Clip(name, None, labels=labels.get(name, (NAN,) * len(names))) for name in ids]
    return Asked.of(ClipSource(clips, tuple(names), label_ranges=ranges))


def write(path: Path, rows) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def right_rows():
    return [[*HEADER], *([f"000{number}", *(["0.25"] * 5), f"0.{number}"] for number in (10, 11, 12))]


def test_rows_are_sorted_clipped_and_complete_in_the_order_of_the_dataset():
    """00011 has no prediction, and gets the mean labels of training; the predictions name the dimensions backwards."""
    names = list(reversed(EMI))
    predictions = {
        "00012": np.array([1.2, 0.5, 0.4, 0.3, 0.2, -0.1]),
        "00010": np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        "extra": np.zeros(6),
    }
    means = dict(zip(EMI, (0.3, 0.25, 0.2, 0.15, 0.1, 0.05), strict=True))
    made = make_submission(asked(), names, predictions, means)
    lines = made.text().splitlines()
    assert lines[0] == "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
    assert lines[1] == "00010,0.100000,0.200000,0.300000,0.400000,0.500000,0.600000"
    assert lines[2] == "00011,0.300000,0.250000,0.200000,0.150000,0.100000,0.050000"
    assert lines[3] == "00012,0.000000,0.200000,0.300000,0.400000,0.500000,1.000000"
    assert made.filled == ["00011"] and made.clipped == 2 and len(lines) == 4
    said = "\n".join(made.notes)
    assert "1 clip without a prediction: the mean label of the training clips stands in: 00011" in said
    assert "1 predicted clip left out, not asked for: extra" in said


def test_without_known_mean_labels_the_mean_prediction_takes_their_place():
    made = make_submission(asked(names=("Joy",)), ["Joy"], {"00010": np.array([0.2]), "00012": np.array([0.6])}, None)
    assert made.values[:, 0].tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert "mean prediction of the others" in made.notes[0]


def test_values_lie_in_the_range_of_the_labels_and_a_dimension_without_model_is_the_lowest():
    wanted = asked(names=("valence", "arousal"), ranges={"valence": [1, 7], "arousal": [1, 7]})
    predictions = {name: np.array([value]) for name, value in (("00010", 0.5), ("00011", 3.5), ("00012", 9.0))}
    made = make_submission(wanted, ["valence"], predictions, None)
    assert made.values.tolist() == [[1, 1], [3.5, 1], [7, 1]] and made.clipped == 2
    assert "not predicted by this model" in made.notes[0] and "arousal" in made.notes[0]


def test_labels_on_another_scale_than_the_predictions_are_refused_but_not_codes_of_missing_ones():
    labels = {"00010": (1.0,), "00011": (7.0,), "00012": (4.0,)}
    with pytest.raises(UserError, match="the labels run from 1 to 7, not over 0 to 1: give the --model"):
        asked(names=("Joy",), labels=labels)
    clips = [Clip(name, None, labels=values) for name, values in {**labels, "00010": (-9.0,)}.items()]
    wanted = Asked.of(ClipSource(clips, ("Joy",)), ranges={"Joy": [1, 7]})
    np.testing.assert_array_equal(wanted.labels[:, 0], [NAN, 7, 4])
    unit = ClipSource([Clip("a", None, labels=(0.5,))], ("Joy",), label_ranges={})  # a layout that knows its labels
    assert Asked.of(unit, ranges={"Joy": [1, 7]}).scale.ranges == {"Joy": (0, 1)}


def test_predictions_of_other_clips_are_refused():
    with pytest.raises(UserError, match="none of 1 predicted clip, such as 9, is among the 3 that are asked for"):
        make_submission(asked(), list(EMI), {"9": np.zeros(6)}, None)


def test_predictions_whose_ids_lost_their_zeros_are_refused():
    """00010 is there and 00012 is 12: filling 12's row would submit a mean where a prediction exists."""
    for ids in (("00010", "12"), ("12", "x")):
        with pytest.raises(UserError, match="leading zeros of 1 predicted clip are lost, such as 12"):
            make_submission(asked(), list(EMI), {name: np.zeros(6) for name in ids}, None)


def test_pcc_where_labels_are_known_is_that_of_the_rows():
    labels = {f"000{i}": (value,) for i, value in ((10, 0.0), (11, 0.5), (12, 1.0))}
    wanted = asked(names=("Joy",), labels=labels)
    score, count = wanted.mean_pcc(np.array([[0.1], [0.3], [0.2]]))
    assert score == pytest.approx(0.5) and count == 3  # deviations (-0.1, 0.1, 0) and (-0.5, 0, 0.5)
    assert asked().mean_pcc(np.zeros((3, 6))) is None


def test_clips_of_no_table_are_not_submitted():
    clips = [Clip("00001", None, labels=(NAN,) * 6), Clip("00002", None, labels=(NAN,) * 6, problems=(UNLISTED,))]
    wanted = Asked.of(ClipSource(clips, EMI))
    assert wanted.ids == ["00001"] and "00002" in wanted.notes[0]
    assert Asked.of(ClipSource(clips[1:], EMI)).ids == ["00002"]  # without a table, the files tell the clips


def test_right_submission_is_accepted(tmp_path):
    checked = check_submission(write(tmp_path / "s.csv", right_rows()), asked())
    assert not checked.problems and checked.values[:, 5].tolist() == [0.10, 0.11, 0.12]


def change(edit):
    def changed():
        rows = right_rows()
        return edit(rows) or rows

    return changed


def set_cell(row, column, value):
    def edit(rows):
        rows[row][column] = value

    return change(edit)


BROKEN = {
    "missing": (change(lambda rows: rows[:2] + rows[3:]), "missing ids (1): 00011"),
    "extra": (change(lambda rows: [*rows, ["00013", *["0"] * 6]]), "ids that are not asked for (1): 00013"),
    "repeated": (change(lambda rows: [*rows, rows[1]]), "ids that occur more than once (1): 00010"),
    "zeros lost": (set_cell(1, 0, "10"), "ids that are not asked for, with lost leading zeros (1): 10"),
    "nan": (set_cell(2, 3, "nan"), "Determination: no numbers (1): 'nan' of 00011"),
    "empty cell": (set_cell(2, 6, ""), "Joy: no numbers (1): '' of 00011"),
    "digits of other scripts": (set_cell(2, 6, "٠.١"), "Joy: no numbers (1): '٠.١' of 00011"),
    "digits in groups": (set_cell(2, 6, "0_1"), "Joy: no numbers (1): '0_1' of 00011"),
    "spaces": (set_cell(2, 6, " 0.1"), "Joy: no numbers (1): ' 0.1' of 00011"),
    "infinite": (set_cell(2, 6, "inf"), "Joy: no numbers (1): 'inf' of 00011"),
    "above": (set_cell(3, 1, "1.01"), "Admiration: outside 0 to 1 (1): 1.01 of 00012"),
    "below": (set_cell(3, 1, "-0.001"), "Admiration: outside 0 to 1 (1): -0.001 of 00012"),
    "unsorted": (change(lambda rows: [rows[0], rows[2], rows[1], rows[3]]), "rows are not sorted by Filename: 00011"),
    "columns swapped": (change(lambda rows: [[*row[:5], row[6], row[5]] for row in rows]), "in the wrong order"),
    "column missing": (change(lambda rows: [row[:-1] for row in rows]), "missing columns: Joy"),
    "column renamed": (set_cell(0, 4, "Empathic_Pain"), "columns that are not asked for: 'Empathic_Pain'"),
    "index column": (change(lambda rows: [["", *row] for row in rows]), "columns that are not asked for: ''"),
    "short row": (change(lambda rows: [*rows[:3], rows[3][:4]]), "rows without 7 cells (1)"),
    "empty": (change(lambda rows: [[]]), "it is empty"),
    "lower-case key": (set_cell(0, 0, "filename"), "missing columns: Filename"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_checker_names_what_is_wrong(name, tmp_path):
    make, problem = BROKEN[name]
    checked = check_submission(write(tmp_path / "s.csv", make()), asked())
    assert checked.values is None and any(problem in line for line in checked.problems), checked.problems
    assert all("\n" not in line for line in checked.problems)


def test_files_that_spreadsheets_write_are_named(tmp_path):
    text = "\n".join(",".join(row) for row in right_rows()) + "\n"
    for content, problem in (
        (b"\xef\xbb\xbf" + text.encode(), "byte order mark"),
        (text.encode("utf-16"), "not UTF-8"),
        (text.replace(",", ";").encode(), "separated by semicolons; write commas"),
        (text.replace(",", "\t").encode(), "separated by tabs"),
    ):
        (tmp_path / "s.csv").write_bytes(content)
        assert any(problem in line for line in check_submission(tmp_path / "s.csv", asked()).problems)
    for ending in ("\r", "\r\n"):
        (tmp_path / "s.csv").write_bytes(text.replace("\n", ending).encode())
        assert check_submission(tmp_path / "s.csv", asked()).values is not None
    with pytest.raises(UserError, match="cannot be read"):
        check_submission(tmp_path / "nothing.csv", asked())
