"""The layout csv: which columns hold what, and how files are found."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import face, prepared_here, voice, write_video, write_wav

from shared.commands.prepare import main as prepare
from shared.dataset.clip import EMI
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.layouts.registry import read_source


def table(folder, text, name="labels.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_emi_columns_are_recognized_in_their_published_order(tmp_path):
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
    assert (
        second.id == "00002" and second.media == tmp_path / "clips" / "00002.mp4"
    )  # preparing reports that it is missing


def test_other_labels_are_the_numeric_columns(tmp_path):
    path = table(
        tmp_path,
        "clip;video;words;valence;arousal;comment;empty;speaker\na;x.mp4;hi, you;0.2;;fine;;p\n"
        "b;y.mp4;;-1;3e-1;so so;;p\n",
        "ratings.csv",
    )
    source = read_source(path)
    assert source.label_names == ("valence", "arousal") and source.group_names == ("speaker",)
    assert [clip.id for clip in source.clips] == ["a", "b"]
    assert source.clips[0].transcript == "hi, you" and source.clips[1].transcript is None
    assert source.clips[1].labels == (-1.0, 0.3) and math.isnan(source.clips[0].labels[1])
    assert any("valence, arousal" in note for note in source.notes)


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+a", "-a", "@a", " =a", "\uff1da", '"a\nb"', "a\x1bb", "a\u202eb"])
@pytest.mark.parametrize("role", ["label", "group"])
def test_name_that_a_spreadsheet_would_run_or_a_line_cannot_hold_is_refused(tmp_path, name, role):
    path = table(tmp_path, f"path,{name},b\na.mp4,0.5,1\n")
    options = {} if role == "label" else {"labels": ["b"], "groups": [name.strip('"')]}
    with pytest.raises(
        UserError, match=r"labels\.csv.*(begins like a spreadsheet formula|control character).*rename it$"
    ):
        read_source(path, options=options)


def test_table_with_some_dimensions_has_only_those_labels(tmp_path):
    source = read_source(table(tmp_path, "file,Joy\na.mp4,1\n"))
    assert source.label_names == ("Joy",) and source.clips[0].labels == (1.0,)
    assert "Admiration" in source.notes[0]


def test_ratings_beside_some_dimensions_are_labels_and_numbers_beside_all_six_are_not(tmp_path):
    some = read_source(table(tmp_path, "file,Calm,joy,age,note\na.mp4,0.5,1,20,x\n"))
    assert some.label_names == ("Joy", "Calm") and some.clips[0].labels == (1.0, 0.5)
    assert any("labels are the numeric columns Joy, Calm" in note for note in some.notes)
    (tmp_path / "all").mkdir()
    every = read_source(table(tmp_path / "all", f"file,{','.join(EMI)},Calm\na.mp4,0,0,0,0,0,0,0.5\n"))
    assert every.label_names == EMI and any("not read Calm" in note for note in every.notes)


def test_repeated_stems_keep_their_folders_in_ids(tmp_path):
    source = read_source(table(tmp_path, "file\na/1.mp4\nb/1.mp4\n"))
    assert [clip.id for clip in source.clips] == ["a/1", "b/1"]


def test_row_numbers_are_not_labels(tmp_path):
    for name in ("", "Unnamed: 0", "__index_level_0__"):
        (tmp_path / "t.csv").write_text(f"{name},path,valence,Unnamed\n0,a.mp4,0.5,1\n1,b.mp4,0.25,2\n")
        assert read_source(tmp_path / "t.csv").label_names == ("valence", "Unnamed")


def test_ids_groups_and_times_are_not_labels(tmp_path):
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


def test_a_word_in_a_column_of_numbers_is_named_and_a_column_of_words_is_noted(tmp_path):
    text = "path,valence,comment\na.mp4,0.5,x\nb.mp4,0.25,5\n\nd.mp4,low,y\ne.mp4,?,\n f.mp4,1,z\n"
    with pytest.raises(UserError) as caught:
        read_source(table(tmp_path, text))
    assert "column 'valence' has numbers, but line 5: 'low' is not a number (and 1 more row)" in str(caught.value)
    source = read_source(tmp_path, "csv", {"labels": []} | {"groups": ["valence"]})
    assert source.label_names == () and source.clips[2].groups == {"valence": "low"}
    assert "'comment' is not read: line 2: 'x' is not a number (and 2 more rows)" in source.notes


def test_dimensions_are_recognized_whatever_their_spacing(tmp_path):
    source = read_source(table(tmp_path, "File_Name,Empathic_Pain,JOY,fold\na.mp4,0.5,1,2\n"))
    assert source.label_names == ("Empathic Pain", "Joy") and source.clips[0].labels == (0.5, 1.0)
    with pytest.raises(UserError, match="columns 'Empathic Pain' and 'empathic_pain' are both Empathic Pain"):
        read_source(table(tmp_path, "path,Empathic Pain,empathic_pain\na.mp4,0.5,1\n"))


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_options_name_columns(tmp_path):
    table = write(
        tmp_path / "t.csv",
        "path,film,valence,arousal,age,said,who,text,part\nno,v/a.mp4,0.5,1,30,hi,p,not this,validation\n",
    )
    options = {"media": "film", "labels": ["valence", "arousal"], "transcript": "said", "groups": ["who"]}
    source = read_source(table, "csv", {**options, "split": "part"})
    (clip,) = source.clips
    assert clip.media == tmp_path / "v/a.mp4" and clip.transcript == "hi" and clip.labels == (0.5, 1.0)
    assert source.label_names == ("valence", "arousal") and clip.groups == {"who": "p"} and clip.split == "valid"
    assert any("media 'film'" in note and "not read path, age, text" in note for note in source.notes)
    assert clip.id == "a"


def test_missing_columns_and_options_suggest_the_nearest(tmp_path):
    table = write(tmp_path / "t.csv", "path,valence\na.mp4,1\n")
    with pytest.raises(UserError, match="no column 'valense': did you mean 'valence'"):
        read_source(table, "csv", {"labels": ["valense"]})
    with pytest.raises(UserError, match="has no option 'lables': did you mean 'labels'"):
        read_source(table, "csv", {"lables": ["valence"]})
    with pytest.raises(UserError, match=r"layout 'csv'.*list"):
        read_source(table, "csv", {"labels": 5})
    with pytest.raises(UserError, match="layout 'folder' has no option 'media'"):
        read_source(tmp_path, "folder", {"media": "path"})


def test_column_of_files_is_recognized_by_its_cells_whatever_its_name(tmp_path):
    for name in ("a.mp4", "b.webm", "1.mp4", "2.mp4"):
        (tmp_path / name).write_bytes(b"x")
    path = table(tmp_path, "Datei;Person;Freude\na.mp4;p;1\nb;q;2\nmissing.mp4;q;1\n", "ratings.csv")
    source = read_source(path)
    assert [clip.media.name for clip in source.clips] == ["a.mp4", "b.webm", "missing.mp4"]
    assert source.label_names == ("Freude",) and source.group_names == ("person",)
    numbers = table(tmp_path, "nummer,freude\n1,1\n2,2\n", "numbers.csv")  # ratings are no names of files
    with pytest.raises(UserError, match=r"no column for the media files.*nummer"):
        read_source(numbers)
    two = table(tmp_path, "gesicht,stimme\na.mp4,b.webm\n", "two.csv")
    with pytest.raises(UserError, match="'gesicht' and 'stimme' name media files; set media"):
        read_source(two)


def test_files_are_found_by_id_without_a_media_column(tmp_path):
    write(tmp_path / "deep" / "er" / "k1.mp4")
    write(tmp_path / "k2.wav")
    table = write(tmp_path / "t.csv", "id,Joy\nk1,0\nk2,1\nk3,1\n")
    clips = read_source(table).clips
    assert [clip.media for clip in clips] == [tmp_path / "deep/er/k1.mp4", tmp_path / "k2.wav", None]


def test_ambiguous_id_has_no_file(tmp_path):
    for name in ("s1/a.wav", "s2/a.wav", "deep/s2/b.mp4", "deep/s2/b.wav", "c.wav", "s1/c.wav"):
        write(tmp_path / name)
    ids = ["a", "s2/a", "s1/a.wav", "b", "s2/b.wav", "deep/s2/b", "c", "2/a"]
    rows = "".join(f"{name},s2,0.5\n" for name in ids)
    clips = {clip.id: clip for clip in read_source(write(tmp_path / "t.csv", f"id,speaker,valence\n{rows}")).clips}
    assert clips["a"].media is None and clips["a"].labels == (0.5,)
    (problem,) = clips["a"].problems
    assert problem.startswith("'a' may be s1/a.wav, s2/a.wav;") and problem.endswith("by a longer id as s1/a")
    assert "'a' may be s1/a.wav, s2/a.wav" in prepare_clip(clips["a"], Recipe())[1].detail
    found = {name: clip.media and clip.media.relative_to(tmp_path).as_posix() for name, clip in clips.items()}
    assert found == {
        "a": None,
        "s2/a": "s2/a.wav",
        "s1/a.wav": "s1/a.wav",
        "b": "deep/s2/b.mp4",
        "s2/b.wav": "deep/s2/b.wav",
        "deep/s2/b": "deep/s2/b.mp4",
        "c": "c.wav",
        "2/a": None,
    }
    assert all(not clip.problems for name, clip in clips.items() if name not in ("a", "2/a"))
    assert clips["2/a"].problems == ("no file 2/a; did you mean s1/a.wav?",)


def test_links_to_one_file_are_not_ambiguous(tmp_path):
    write(tmp_path / "s1" / "a.wav")
    (tmp_path / "s2").mkdir()
    (tmp_path / "s2" / "a.wav").symlink_to(tmp_path / "s1" / "a.wav")
    (clip,) = read_source(write(tmp_path / "t.csv", "id,valence\na,0.5\n")).clips
    assert clip.media.name == "a.wav" and not clip.problems


def test_audio_column_and_root_are_read(tmp_path):
    table = write(tmp_path / "here" / "t.csv", "video;audio;Joy\na.mp4;a.wav;1\n")
    (clip,) = read_source(table, "csv", {"root": str(tmp_path)}).clips
    assert (clip.media, clip.audio) == (tmp_path / "a.mp4", tmp_path / "a.wav")
    (alone,) = read_source(write(tmp_path / "s.csv", "audio,Joy\na.wav,1\n")).clips
    assert (alone.media, alone.audio) == (tmp_path / "a.wav", None)


def test_command_line_options_reach_the_layout(tmp_path):
    write_wav(tmp_path / "a.wav", voice(0.5)[None])
    table = write(tmp_path / "t.csv", "clip_file,good,bad\na.wav,0.25,7\n")
    words = [str(table), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert prepare([*words, "--layout_options.media", "clip_file", "--layout_options.labels", "[good]"]) == 0
    dataset = ClipDataset.open(tmp_path / "out")
    assert dataset.label_names == ["good"] and dataset[0].labels.tolist() == [0.25]


def test_separate_sound_replaces_the_video_sound_which_is_the_fallback(tmp_path):
    frames = np.stack([face()] * 10)
    write_video(tmp_path / "a.mp4", frames, sound=voice(0.4)[None])
    write_video(tmp_path / "b.mp4", frames, sound=voice(0.4)[None])
    write_video(tmp_path / "c.mp4", frames)
    (tmp_path / "d.mp4").write_bytes(b"broken")
    loud = write_wav(tmp_path / "x.wav", np.full((1, 8000), 0.5, np.float32))
    write(tmp_path / "broken.wav")
    write(tmp_path / "t.csv", "video,audio,Joy\na,x.wav,0\nb,broken.wav,0\nc,x.wav,0\nd.mp4,x.wav,0\n")
    clips, verdicts = prepared_here(read_source(tmp_path / "t.csv"))
    a, b, c, d = clips.values()
    assert loud.exists() and len(a.frames) == len(c.frames) == 4 and len(d.frames) == 0
    for clip in (a, c, d):
        np.testing.assert_array_equal(clip.waveform, np.full(8000, 0.5, np.float32))
    assert len(b.waveform) == 7168  # its own track, in whole blocks of AAC
    assert "broken.wav: not a readable media file" in verdicts["b"].detail
    assert "d.mp4: not a readable media file" in verdicts["d"].detail and verdicts["a"].verdict == "ok"


def test_json_lines_are_read_as_a_table(tmp_path):
    rows = ['{"path": "a.mp4", "valence": 0.5, "text": " hi ", "meta": {"x": 1}}', "", '{"path": "b.mp4"}', "[1]"]
    source = read_source(table(tmp_path, "\n".join(rows), "t.JSONL"))
    assert source.label_names == ("valence",) and [clip.id for clip in source.clips] == ["a", "b"]
    assert source.clips[0].labels == (0.5,) and source.clips[0].transcript == "hi"
    assert math.isnan(source.clips[1].labels[0]) and source.clips[1].transcript is None
    notes = "; ".join(source.notes)
    assert "lists or objects are not read: meta" in notes and "line 4 (not a JSON object)" in notes
    with pytest.raises(UserError, match="no line is a JSON object"):
        read_source(table(tmp_path, "[1]\n", "other.jsonl"))


@pytest.mark.parametrize("name", ["t.xlsx", "t.xls", "t.ods", "t.json", "t.FEATHER"])
def test_unsupported_table_format_is_refused(tmp_path, name):
    for layout in (None, "csv", "ravdess"):
        with pytest.raises(UserError, match="are not read; save it as CSV"):
            read_source(table(tmp_path, "x", name), layout)
