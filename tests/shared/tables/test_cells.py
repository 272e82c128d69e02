"""What cells say: numbers, missing words, splits."""

import math

import pytest

from shared.errors import UserError
from shared.layouts.registry import read_source
from shared.tables.cells import clean, parse_number, split_name


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *((".5", 0.5), ("5.", 5), ("+0.5", 0.5), (" 0.5\xa0", 0.5), ("1e-3", 0.001), ("−0.5", -0.5), ("\ufeff2", 2)),
        *(("０．６", 0.6), ("١٢", 12), ("١٫٥", 1.5), (3, 3), (0.25, 0.25)),
    ],
)
def test_numbers_of_any_script_are_read(cell, value):
    assert parse_number(cell) == value


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "0_6",
            "0x10",
            "1d-3",
            "0,5",
            "1,234.5",
            "1.234,5",
            "1 234",
            "50%",
            "1/2",
            "TRUE",
            "inf",
            "-Infinity",
            "1e400",
        ),
        *("'0.5", "0.5'", "Mar-05", "2. Mai", "½", "²", "?", "-", "0.5.1", "low", 10**400, [0.5], float("inf")),
    ],
)
def test_other_notations_are_no_numbers(cell):
    assert parse_number(cell) is None


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan", "NULL", "None", "N/A", "<NA>", "#N/A", r"\N", None, math.nan])
def test_missing_words_are_no_labels(cell):
    assert math.isnan(parse_number(cell))


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("train", ["Train", "TRAIN ", "training", "train-set", "Training Data", "trn"]),
        ("valid", ["Val", "VALID", "validation", "dev", "Devel", "development", "val_set"]),
        ("test", ["Test", "TESTING", "test split"]),
        ("", ["", "NaN", "none", "NULL"]),
        ("eval", ["eval"]),
        ("fold 3", ["fold 3"]),
    ],
)
def test_splits_have_one_name_each(name, cells):
    assert {split_name(cell) for cell in cells} == {name}


@pytest.fixture
def read(tmp_path):
    """Read rows below a header, beside files c0.mp4 to c3.mp4."""
    for i in range(4):
        (tmp_path / f"c{i}.mp4").write_bytes(b"x")

    def read(text, **options):
        (tmp_path / "t.csv").write_text(text, encoding="utf-8")
        return read_source(tmp_path / "t.csv", "csv", options)

    return read


def test_missing_words_are_empty_and_counted_and_names_that_look_like_them_stay(read):
    text = (
        "path,subject,text,split\nc0.mp4,NaN,None,NaN\nc1.mp4,Na,none,None\nc2.mp4,s1,N/A,Train\nc3.mp4,NULL,hi,Tset\n"
    )
    source = read(text)
    assert [clip.groups["subject"] for clip in source.clips] == ["", "Na", "s1", ""]
    assert [clip.transcript for clip in source.clips] == [None, "none", None, "hi"]
    assert [clip.split for clip in source.clips] == ["", "", "train", "Tset"]
    notes = "\n".join(source.notes)
    assert "read as missing: 1 time 'NaN' in 'subject' (line 2)" in notes and "'N/A' in 'text' (line 4)" in notes
    assert "read as words and names: 1 time 'Na' in 'subject' (line 3)" in notes
    assert "split 'Tset' of 1 clip is none of train, valid, test: did you mean 'test'?" in notes
    kept = read(text, missing_words=[])
    assert [clip.groups["subject"] for clip in kept.clips] == ["NaN", "Na", "s1", "NULL"]
    assert kept.clips[0].transcript == "None" and kept.clips[0].split == ""


@pytest.mark.parametrize("cell", ["0_6", '"1,234"', "50%", "Mar-05", "?", "#DIV/0!", "great", "1e400"])
def test_bad_cell_names_its_row_and_never_drops_its_column(read, cell):
    for name in ("valence", "Joy"):
        with pytest.raises(UserError) as caught:
            read(f"path,{name}\nc0.mp4,0.1\nc1.mp4,{cell}\n")
        message = str(caught.value)
        assert "line 3" in message and name in message and cell.strip('"') in message and "\n" not in message


def test_column_of_numbers_in_another_notation_is_refused(read):
    with pytest.raises(
        UserError, match=r"'valence' has numbers, but line 2: '10%' is not a number: write 0\.5 for 50%"
    ):
        read("path,valence\nc0.mp4,10%\nc1.mp4,20%\n")


@pytest.mark.parametrize(
    "text", ["path;a;b\nc0.mp4;0,5;1,234\nc1.mp4;1;2,5\n", 'path,a,b\nc0.mp4,"0,5","1,234"\nc1.mp4,1,"2,5"\n']
)
def test_decimal_commas_are_read_and_said(read, text):
    source = read(text)
    assert [clip.labels for clip in source.clips] == [(0.5, 1.234), (1.0, 2.5)]
    assert "decimal commas in 'a', 'b', such as 0,5 in line 2" in source.notes


@pytest.mark.parametrize("cells", [("1,234", "2,345"), ("0,1", "0.2"), ("1.234,5", "0,5")])
def test_ambiguous_commas_are_refused(read, cells):
    with pytest.raises(UserError, match=r"line 2: .* is not a number: write it with a decimal point"):
        read(f"path;valence\nc0.mp4;{cells[0]}\nc1.mp4;{cells[1]}\n")


def test_commas_in_texts_and_groups_stay(read):
    source = read("path;text;subject;valence\nc0.mp4;0,5;1,5;0,5\n")
    assert (source.clips[0].transcript, source.clips[0].groups) == ("0,5", {"subject": "1,5"})


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('="0012"', "0012"),
        (' =("8445162064354") ', "8445162064354"),
        ('="he said ""no"""', 'he said "no"'),
        ('="a"&"b"', '="a"&"b"'),
        ("=A1", "=A1"),
        ('"quoted"', '"quoted"'),
    ],
)
def test_formula_that_is_a_text_is_that_text(cell, text):
    assert clean(cell) == text
