"""Tables of predictions and their mean: values by hand, and a refusal that names both files."""

import csv
from pathlib import Path

import numpy as np
import pytest

from shared.errors import UserError
from stage2_fusion.commands.ensemble import main
from stage2_fusion.prediction.tables import TableDescription, combine_tables, read_prediction_table

ROWS = {"a": (0.2, 0.4), "b": (0.6, 0.8), "c": (0.0, 1.0)}
OTHER = {"c": (0.4, 0.0), "b": (0.2, 0.4), "a": (0.8, 0.2)}


def write(path: Path, rows: dict, names=("Joy", "Excitement"), ranges="no description", order=None) -> Path:
    """ranges: those of a description to write beside the table. order: columns to write, by position."""
    order = order or range(len(names))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Filename", *(names[k] for k in order)])
        writer.writerows([name, *(values[k] for k in order)] for name, values in rows.items())
    if ranges != "no description":
        TableDescription(list(names), ranges).write(path)
    return path


def read(path: Path) -> dict[str, list[float]]:
    with path.open() as file:
        return {row["Filename"]: [float(row[name]) for name in ("Joy", "Excitement")] for row in csv.DictReader(file)}


def test_mean_of_tables_in_any_order_of_rows_and_columns(tmp_path):
    a, b = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", OTHER, order=(1, 0))
    assert main([str(a), str(b), "--out", str(tmp_path / "mean.csv")]) == 0
    mean = read(tmp_path / "mean.csv")
    assert list(mean) == ["a", "b", "c"]
    np.testing.assert_allclose(list(mean.values()), [[0.5, 0.3], [0.4, 0.6], [0.2, 0.5]])
    assert (tmp_path / "mean.csv").read_text().splitlines()[0] == "Filename,Joy,Excitement"


@pytest.mark.parametrize(
    ("ours", "theirs", "noted"),
    [
        ({"clips": [], "data": "f", "split": "test"}, {"clips": [], "data": "f", "split": "test"}, False),
        ({"clips": [], "data": "f", "split": "test"}, {"clips": [], "data": "g", "split": "test"}, True),
        ({"clips": [], "data": "f", "split": "test"}, None, True),
        ({}, {}, True),
        (None, None, True),
    ],
)
def test_tables_that_do_not_say_that_their_clips_are_the_same_are_matched_by_id_with_a_note(
    ours, theirs, noted, tmp_path, capsys
):
    a, b = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", OTHER)
    for path, made_from in ((a, ours), (b, theirs)):
        if made_from is not None:
            TableDescription(["Joy", "Excitement"], made_from=made_from).write(path)
    assert main([str(a), str(b), "--out", str(tmp_path / "mean.csv")]) == 0
    assert ("a.csv: its clips are matched with the other tables only by id" in capsys.readouterr().err) == noted


def test_mean_rank_of_tables_on_any_scale(tmp_path):
    """Joy: ranks 2 3 1 and 3 1 2, less a half, of three."""
    a = write(tmp_path / "a.csv", ROWS)
    b = write(tmp_path / "b.csv", {name: tuple(70 * v for v in values) for name, values in OTHER.items()})
    assert main([str(a), str(b), "--method", "rank", "--out", str(tmp_path / "mean.csv")]) == 0
    joy = [values[0] for values in read(tmp_path / "mean.csv").values()]
    np.testing.assert_allclose(joy, [4 / 6, 3 / 6, 2 / 6], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"a": (0, 0), "b": (1, 1)}}, "b.csv: not of the clips of .*a.csv: it lacks 1 of them, such as c"),
        ({"rows": {**OTHER, "d": (0, 0)}}, "b.csv: not of the clips of .*a.csv: it has 1 others, such as d"),
        ({"names": ("Joy", "Fear")}, "not of the dimensions of .*lacks 1 of them, such as Excitement and has 1 others"),
        ({"rows": {n: (7 * x, 7 * y) for n, (x, y) in OTHER.items()}}, "b.csv: holds values from 0 to 5.6.*a.csv from"),
        ({"rows": ROWS}, "b.csv: the same predictions as .*a.csv; give each once"),
    ],
    ids=["fewer clips", "more clips", "other dimensions", "other scale", "the same"],
)
def test_tables_that_do_not_belong_together_are_refused_by_name(changes, message, tmp_path):
    a = write(tmp_path / "a.csv", ROWS)
    b = write(tmp_path / "b.csv", **{"rows": OTHER, **changes})
    with pytest.raises(UserError, match=message) as caught:
        combine_tables([a, b], "average")
    assert "\n" not in str(caught.value)


def test_described_scales_decide_even_where_the_values_would_fit(tmp_path):
    a = write(tmp_path / "a.csv", ROWS, ranges=None)
    b = write(tmp_path / "b.csv", OTHER, ranges={"Joy": [0, 2], "Excitement": [0, 2]})
    with pytest.raises(UserError, match=r"b\.csv: on a scale of 0 to 2, but .*a.csv on one of 0 to 1"):
        combine_tables([a, b], "average")
    same = write(tmp_path / "c.csv", OTHER, ranges={"Joy": [0, 1], "Excitement": [0, 1]})
    assert combine_tables([a, same], "average").scale is not None


def test_intervals_are_no_dimensions(tmp_path):
    names = ("Joy", "Joy_low", "Joy_high")
    table = read_prediction_table(write(tmp_path / "a.csv", {"a": (0.2, 0.1, 0.3)}, names=names))
    assert table.names == ["Joy"] and table.values.tolist() == [[0.2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Filename,Joy\na,0.1\na,0.2\n", "1 clip occurs twice, such as a"),
        ("Filename,Joy\na,nan\n", "Joy of a is .*not a number"),
        ("Filename,Joy\na,\n", "Joy of a is '', not a number"),
        ("id,Joy\na,0.1\n", "no column Filename, only id, Joy"),
        ("Filename,Joy\n", "at least one row"),
    ],
)
def test_what_is_no_table_of_predictions_is_named(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_prediction_table(tmp_path / "a.csv")


def test_tables_and_evaluations_do_not_mix(tmp_path):
    table = str(write(tmp_path / "a.csv", ROWS))
    for argv, message in (
        ([table, "b.json", "--out", "c.csv"], "not all members are"),
        ([table, table, "--method", "ridge", "--out", "c.csv"], "learns from labels"),
        ([table, table, "--out", "c.json"], "the output is CSV"),
    ):
        with pytest.raises(UserError, match=message):
            main(argv)
