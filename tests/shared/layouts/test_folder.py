"""The layout folder: which files are clips, and their transcripts."""

import pytest
from helpers.media_files import prepared_here

from shared.errors import UserError
from shared.layouts.registry import read_source


def test_folder_gives_its_media_files_sorted(tmp_path):
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


def test_linked_folders_are_searched_once_and_broken_links_are_failed_clips(tmp_path):
    inside, outside = tmp_path / "clips", tmp_path / "store"
    for path in (inside / "own" / "1.wav", outside / "2.wav", outside / "deep" / "3.wav", outside / ".x" / "4.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (inside / "a_link").symlink_to(inside / "own")  # its files are listed already
    (inside / "more").symlink_to(outside)
    (inside / "again").symlink_to(outside)
    (outside / "deep" / "up").symlink_to(inside)
    (outside / "deep" / "self").symlink_to(outside / "deep" / "self")
    (inside / "5.mp4").symlink_to(tmp_path / "gone.mp4")
    source = read_source(inside)
    assert [clip.id for clip in source.clips] == ["5", "again/2", "again/deep/3", "own/1"]
    assert prepared_here(source)[1]["5"].detail == "no such file"
    assert source.notes == ["1 file of other kinds left out, such as again/deep/self"]


def test_other_files_are_counted(tmp_path):
    for name in ("a.wav", "a.txt", "b.txt", "c.jpg", "d.WAV", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    source = read_source(tmp_path)
    assert [clip.id for clip in source.clips] == ["a", "d"]
    assert source.notes == ["2 files of other kinds left out, such as b.txt"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no clips here.*1 file of other kinds left out, such as x\.jpg"):
        read_source(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Das fänd’ ich schön".encode(), "Das fänd’ ich schön"),
        ("Das fänd’ ich schön".encode("cp1252"), "Das fänd’ ich schön"),
        ("déjà vu".encode("latin-1"), "déjà vu"),
        ("so é".encode("utf-16"), "so é"),
        ("\ufeffhello\n".encode(), "hello"),
        (b"what\x81\xe9", "what\ufffdé"),  # 81 is undefined in Windows-1252
        ("日本語".encode()[:-1], "日本\ufffd"),  # cut off: the rest stays what it is
        (b" \n", None),
    ],
)
def test_sidecar_transcripts_are_read_in_common_encodings(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(content)
    assert read_source(tmp_path).clips[0].transcript == words


def test_sources_without_clips_raise(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no clips"):
        read_source(tmp_path)
    with pytest.raises(UserError, match="did you mean 'folder'"):
        read_source(tmp_path, "foldr")
