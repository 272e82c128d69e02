"""Names of files as people and file systems write them."""

import unicodedata

import pytest

from shared.dataset.media_files import is_media, media_files
from shared.layouts.registry import read_source
from shared.tables.media_finder import MediaFinder


@pytest.fixture
def finder(tmp_path):
    def finder(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        return MediaFinder(tmp_path)

    return finder


NFC, NFD = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(("A.MP4", "a.mp4"), ("a.mov", "a.mp4"), ("a", "a.MP4"), ("./a.mp4 ", "a.mp4"), ("clip.mp4", "clip.mp4.mp4")),
        *((NFC, NFD), (NFD, NFC), ("sub\\a.mp4", "Sub/A.mp4"), ("my clip.mp4", "my  clip .mp4"), ("7.0", "00007.mp4")),
        *(("7", "007.wav"), ("00007.mp4", "7.mp4"), ("file://a%20b.mp4", "a b.mp4")),
    ],
)
def test_only_file_of_a_similar_name_is_found_and_said(tmp_path, finder, name, file):
    found = finder(file)
    assert found.find(name.strip()).path == tmp_path / file
    quiet = name in ("./a.mp4 ", "clip.mp4", "file://a%20b.mp4")
    assert bool(found.notes()) != quiet


@pytest.mark.parametrize(
    ("name", "files", "problem"),
    [
        ("a.mp4", ["A.mp4", "a.MP4"], "'a.mp4' may be A.mp4, a.MP4; none is used"),
        ("7.mp4", ["07.mp4", "007.mp4"], "'7.mp4' may be 007.mp4, 07.mp4; none is used"),
        ("clip_01.mp4", ["clip-01.mp4"], "no file clip_01.mp4; did you mean clip-01.mp4?"),
        (r"C:\data\a.mp4", ["deep/a.mp4"], r"no file C:\data\a.mp4; did you mean deep/a.mp4?"),
        ("https://x.org/a.mp4", ["a.mp4"], "https://x.org/a.mp4: an address, not a file; download it"),
        ("a.mp4", ["a.wav"], "no file a.mp4; did you mean a.wav?"),
    ],
)
def test_uncertain_name_finds_no_file_and_says_which_is_near(finder, name, files, problem):
    found = finder(*files).find(name)
    assert found.problem.startswith(problem) and not found.path.exists()


def test_ids_that_pandas_made_numbers_of_are_those_of_the_files(tmp_path, finder):
    finder("00000.mp4", "sub/00001.mp4", "2.mp4", "002.mp4")
    (tmp_path / "t.csv").write_text("id,Joy\n0.0,0\n1.0,1\n2.0,1\n")
    source = read_source(tmp_path / "t.csv")
    assert [clip.id for clip in source.clips] == ["00000", "00001", "2.0"]
    assert [clip.media and clip.media.name for clip in source.clips] == ["00000.mp4", "00001.mp4", None]
    assert "2.0' may be 002.mp4, 2.mp4" in source.clips[2].problems[0]
    assert any("'0.0' is 00000.mp4, '1.0' is sub/00001.mp4" in note for note in source.notes)
    (tmp_path / "t.csv").write_text("Filename,Joy\n0,0\n")
    assert read_source(tmp_path / "t.csv").clips[0].id == "00000"


@pytest.mark.parametrize(
    "suffix",
    [
        *("MOV", "mp4", "M4V", "3GP", "3g2", "MTS", "m2ts", "AVI", "wmv", "MKV", "webm", "insv", "DAV", "TS", "VOB"),
        *("flv", "ogv", "AMR", "caf", "AIFF", "opus", "m4a", "WMA", "aac", "LRV", "mxf"),
    ],
)
def test_suffixes_of_cameras_and_phones_are_media(tmp_path, suffix):
    assert is_media(tmp_path / f"IMG_0001.{suffix}")


def test_files_of_operating_systems_are_no_media(finder, tmp_path):
    finder(
        "a.mp4", "._a.mp4", "~$a.mp4", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/a.mp4", "$RECYCLE.BIN/b.mp4"
    )
    assert [path.name for path in media_files(tmp_path)] == ["a.mp4"]
    assert read_source(tmp_path).notes == []
