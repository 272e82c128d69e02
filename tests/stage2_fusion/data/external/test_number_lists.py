"""Columns of lists of numbers, and tables without a header or ids."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.tool_files import read

from shared.errors import UserError
from shared.tables.text_table import TableRow, TextTable
from stage2_fusion.data.external.number_lists import lists_apart

VALUES = [[1.5, -2.0, 3e-5], [4.0, 5.25, 6.0]]


def jsonl(path):
    path.write_text("".join(json.dumps({"id": n, "emb": v}) + "\n" for n, v in zip("ab", VALUES, strict=True)))


def parquet(path):
    pd.DataFrame({"id": ["a", "b"], "emb": VALUES}).to_parquet(path)


def csv(path):
    pd.DataFrame({"id": ["a", "b"], "emb": VALUES}).to_csv(path, index=False)


def csv_of_arrays(path):
    pd.DataFrame({"id": ["a", "b"], "emb": [np.array(each) for each in VALUES]}).to_csv(path, index=False)


def csv_of_numpy_2(path):
    cells = ["[" + ", ".join(f"np.float64({value})" for value in each) + "]" for each in VALUES]
    pd.DataFrame({"id": ["a", "b"], "emb": cells}).to_csv(path, index=False)


@pytest.mark.parametrize(
    "write, name",
    [
        (jsonl, "t.jsonl"),
        (parquet, "t.parquet"),
        (csv, "t.csv"),
        (csv_of_arrays, "t.csv"),
        (csv_of_numpy_2, "t.csv"),
    ],
)
def test_a_list_a_clip_is_read_in_every_format(write, name, tmp_path):
    write(tmp_path / name)
    features = read(tmp_path / name)
    assert features.columns == ("emb_0", "emb_1", "emb_2") and features.present["audio"].tolist()[:2] == [True, True]
    for row in (0, 1):
        np.testing.assert_allclose(features.read(row)["audio"].values[0], VALUES[row], rtol=1e-6)


@pytest.mark.parametrize(
    "cells",
    [["[1, 2]", "[1, 2, 3]"], ["[1. 2. ... 9.]", "[2. 3. ... 9.]"], ["[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]"]],
    ids=["of several lengths", "cut off", "of lists"],
)
def test_other_lists_are_refused_by_name(cells, tmp_path):
    pd.DataFrame({"id": ["a", "b"], "emb": cells}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        UserError, match=r"are not read: emb; write a column a number, or sequences as \.npz or parquet"
    ):
        read(tmp_path / "t.csv")
    pd.DataFrame({"id": ["a", "b"], "f": [1, 2], "emb": cells}).to_csv(tmp_path / "t.csv", index=False)
    features = read(tmp_path / "t.csv")
    assert features.columns == ("f",) and any("are not read: emb" in each.reason for each in features.problems)


def test_rows_keep_their_cells_when_some_are_damaged_or_empty():
    rows = [TableRow(2, ["a", "[1, 2]", "x"]), TableRow(3, ["b", "", "y"]), TableRow(4, ["c", "[", ""], "cut off")]
    table = lists_apart(TextTable(["id", "emb", "word"], rows, ["a note"]))
    assert table.header == ["id", "emb_0", "emb_1", "word"] and table.notes == ["a note"]
    assert [row.cells for row in table.rows] == [["a", "1", "2", "x"], ["b", "", "", "y"], ["c", "", "", ""]]
    assert table.rows[2].problem == "cut off"


def test_numbers_that_are_missing_in_a_list_are_missing(tmp_path):
    pd.DataFrame({"id": [*"abc"], "emb": [[1.0, 2.0], None, [3.0, None]]}).to_parquet(tmp_path / "t.parquet")
    features = read(tmp_path / "t.parquet")
    assert features.width == 2 and features.present["audio"].tolist() == [True, False, False, False]


@pytest.mark.parametrize("separator, suffix", [(",", "csv"), (" ", "txt"), ("\t", "tsv")])
def test_numbers_without_a_header_do_not_lose_their_first_row(separator, suffix, tmp_path):
    for name in "abcd":
        np.savetxt(tmp_path / f"{name}.{suffix}", np.random.default_rng(0).random((8, 3)), delimiter=separator)
    with pytest.raises(UserError, match=r"begins with numbers .*; add a line with the names of the columns"):
        read(tmp_path)


def test_columns_that_pandas_numbers_are_names(tmp_path):
    pd.DataFrame(np.ones((4, 3)), index=[*"abcd"]).to_csv(tmp_path / "t.csv")
    assert read(tmp_path / "t.csv").columns == ("0", "1", "2")


def test_a_table_of_clips_without_ids_says_so(tmp_path):
    (tmp_path / "t.csv").write_text("f,g\n1,2\n2,3\n3,4\n4,5\n")
    with pytest.raises(UserError, match=r"t\.csv \(no column of ids, so that it is one clip\): no clip is called t"):
        read(tmp_path / "t.csv")


def test_arrays_with_channels_first_are_called_so(tmp_path):
    for i, name in enumerate("abcd"):
        np.save(tmp_path / f"{name}.npy", np.ones((13, 80 + i)))
    with pytest.raises(UserError, match=r"all have 13 rows: save them as \(T, channels\), not \(channels, T\)"):
        read(tmp_path)
