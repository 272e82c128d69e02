"""Damaged tables in the layout csv: quotation marks, missing and additional cells."""

import math

import pytest

from shared.dataset.clip import LeftOut
from shared.errors import UserError
from shared.layouts.registry import read_source


def table(folder, text, name="labels.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows_of(folder, text, names="abcd"):
    """{id: (first label, transcript, problems)} and notes of a table beside files called a.mp3, b.mp3, ..."""
    for name in names:
        (folder / f"{name}.mp3").write_bytes(b"x")
    source = read_source(table(folder, text))
    clips = {c.id: (c.labels[0], c.transcript, c.problems) for c in source.clips}
    return clips, source.notes


def is_unlabeled(row):
    return math.isnan(row[0])


def test_quotes_newlines_and_byte_order_marks_are_read(tmp_path):
    path = table(tmp_path, '\ufefffile,transcript\n"a, b.mp4","line one\nline ""two"""\n\n')
    (clip,) = read_source(path).clips
    assert clip.id == "a, b" and clip.transcript == 'line one\nline "two"'


@pytest.mark.parametrize("end", ["c.mp3,0.2,", "c.mp3,0.2,ok\n", 'c.mp3,0.2,"ok"\n', 'c.mp3,0.2,"two\nlines"\n'])
def test_stray_quotation_mark_affects_its_own_row_only(tmp_path, end):
    clips, _ = rows_of(tmp_path, 'path,Joy,transcript\na.mp3,0.5,"he said\nb.mp3,0.1,fine\n' + end)
    assert list(clips) == ["a", "b", "c"] and clips["b"] == (0.1, "fine", ()) and clips["c"][0] == 0.2
    assert is_unlabeled(clips["a"]) and clips["a"][1] is None
    assert clips["a"][2] == ("labels.csv line 2: a quotation mark is left open; labels not read",)


def test_open_quotation_mark_in_the_last_line_is_detected(tmp_path):
    for end in ("", "\n"):
        clips, _ = rows_of(tmp_path, f'path,Joy,transcript\na.mp3,0.5,"he\nsaid"\nb.mp3,0.1,"fine{end}')
        assert clips["a"] == (0.5, "he\nsaid", ())
        assert is_unlabeled(clips["b"]) and "line 4: a quotation mark is left open" in clips["b"][2][0]


def test_quotation_mark_that_closes_in_a_later_row_is_detected_or_noted(tmp_path):
    clips, _ = rows_of(tmp_path, 'path,transcript,Joy\na.mp3,"he said,0.5\nb.mp3,said" she,0.1\nc.mp3,x,0\n')
    assert list(clips) == ["a", "b", "c"] and clips["b"] == (0.1, 'said" she', ())
    # Three lines, and three columns in each reading of them: they are taken for one row, and shown.
    clips, notes = rows_of(tmp_path, 'path,Joy,transcript\na.mp3,0.5,"he said\nb.mp3,0.1,fine"\nc.mp3,0.2,x\n')
    assert list(clips) == ["a", "c"] and any("such as line 2" in note for note in notes)


def test_quotation_marks_inside_cells_are_kept(tmp_path):
    clips, _ = rows_of(
        tmp_path, 'path,Joy,transcript\na.mp3,0.5,"no" he said\nb.mp3,0.1,say "x, not y\nc.mp3,1,5" tv\n'
    )
    assert clips["a"] == (0.5, '"no" he said', ()) and clips["c"] == (1.0, '5" tv', ())
    assert is_unlabeled(clips["b"]) and "line 3: 4 cells instead of 3" in clips["b"][2][0]


def test_rows_with_more_or_fewer_cells_keep_their_clip(tmp_path):
    lines = "a.mp3,0.5,hello, world\nb.mp3,0.25,fine,,\nc.mp3,0.5\n\nd.mp3,0.75,last\n"
    clips, notes = rows_of(tmp_path, "path,Joy,transcript\n" + lines)
    assert list(clips) == ["a", "b", "c", "d"]
    assert clips["b"] == (0.25, "fine", ()) and clips["d"] == (0.75, "last", ())  # blanks at the end are none
    assert is_unlabeled(clips["a"]) and clips["a"][1] is None
    assert clips["a"][2] == ("labels.csv line 2: 4 cells instead of 3; labels not read",)
    assert clips["c"] == (0.5, None, ())
    assert "1 row with fewer cells than the header, such as line 4; the missing cells count as empty" in notes


def test_labels_are_guessed_from_intact_rows(tmp_path):
    clips, _ = rows_of(tmp_path, "path,transcript,valence\na.mp3,hello, world,0.5\nb.mp3,x,0.25\n")
    assert is_unlabeled(clips["a"]) and clips["b"] == (0.25, "x", ())


def test_damaged_row_keeps_the_cells_before_its_file(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"x")
    source = read_source(table(tmp_path, "speaker,id,path,split,Joy\ns1,k,a.mp3,train,0,5\ns2,l,b.mp3,train,1\n"))
    clip, _ = source.clips
    assert (clip.id, clip.media, clip.groups, clip.split) == ("k", tmp_path / "a.mp3", {"speaker": "s1"}, "")
    assert math.isnan(clip.labels[0])


@pytest.mark.parametrize(
    "line",
    [
        "b, the second.mp3,0.5",  # no file is called b
        "a,0.5,",  # of the clip above
        "gone.mp3,0.5,more",
        ",b.mp3,0.5",
    ],
)
def test_damaged_row_without_identifiable_file_is_left_out_and_named(tmp_path, line):
    clips, notes = rows_of(tmp_path, f"path,Joy\na.mp3,1\n{line},x\n", "a")
    assert list(clips) == ["a"] and any("1 row left out" in note and "line 3 (" in note for note in notes)


def test_damaged_row_whose_id_follows_its_file_is_left_out(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"x")
    source = read_source(table(tmp_path, "path,Joy,id\na.mp3,0,5,k\nb.mp3,0,l\n"))
    assert [clip.id for clip in source.clips] == ["l"]
    assert source.left_out == [LeftOut("labels.csv line 2", "a.mp3", "4 cells instead of 3")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,Joy\na.mp4,great\n", "line 2, column Joy: 'great'"),
        ("name,Joy\na.mp4,1\n", "media files"),
        ("file,Joy\n", "at least one row"),
        ("file\na.mp4\nb.mp4\na.mp4\n", "two clips are called 'a.mp4': line 2, line 4; ids must be unique"),
        ("file,Joy\n,1\n", "line 2"),
        ("\nfile,Joy\n\n\n,1\n", "line 5"),
        ('file,"Joy\na.mp4,1\n', "line 1: a quotation mark is left open"),
        ("file,Joy,Joy\na.mp4,1,0\n", "two columns are called 'Joy', number 2 and 3; rename one"),
    ],
)
def test_unreadable_tables_raise_one_line(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        read_source(table(tmp_path, text))
    assert words in str(caught.value) and "\n" not in str(caught.value)
