"""`emit check` and `emit prepare` on a table of texts alone."""

import csv
import json

import pytest
from helpers.commands import emit

from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f"this is review {number},{1 + number % 5},p{number % 4}" for number in range(12)]
    path.write_text("\n".join(["text,valence,person", *rows, "...,3,p1"]) + "\n")
    return path


def test_check_misses_no_files_of_texts_alone(table, tmp_path, capsys):
    assert emit("check", table, "--label_range", "1,5", "--out", tmp_path / "report.json") == 0
    shown = capsys.readouterr().out
    assert "files        none: only texts" in shown and "missing      " not in shown
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files["words_alone"] == 13 and files["there"] == 0 and files["missing"] == []


def test_texts_alone_are_complete_clips_and_those_that_say_nothing_fail(table, tmp_path, capsys):
    out = tmp_path / "clips"
    assert emit("prepare", table, "--label_range", "1,5", "--out", out, "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "12 ok, 0 partial, 1 failed" in shown.out and "face crops" not in shown.out
    assert "next   emit align --config tiny_labels --towers.leave_out_unused true" in shown.err
    with (out / "failures.csv").open() as file:
        assert [(row["id"], row["reason"]) for row in csv.DictReader(file)] == [("reviews-000014", "no words")]
    with (out / "verdicts.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["verdict"], first["missing"], first["detail"]) == ("ok", "vision audio", "")
    clips = ClipDataset.open(out)
    assert clips.info.is_texts_alone and clips.info.layout.name == "csv"
    assert set(clips.column("split")) == {"train", "valid", "test"}
    of_person = {}
    for person, split in zip(clips.column("group_person"), clips.column("split"), strict=True):
        of_person.setdefault(person, set()).add(split)
    assert all(len(splits) == 1 for splits in of_person.values())


def test_words_in_a_column_of_another_name_are_asked_for_and_found(tmp_path):
    table = tmp_path / "essays.csv"
    table.write_text("\n".join(["id,essay,empathy", *(f"e{i},what I wrote {i},{i % 5}" for i in range(8))]) + "\n")
    with pytest.raises(UserError) as caught:
        emit("check", table, "--label_range", "0,4")
    assert "--layout_options '{transcript: COLUMN}' names the column of words" in str(caught.value)
    assert emit("check", table, "--label_range", "0,4", "--layout_options", "{transcript: essay}") == 0
