"""Layouts besides the plain table: columns by name, RAVDESS by names or manifest, Hugging Face datasets."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import face, prepared_here, voice, write_video, write_wav

from shared.commands.prepare import main as prepare
from shared.dataset.clip import Clip, StoredMedia
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.dataset.verdicts import failed
from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- csv -----------------------------------------------------------------------------------------------------------


def test_named_columns_hold_what_the_options_say(tmp_path):
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


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    table = write(tmp_path / "t.csv", "path,valence\na.mp4,1\n")
    with pytest.raises(UserError, match="no column 'valense': did you mean 'valence'"):
        read_source(table, "csv", {"labels": ["valense"]})
    with pytest.raises(UserError, match="has no option 'lables': did you mean 'labels'"):
        read_source(table, "csv", {"lables": ["valence"]})
    with pytest.raises(UserError, match=r"layout 'csv'.*list"):
        read_source(table, "csv", {"labels": 5})
    with pytest.raises(UserError, match="layout 'folder' has no option 'media'"):
        read_source(tmp_path, "folder", {"media": "path"})


def test_files_are_looked_for_by_id_where_no_column_names_them(tmp_path):
    write(tmp_path / "deep" / "er" / "k1.mp4")
    write(tmp_path / "k2.wav")
    table = write(tmp_path / "t.csv", "id,Joy\nk1,0\nk2,1\nk3,1\n")
    clips = read_source(table).clips
    assert [clip.media for clip in clips] == [tmp_path / "deep/er/k1.mp4", tmp_path / "k2.wav", None]


def test_an_id_that_several_files_have_is_not_guessed(tmp_path):
    for name in ("s1/a.wav", "s2/a.wav", "deep/s2/b.mp4", "deep/s2/b.wav", "c.wav", "s1/c.wav"):
        write(tmp_path / name)
    ids = ["a", "s2/a", "s1/a.wav", "b", "s2/b.wav", "deep/s2/b", "c", "2/a"]
    rows = "".join(f"{name},s2,0.5\n" for name in ids)
    clips = {clip.id: clip for clip in read_source(write(tmp_path / "t.csv", f"id,speaker,valence\n{rows}")).clips}
    assert clips["a"].media is None and clips["a"].labels == (0.5,)
    (said,) = clips["a"].remarks
    assert said.startswith("'a' may be s1/a.wav, s2/a.wav;") and said.endswith("by a longer id as s1/a")
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
    assert all(not clip.remarks for name, clip in clips.items() if name != "a")


def test_links_to_one_file_are_not_several(tmp_path):
    write(tmp_path / "s1" / "a.wav")
    (tmp_path / "s2").mkdir()
    (tmp_path / "s2" / "a.wav").symlink_to(tmp_path / "s1" / "a.wav")
    (clip,) = read_source(write(tmp_path / "t.csv", "id,valence\na,0.5\n")).clips
    assert clip.media.name == "a.wav" and not clip.remarks


def test_sound_in_files_of_its_own_and_a_root(tmp_path):
    table = write(tmp_path / "here" / "t.csv", "video;audio;Joy\na.mp4;a.wav;1\n")
    (clip,) = read_source(table, "csv", {"root": str(tmp_path)}).clips
    assert (clip.media, clip.audio) == (tmp_path / "a.mp4", tmp_path / "a.wav")
    (alone,) = read_source(write(tmp_path / "s.csv", "audio,Joy\na.wav,1\n")).clips
    assert (alone.media, alone.audio) == (tmp_path / "a.wav", None)


def test_options_reach_the_layout_from_the_command_line(tmp_path):
    write_wav(tmp_path / "a.wav", voice(0.5)[None])
    table = write(tmp_path / "t.csv", "clip_file,good,bad\na.wav,0.25,7\n")
    words = [str(table), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert prepare([*words, "--layout_options.media", "clip_file", "--layout_options.labels", "[good]"]) == 0
    dataset = ClipDataset.open(tmp_path / "out")
    assert dataset.label_names == ["good"] and dataset[0]["labels"].tolist() == [0.25]


# --- ravdess -------------------------------------------------------------------------------------------------------


def test_ravdess_names_are_labels_groups_and_words(tmp_path):
    for name in (
        "a/03-01-05-01-02-01-12.wav",
        "a/03-01-02-02-01-02-03.flac",
        "b/03-01-01-01-01-01-03.wav",
        "b/03-01-08-02-01-01-03.wav",
        "copy/03-01-05-01-02-01-12.wav",
        "b/notes.wav",
        "video/01-01-07-02-01-01-09.mp4",
        "video/02-01-07-02-01-01-09.mp4",
        "sound/03-01-07-02-01-01-09.wav",
        "video/02-01-03-01-01-01-10.mp4",
        "sound/03-01-03-01-01-01-10.wav",
    ):
        write(tmp_path / name)
    (tmp_path / "a" / "03-01-01-01-01-01-03.wav").symlink_to(tmp_path / "gone.wav")
    source = read_source(tmp_path, "ravdess")
    clips = {clip.id: clip for clip in source.clips}
    assert source.label_names == ("calm", "happy", "sad", "angry", "fearful", "disgust")
    angry = clips["03-01-05-01-02-01-12"]
    assert angry.labels == (0, 0, 0, 0.5, 0, 0) and angry.groups == {"actor": "12", "statement": "02"}
    assert angry.transcript == "Dogs are sitting by the door." and angry.media.parent.name == "a"
    assert clips["03-01-02-02-01-02-03"].labels == (1, 0, 0, 0, 0, 0)
    assert clips["03-01-02-02-01-02-03"].transcript == "Kids are talking by the door."
    assert clips["03-01-01-01-01-01-03"].labels == clips["03-01-08-02-01-01-03"].labels == (0,) * 6
    # one recording in several files is one clip
    assert clips["01-01-07-02-01-01-09"].audio is None and "02-01-07-02-01-01-09" not in clips
    assert clips["02-01-03-01-01-01-10"].audio == tmp_path / "sound/03-01-03-01-01-01-10.wav"
    assert len(clips) == 6
    assert clips["03-01-01-01-01-01-03"].media.parent.name == "b"  # not the link that leads nowhere
    assert "2 further copies" in source.notes[0] and "1 files are not named" in source.notes[1]


MANIFEST = """path,actor,sex,emotion,intensity,text,repetition
b/one.wav,12,female,angry,normal,Dogs are sitting by the door.,1
a/two.flac,3,male,calm,strong,kids are talking by the door,2
b/two.flac,3,male,surprised,strong,Kids are talking by the door.,1
gone.wav,3,male,neutral,normal,Kids are talking by the door.,1
"""


def test_ravdess_files_may_be_called_anything_where_a_manifest_says_what_they_are(tmp_path):
    """The same recordings as they are published, and renamed."""
    names = {
        "03-01-05-01-02-01-12.wav": "b/one.wav",
        "03-01-02-02-01-02-03.flac": "a/two.flac",
        "03-01-08-02-01-01-03.flac": "b/two.flac",
        "03-01-01-01-01-01-03.wav": "gone.wav",
    }
    for published, renamed in names.items():
        write(tmp_path / "published" / published)
        write(tmp_path / "renamed" / renamed)
    write(tmp_path / "renamed" / "manifest.csv", MANIFEST)
    by_names = read_source(tmp_path / "published", "ravdess")
    by_rows = read_source(tmp_path / "renamed")
    assert guess_layout(tmp_path / "renamed") == "ravdess" and by_rows.notes == []
    assert read_source(tmp_path / "renamed" / "manifest.csv").clips == by_rows.clips
    assert [clip.id for clip in by_rows.clips] == ["gone", "a/two", "b/one", "b/two"]
    assert (by_rows.label_names, by_rows.group_names) == (by_names.label_names, by_names.group_names)
    for clip, other in zip(by_rows.clips, by_names.clips, strict=True):
        assert clip.media == tmp_path / "renamed" / names[other.media.name]
        assert (clip.labels, clip.groups, clip.transcript) == (other.labels, other.groups, other.transcript)
    write(tmp_path / "published" / "manifest.csv", MANIFEST.replace("path", "file").replace("emotion", "mood"))
    noted = read_source(tmp_path / "published", "ravdess")
    assert noted.clips == by_names.clips and "the names of the files are read instead" in noted.notes[0]
    assert guess_layout(tmp_path / "published") == "folder"
    with pytest.raises(UserError, match="no manifest of RAVDESS"):
        read_source(tmp_path / "published" / "manifest.csv", "ravdess")


def test_rows_of_a_ravdess_manifest_that_are_not_understood_are_named(tmp_path):
    for name in ("b/one.wav", "a/two.flac", "b/two.flac", "a/x.wav", "c/y.wav"):
        write(tmp_path / name)
    more = (
        ",1,male,sad,normal,,1",
        "./b/one.wav,12,female,angry,normal,Dogs are sitting by the door.,1",
        "a/two.flac,3,male,sad,strong,kids are talking by the door,2",
        "a/x.wav,,male,sleepy,2,Good night.,",
        "a/y,5,male,6,loud,,",
    )
    (tmp_path / "a/y.mp4").write_text("x")
    write(tmp_path / "manifest.csv", MANIFEST + "\n".join(more) + "\n")
    source = read_source(tmp_path, "ravdess")
    clips = {clip.id: clip for clip in source.clips}
    assert set(clips) == {"b/one", "a/two", "b/two", "gone", "a/x", "a/y"}
    assert clips["b/one"].labels == (0, 0, 0, 0.5, 0, 0) and clips["b/one"].remarks == ()
    unknown, unsure, torn = clips["a/x"], clips["a/y"], clips["a/two"]
    assert all(math.isnan(value) for value in (*unknown.labels, *torn.labels))
    assert (unknown.transcript, unknown.groups) == ("Good night.", {"actor": "", "statement": "Good night."})
    assert "its emotion 'sleepy' is none of neutral, calm" in unknown.remarks[0] and "no actor" in unknown.remarks[1]
    assert math.isnan(unsure.labels[4]) and sum(map(math.isnan, unsure.labels)) == 1 and unsure.transcript is None
    assert unsure.media == tmp_path / "a/y.mp4" and "'loud' is none of normal, strong" in unsure.remarks[0]
    assert torn.remarks == ("line 8 of manifest.csv says something else of it, so it is not labeled",)
    notes = "\n".join(source.notes)
    for words in (
        "1 rows name no file and are left out: line 6",
        "2 rows name a file that another one names, and are left out: line 7 (./b/one.wav); line 8 (a/two.flac)",
        f"1 files are not there: {tmp_path}/gone.wav",
        "1 files are in no row and left out: c/y.wav",
        "3 clips have rows that are not understood: ",
    ):
        assert words in notes


# --- hf ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "v.mp4", np.stack([face()] * 10), sound=voice(0.4)[None])
    write_wav(folder / "s.wav", voice(0.5, seed=3)[None])
    return folder


def rows_of(media):
    film, sound = (media / "v.mp4").read_bytes(), (media / "s.wav").read_bytes()
    cells = (film, "v.mp4"), (None, "v.mp4"), (sound, "s.wav")
    return {
        "video": [{"bytes": data, "path": name} for data, name in cells],
        "sentence": ["one", "two", None],
        "joy": [0.5, None, 1.0],
        "speaker": [7, 8, 9],
    }


def content(dataset, row):
    clip = dataset[row]
    return clip["transcript"], clip["labels"].tolist(), clip["groups"], len(clip["frames"]), len(clip["waveform"])


def test_a_saved_dataset_gives_the_clips_of_its_files(media, tmp_path):
    import datasets

    table = datasets.Dataset.from_dict(rows_of(media))
    splits = {"train": table.select([0, 1]), "validation": table.select([2])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "v.mp4").write_bytes((media / "v.mp4").read_bytes())
    source = read_source(tmp_path / "saved")
    assert guess_layout(tmp_path / "saved") == "hf"
    assert [clip.split for clip in source.clips] == ["train", "train", "valid"]
    assert isinstance(source.clips[0].media, StoredMedia) and source.clips[1].media == tmp_path / "saved" / "v.mp4"
    assert source.clips[0].media.read() == (media / "v.mp4").read_bytes()

    dataset = list(prepared_here(source)[0].values())
    assert content(dataset, 0) == ("one", [0.5], {"speaker": "7"}, 4, 7168)
    assert content(dataset, 2)[3:] == (0, 8000) and content(dataset, 2)[0] == ""
    assert math.isnan(dataset[1]["labels"][0])
    np.testing.assert_array_equal(dataset[0]["frames"], dataset[1]["frames"])  # inside and beside: one file


def test_parquet_with_bytes_in_row_groups_and_a_damaged_part(media, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    film, sound = (media / "v.mp4").read_bytes(), (media / "s.wav").read_bytes()
    columns = {"clip_id": ["a", "b", "c"], "blob": [film, sound, None], "joy": [0.0, 1.0, 0.5], "said": ["x", "y", ""]}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "data" / "train-00000-of-00002.parquet", row_group_size=1)
    (tmp_path / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1 cut off")
    options = {"id": "clip_id", "transcript": "said", "media": "blob"}
    source = read_source(tmp_path, options=options)
    assert [(clip.id, clip.split, clip.transcript) for clip in source.clips] == [
        ("a", "train", "x"),
        ("b", "train", "y"),
        ("c", "train", None),
    ]
    assert [clip.media and clip.media.read() for clip in source.clips] == [film, sound, None]
    assert "train-00001" in source.notes[0] and "left out" in source.notes[0]
    nameless = read_source(tmp_path, options={"transcript": "said"})  # the one column of bytes is the media
    assert [clip.id for clip in nameless.clips] == ["train-000000", "train-000001", "train-000002"]


def test_folders_without_a_readable_dataset(tmp_path):
    with pytest.raises(UserError, match="neither parquet nor arrow"):
        read_source(tmp_path, "hf")
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        read_source(tmp_path)
    for state in ("{}", "[]", '{"_data_files": 1}', '{"_data_files": [{}]}'):
        (tmp_path / "state.json").write_text(state)
        with pytest.raises(UserError, match="names no files as a saved dataset"):
            read_source(tmp_path)


def test_bytes_are_read_where_the_paths_beside_them_lead_nowhere(media, tmp_path):
    """As in corpora of speech: path, where the file lay once, and audio, the file itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = (media / "s.wav").read_bytes()
    columns = {"path": ["/gone/s.wav", "s.wav"], "audio": [{"bytes": sound, "path": "s.wav"}] * 2, "joy": [0.0, 1.0]}
    pq.write_table(pa.table(columns), tmp_path / "T.PARQUET")
    for clip in read_source(tmp_path / "T.PARQUET").clips:
        assert isinstance(clip.media, StoredMedia) and clip.media.read() == sound and clip.audio is None
    (tmp_path / "s.wav").write_bytes(sound)
    first, second = read_source(tmp_path / "T.PARQUET").clips
    assert second.media == tmp_path / "s.wav" and isinstance(first.audio, StoredMedia)


