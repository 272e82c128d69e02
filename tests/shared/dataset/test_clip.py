"""What layouts make of tables and folders."""

import math
import shutil

import pytest
from helpers.media_files import prepared_here

from shared.dataset.check_source import check_source
from shared.dataset.clip import EMI, Clip
from shared.errors import UserError
from shared.layouts.registry import read_source


def table(folder, text, name="labels.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_emi_columns_are_recognised_in_the_order_of_the_names(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "00001.webm").write_bytes(b"x")
    (tmp_path / "clips" / "00001.txt").write_text(" so  funny \n")
    (tmp_path / "clips" / "00002.txt").write_text("\n")
    table(
        tmp_path,
        "Joy,Filename,empathic pain,Admiration,Amusement,Determination,Excitement,Subject,SEED,split,loudness\n"
        "0.5,clips/00001,0,0.1,,NaN,1,s1,v9,train,7\n"
        "0,clips/00002.mp4,0,0,0,0,0,s2,v9,test,8\n",
    )
    source = read_source(tmp_path)
    assert source.label_names == EMI and source.group_names == ("subject", "seed")
    first, second = source.clips
    assert first.id == "00001" and first.media == tmp_path / "clips" / "00001.webm"  # the extension was looked for
    assert first.transcript == "so  funny" and second.transcript is None
    assert first.labels[0] == 0.1 and first.labels[3] == 0 and first.labels[5] == 0.5
    assert math.isnan(first.labels[1]) and math.isnan(first.labels[2])
    assert first.groups == {"subject": "s1", "seed": "v9"} and (first.split, second.split) == ("train", "test")
    assert second.id == "00002" and second.media == tmp_path / "clips" / "00002.mp4"  # not there: preparing says so


def test_other_labels_are_the_numeric_columns(tmp_path):
    path = table(
        tmp_path,
        "clip;video;words;valence;arousal;comment;empty;speaker\na;x.mp4;hi, you;0.2;;fine;;p\nb;y.mp4;;-1;3e-1;2;;p\n",
        "ratings.csv",
    )
    source = read_source(path)
    assert source.label_names == ("valence", "arousal") and source.group_names == ("speaker",)
    assert [clip.id for clip in source.clips] == ["a", "b"]
    assert source.clips[0].transcript == "hi, you" and source.clips[1].transcript is None
    assert source.clips[1].labels == (-1.0, 0.3) and math.isnan(source.clips[0].labels[1])
    assert any("valence, arousal" in note for note in source.notes)


def test_a_table_with_some_of_the_dimensions_has_those_alone(tmp_path):
    source = read_source(table(tmp_path, "file,Joy\na.mp4,1\n"))
    assert source.label_names == ("Joy",) and source.clips[0].labels == (1.0,)
    assert "Admiration" in source.notes[0]


def test_quotes_newlines_and_byte_order_marks(tmp_path):
    path = table(tmp_path, '\ufefffile,transcript\n"a, b.mp4","line one\nline ""two"""\n\n')
    (clip,) = read_source(path).clips
    assert clip.id == "a, b" and clip.transcript == 'line one\nline "two"'


def rows_of(folder, text, names="abcd"):
    """{id: (first label, transcript, remarks)} and notes of a table beside files called a.mp3, b.mp3, ..."""
    for name in names:
        (folder / f"{name}.mp3").write_bytes(b"x")
    source = read_source(table(folder, text))
    clips = {c.id: (c.labels[0], c.transcript, c.remarks) for c in source.clips}
    return clips, source.notes


def unlabelled(row):
    return math.isnan(row[0])


@pytest.mark.parametrize("end", ["c.mp3,0.2,", "c.mp3,0.2,ok\n", 'c.mp3,0.2,"ok"\n', 'c.mp3,0.2,"two\nlines"\n'])
def test_a_stray_quotation_mark_costs_its_own_row_alone(tmp_path, end):
    clips, _ = rows_of(tmp_path, 'path,Joy,transcript\na.mp3,0.5,"he said\nb.mp3,0.1,fine\n' + end)
    assert list(clips) == ["a", "b", "c"] and clips["b"] == (0.1, "fine", ()) and clips["c"][0] == 0.2
    assert unlabelled(clips["a"]) and clips["a"][1] is None
    assert clips["a"][2] == ("labels.csv line 2: a quotation mark is left open; labels not read",)


def test_a_quotation_mark_open_in_the_last_line_is_noticed(tmp_path):
    for end in ("", "\n"):
        clips, _ = rows_of(tmp_path, f'path,Joy,transcript\na.mp3,0.5,"he\nsaid"\nb.mp3,0.1,"fine{end}')
        assert clips["a"] == (0.5, "he\nsaid", ())
        assert unlabelled(clips["b"]) and "line 4: a quotation mark is left open" in clips["b"][2][0]


def test_a_quotation_mark_that_closes_in_a_later_row(tmp_path):
    clips, _ = rows_of(tmp_path, 'path,transcript,Joy\na.mp3,"he said,0.5\nb.mp3,said" she,0.1\nc.mp3,x,0\n')
    assert list(clips) == ["a", "b", "c"] and clips["b"] == (0.1, 'said" she', ())
    # Three lines, and three columns in each reading of them: they are taken for one row, and shown.
    clips, notes = rows_of(tmp_path, 'path,Joy,transcript\na.mp3,0.5,"he said\nb.mp3,0.1,fine"\nc.mp3,0.2,x\n')
    assert list(clips) == ["a", "c"] and any("such as line 2" in note for note in notes)


def test_quotation_marks_within_a_line_are_only_marks(tmp_path):
    clips, _ = rows_of(
        tmp_path, 'path,Joy,transcript\na.mp3,0.5,"no" he said\nb.mp3,0.1,say "x, not y\nc.mp3,1,5" tv\n'
    )
    assert clips["a"] == (0.5, "no he said", ()) and clips["c"] == (1.0, '5" tv', ())
    assert unlabelled(clips["b"]) and "line 3: 4 cells instead of 3" in clips["b"][2][0]


def test_rows_of_another_width(tmp_path):
    lines = "a.mp3,0.5,hello, world\nb.mp3,0.25,fine,,\nc.mp3,0.5\n\nd.mp3,0.75,last\n"
    clips, notes = rows_of(tmp_path, "path,Joy,transcript\n" + lines)
    assert list(clips) == ["a", "b", "c", "d"]
    assert clips["b"] == (0.25, "fine", ()) and clips["d"] == (0.75, "last", ())  # blanks at the end are none
    assert unlabelled(clips["a"]) and clips["a"][1] is None
    assert clips["a"][2] == ("labels.csv line 2: 4 cells instead of 3; labels not read",)
    assert clips["c"] == (0.5, None, ())
    assert "1 rows have fewer cells than the header, such as line 4; the missing cells count as empty" in notes


def test_labels_are_guessed_from_whole_rows(tmp_path):
    clips, _ = rows_of(tmp_path, "path,transcript,valence\na.mp3,hello, world,0.5\nb.mp3,x,0.25\n")
    assert unlabelled(clips["a"]) and clips["b"] == (0.25, "x", ())


def test_cells_before_the_file_are_in_place_and_others_are_not(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"x")
    source = read_source(table(tmp_path, "speaker,id,path,split,Joy\ns1,k,a.mp3,train,0,5\n"))
    (clip,) = source.clips
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
def test_a_row_whose_file_cannot_be_told_is_named(tmp_path, line):
    clips, notes = rows_of(tmp_path, f"path,Joy\na.mp3,1\n{line},x\n", "a")
    assert list(clips) == ["a"] and any("1 rows left out" in note and "line 3 (" in note for note in notes)


def test_a_file_that_is_not_of_the_rows_id_leaves_the_row_out(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"x")
    text = "path,Joy,id\na.mp3,0,5,k\n"
    with pytest.raises(UserError, match=r"no clips here.*line 2 .4 cells instead of 3"):
        read_source(table(tmp_path, text))


def test_repeated_stems_keep_their_folders(tmp_path):
    source = read_source(table(tmp_path, "file\na/1.mp4\nb/1.mp4\n"))
    assert [clip.id for clip in source.clips] == ["a/1", "b/1"]


def test_a_folder_gives_its_media_files_in_order(tmp_path):
    for name in ("b/2.MP4", "b/10.webm", "a.wav", ".hidden/x.mp4", "b/.x.mp4", "notes.txt", "-odd name (1).mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("hello")
    source = read_source(tmp_path)
    assert [clip.id for clip in source.clips] == ["-odd name (1)", "a", "b/10", "b/2"]
    assert [clip.transcript for clip in source.clips] == [None, "hello", None, None]
    assert source.label_names == () and all(clip.labels == () for clip in source.clips)
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert "a.wav" in [clip.id for clip in read_source(tmp_path).clips]


def test_linked_folders_are_searched_once_and_dead_links_are_clips_that_fail(tmp_path):
    inside, outside = tmp_path / "clips", tmp_path / "store"
    for path in (inside / "own" / "1.wav", outside / "2.wav", outside / "deep" / "3.wav", outside / ".x" / "4.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (inside / "a_link").symlink_to(inside / "own")  # its files are there already
    (inside / "more").symlink_to(outside)
    (inside / "again").symlink_to(outside)
    (outside / "deep" / "up").symlink_to(inside)
    (outside / "deep" / "self").symlink_to(outside / "deep" / "self")
    (inside / "5.mp4").symlink_to(tmp_path / "gone.mp4")
    source = read_source(inside)
    assert [clip.id for clip in source.clips] == ["5", "again/2", "again/deep/3", "own/1"]
    assert prepared_here(source)[1]["5"].detail == "no such file"
    assert source.notes == ["1 files of other kinds left out, such as again/deep/self"]


def test_files_of_other_kinds_are_counted(tmp_path):
    for name in ("a.wav", "a.txt", "b.txt", "c.jpg", "d.WAV", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    source = read_source(tmp_path)
    assert [clip.id for clip in source.clips] == ["a", "d"]
    assert source.notes == ["2 files of other kinds left out, such as b.txt"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no clips here.*1 files of other kinds left out, such as x\.jpg"):
        read_source(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Das fänd’ ich schön".encode(), "Das fänd’ ich schön"),
        ("Das fänd’ ich schön".encode("cp1252"), "Das fänd’ ich schön"),
        ("déjà vu".encode("latin-1"), "déjà vu"),
        ("so é".encode("utf-16"), "so é"),
        ("\ufeffhello\n".encode(), "hello"),
        (b"what\x81\xe9", "what\ufffdé"),  # 81 is nothing there
        ("日本語".encode()[:-1], "日本\ufffd"),  # cut off: the rest stays what it is
        (b" \n", None),
    ],
)
def test_words_beside_a_file_in_the_usual_encodings(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(content)
    assert read_source(tmp_path).clips[0].transcript == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,Joy\na.mp4,great\n", "line 2, column Joy: 'great'"),
        ("name,Joy\na.mp4,1\n", "media files"),
        ("file,Joy\n", "at least one row"),
        ("file\na.mp4\na.mp4\n", "two clips"),
        ("file,Joy\n,1\n", "line 2"),
        ("\nfile,Joy\n\n\n,1\n", "line 5"),
        ('file,"Joy\na.mp4,1\n', "line 1: a quotation mark is left open"),
        ("file,Joy,Joy\na.mp4,1,0\n", "two columns are called 'Joy'"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        read_source(table(tmp_path, text))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_sources_without_clips(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no clips"):
        read_source(tmp_path)
    with pytest.raises(UserError, match="did you mean 'folder'"):
        read_source(tmp_path, "foldr")


def test_cells_that_no_file_can_be_called(tmp_path):
    cells = ("a" * 300 + ".mp4", "b/" + "c" * 300 + "/d.mp4", "e\0.mp4", "/")
    lines = "".join(f"{i},{cell},0.5\n" for i, cell in enumerate(cells))
    (tmp_path / "t.csv").write_text(f"id,path,Joy\n{lines}")
    source = read_source(tmp_path / "t.csv")
    assert [clip.fingerprint(tmp_path)[1][0][1] for clip in source.clips] == [-1] * 4
    assert {verdict.detail for verdict in prepared_here(source)[1].values()} == {"no such file"}
    found = check_source(tmp_path / "t.csv")
    assert found["files"]["missing"] == ["0", "1", "2", "3"] and found["headers"]["of"] == 0


def test_a_changed_face_crop_changes_the_fingerprint(tmp_path):
    crops = tmp_path / "a" / "crops"
    crops.mkdir(parents=True)
    for number in (2, 1):
        (crops / f"{number}.jpg").write_bytes(b"picture")
    clip = Clip("a", None, crops=crops)
    first = clip.fingerprint(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Clip("a", None, crops=tmp_path / "b" / "crops").fingerprint(tmp_path / "b") == first
    seen = [first]
    for change in (
        lambda: (crops / "2.jpg").write_bytes(b"another picture"),
        lambda: (crops / "3.jpg").write_bytes(b""),
        lambda: (crops / "3.jpg").rename(crops / "4.jpg"),
        lambda: shutil.rmtree(crops),
        lambda: crops.write_bytes(b"no folder"),
    ):
        change()
        seen.append(clip.fingerprint(tmp_path / "a"))
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    for crops in ("e\0", "a" * 300):
        assert Clip("a", None, crops=tmp_path / crops).fingerprint(tmp_path)[1][2][-1] is None


def test_the_numbers_of_the_rows_are_no_label(tmp_path):
    for name in ("", "Unnamed: 0", "__index_level_0__"):
        (tmp_path / "t.csv").write_text(f"{name},path,valence,Unnamed\n0,a.mp4,0.5,1\n1,b.mp4,0.25,2\n")
        assert read_source(tmp_path / "t.csv").label_names == ("valence", "Unnamed")


def test_ids_groups_and_times_are_no_labels(tmp_path):
    header = "path,subject_id,SpeakerID,participant,clip_id,fold,duration_s,age,startTime,end,videoId,afraid,valence"
    source = read_source(table(tmp_path, f"{header}\na.mp4,7,8,9,1,2,3.5,30,0,1,5,0.25,0.5\n"))
    assert source.label_names == ("afraid", "valence")
    assert source.clips[0].groups == {"subject": "7", "speaker": "8", "participant": "9"}
    (note,) = (note for note in source.notes if note.startswith("not labels"))
    assert "clip_id, fold, duration_s, age, startTime, end, videoId;" in note
    named = read_source(tmp_path, "csv", {"labels": ["age"], "groups": ["fold"]})
    assert named.label_names == ("age",) and named.clips[0].groups == {"fold": "2"}
    both = read_source(table(tmp_path, "path,subject_id,subject,valence\na.mp4,7,x,0.5\n"))
    assert both.clips[0].groups == {"subject": "x"} and both.label_names == ("valence",)


def test_why_a_mostly_numeric_column_is_not_read(tmp_path):
    text = 'path,valence,arousal,comment\na.mp4,0.5,1,x\nb.mp4,0.25,2,5\n\nc.mp4,"0,5",3,y\nd.mp4,low,,z\ne.mp4,1,1,\n'
    source = read_source(table(tmp_path, text))
    assert source.label_names == ("arousal",)
    said = [note for note in source.notes if "is not read" in note]
    assert said == ["'valence' is not read: line 5 has '0,5', which is no number, and 1 rows more"]


def test_dimensions_are_recognised_however_they_are_spaced(tmp_path):
    source = read_source(table(tmp_path, "File_Name,Empathic_Pain,JOY,fold\na.mp4,0.5,1,2\n"))
    assert source.label_names == ("Empathic Pain", "Joy") and source.clips[0].labels == (0.5, 1.0)
    with pytest.raises(UserError, match="columns 'Empathic Pain' and 'empathic_pain' are both Empathic Pain"):
        read_source(table(tmp_path, "path,Empathic Pain,empathic_pain\na.mp4,0.5,1\n"))
