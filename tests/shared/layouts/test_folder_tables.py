"""Tables beside media: read, or asked for; labels are never lost."""

import csv

import pytest
from helpers.media_files import voice, write_wav

from shared.commands.prepare import main as prepare
from shared.errors import UserError
from shared.layouts.registry import read_source

TABLE = "file_name,Joy\nc0.mp4,0.5\n"


def fill(folder, *names, table=TABLE):
    for name in ("c0.mp4", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x" if name.endswith(".mp4") else table)
    return folder


@pytest.mark.parametrize("name", ["labels.csv", "Labels.CSV", "metadata.csv", "METADATA.Csv", "labels.txt"])
def test_table_of_a_folder_is_read(tmp_path, name):
    assert read_source(fill(tmp_path, name)).clips[0].labels == (0.5,)


def test_other_formats_of_the_table_are_read(tmp_path):
    assert read_source(fill(tmp_path / "a", "labels.tsv", table=TABLE.replace(",", "\t"))).clips[0].labels == (0.5,)
    text = '{"file_name": "c0.mp4", "Joy": 0.5}'
    assert read_source(fill(tmp_path / "b", "metadata.JSONL", table=text)).clips[0].labels == (0.5,)
    exported = fill(tmp_path / "c", "labels.csv", "labels.xlsx")
    assert read_source(exported).clips[0].labels == (0.5,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ratings.csv", "notes.csv"], "has the tables notes.csv, ratings.csv, which may contain the labels; name the"),
        (["train.csv", "dev.csv"], "/dev.csv), join them into one with a column split, or set"),
        (["train/metadata.csv"], "has the table train/metadata.csv"),
        (["labels.csv", "metadata.csv"], "has the tables labels.csv, metadata.csv"),
        (["a.tsv", "b.jsonl"], "has the tables a.tsv, b.jsonl"),
        (["labels.xlsx"], "labels.xlsx: tables in .xlsx are not read; save it as CSV UTF-8"),
        (["labels.json"], "labels.json: tables in .json are not read"),
        (["ratings.csv.gz"], "has the table ratings.csv.gz"),
    ],
)
def test_uncertain_table_is_asked_for(tmp_path, names, message):
    fill(tmp_path, *names)
    with pytest.raises(UserError) as caught:
        read_source(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    source = read_source(tmp_path, "folder")
    assert [clip.id for clip in source.clips] == ["c0"] and "of other kinds left out" in source.notes[0]


def test_only_table_is_read_whatever_its_name_if_it_names_media_that_exist(tmp_path):
    source = read_source(fill(tmp_path / "a", "ratings.csv", table="Datei,Joy\nc0.mp4,0.5\n"))
    assert source.clips[0].labels == (0.5,)
    assert "ratings.csv, the only table of this folder, lists its clips" in source.notes
    with pytest.raises(UserError, match=r"has the table ratings\.csv"):
        read_source(fill(tmp_path / "b", "ratings.csv", table="file_name,Joy\ngone.mp4,0.5\n"))


def test_table_of_one_media_file_is_no_table_of_the_folder(tmp_path):
    source = read_source(fill(tmp_path, "c0.csv"))
    assert [clip.labels for clip in source.clips] == [()]


def test_row_that_gives_no_clip_is_in_failures_and_verdicts(tmp_path):
    write_wav(tmp_path / "a.wav", voice(0.5)[None])
    (tmp_path / "t.csv").write_text("path,Joy\na.wav,1\ngone.wav,0,5\n")
    assert prepare([str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    for name, column in (("failures.csv", "reason"), ("verdicts.csv", "detail")):
        with (tmp_path / "out" / name).open() as file:
            row = list(csv.DictReader(file))[-1]
        assert (row["id"], row[column]) == ("t.csv line 3", "3 cells instead of 2")