def test_of_several_stored_columns_video_comes_first_then_sound(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Audio, ClassLabel, Features, Image, Value, Video

    kinds = {
        "image": Image(decode=False),
        "speech": Audio(decode=False),
        "clip": Video(decode=False),
        "path": Value("string"),
        "emotion": ClassLabel(names=["calm", "happy"]),
        "valence": Value("float32"),
    }
    cells = {name: [{"bytes": name.encode(), "path": f"{name}.x"}] for name in ("image", "speech", "clip")}
    cells |= {"path": ["/gone/1.mp4"], "emotion": [1], "valence": [0.5]}

    def read(*names, **options):
        picked = Features({name: kinds[name] for name in names})
        table = pa.table({name: cells[name] for name in names}, schema=picked.arrow_schema)
        file = tmp_path / f"{'-'.join([*names, *options])}.parquet"
        pq.write_table(table, file)
        return read_source(file, options=options)

    source = read("image", "speech", "clip", "emotion", "valence")
    (clip,) = source.clips
    assert clip.media.read() == b"clip" and source.label_names == ("valence",)
    assert any("kinds: emotion" in note for note in source.notes)
    # Not an id, though it is called as one.
    assert not any("id 'clip'" in note for note in source.notes) and clip.id == "clip.x"
    assert read("image", "speech", "valence").clips[0].media.read() == b"speech"
    assert read("path", "image", "speech").clips[0].media.read() == b"speech"
    assert read("path", "image").clips[0].media == Path("/gone/1.mp4")
    assert read("image", "clip", "emotion", labels=["emotion"]).clips[0].labels == (1.0,)
    assert read("clip", "speech", "image", media="image").clips[0].media.read() == b"image"


# --- files of a clip -----------------------------------------------------------------------------------------------


def test_sound_of_its_own_is_heard_and_the_other_stays_the_substitute(tmp_path):
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
    assert loud.exists() and len(a["frames"]) == len(c["frames"]) == 4 and len(d["frames"]) == 0
    for clip in (a, c, d):
        np.testing.assert_array_equal(clip["waveform"], np.full(8000, 0.5, np.float32))
    assert len(b["waveform"]) == 7168  # its own track, in whole blocks of AAC
    assert "broken.wav: not a readable media file" in verdicts["b"].detail
    assert "d.mp4: not a readable media file" in verdicts["d"].detail and verdicts["a"].verdict == "ok"


def test_what_was_wrong_with_a_file_is_said_of_what_it_lacks(tmp_path):
    sound = write_wav(tmp_path / "x.wav", voice(0.4)[None])
    said = {
        media: prepare_clip(Clip("a", media, audio=sound, remarks=("odd",)), Recipe())[1].detail
        for media in (None, tmp_path / "gone.mp4")
    }
    assert said[None] == "no picture: no file; odd; no words: no transcript"
    gone = f"no picture: its file cannot be read; {tmp_path}/gone.mp4: no such file; odd; no words: no transcript"
    assert said[tmp_path / "gone.mp4"] == gone
    row, verdict = prepare_clip(Clip("a", tmp_path / "gone.mp4", remarks=("odd",)), Recipe())
    assert row is None and verdict.detail == "no such file; odd"
    assert failed(Clip("a", None, remarks=("odd",)), "took longer than 1 s").detail == "took longer than 1 s; odd"
