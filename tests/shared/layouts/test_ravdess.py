"""The layout ravdess: recordings by file names or by a manifest."""

import math
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_file_names_give_labels_groups_and_transcripts(tmp_path):
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
    assert "2 copies of other files" in source.notes[0] and "1 file left out, not named" in source.notes[1]


MANIFEST = """path,actor,sex,emotion,intensity,text,repetition
b/one.wav,12,female,angry,normal,Dogs are sitting by the door.,1
a/two.flac,3,male,calm,strong,kids are talking by the door,2
b/two.flac,3,male,surprised,strong,Kids are talking by the door.,1
gone.wav,3,male,neutral,normal,Kids are talking by the door.,1
"""


def test_manifest_describes_files_with_any_name(tmp_path):
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
    with pytest.raises(UserError, match=r"has the table manifest\.csv, which may contain the labels"):
        guess_layout(tmp_path / "published")
    with pytest.raises(UserError, match="not a RAVDESS manifest"):
        read_source(tmp_path / "published" / "manifest.csv", "ravdess")


def test_manifest_rows_that_are_not_understood_are_named(tmp_path):
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
    assert clips["b/one"].labels == (0, 0, 0, 0.5, 0, 0) and clips["b/one"].problems == ()
    unknown, unsure, torn = clips["a/x"], clips["a/y"], clips["a/two"]
    assert all(math.isnan(value) for value in (*unknown.labels, *torn.labels))
    assert (unknown.transcript, unknown.groups) == ("Good night.", {"actor": "", "statement": "Good night."})
    assert "its emotion 'sleepy' is none of neutral, calm" in unknown.problems[0] and "no actor" in unknown.problems[1]
    assert math.isnan(unsure.labels[4]) and sum(map(math.isnan, unsure.labels)) == 1 and unsure.transcript is None
    assert unsure.media == tmp_path / "a/y.mp4" and "'loud' is none of normal, strong" in unsure.problems[0]
    assert torn.problems == ("line 8 of manifest.csv contradicts it, so it is not labeled",)
    notes = "\n".join(source.notes)
    for words in (
        "1 row names no file and is left out: line 6",
        "2 rows name a file that others name, and are left out: line 7 (./b/one.wav); line 8 (a/two.flac)",
        f"1 file is missing: {tmp_path}/gone.wav",
        "1 file is in no row and left out: c/y.wav",
        "3 clips have rows that are not understood: ",
    ):
        assert words in notes
