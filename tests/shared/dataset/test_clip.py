"""Clips whose files are missing, changed or damaged."""

import json
import shutil

from helpers.media_files import prepared_here, voice, write_wav

from shared.dataset.check_source import check_source
from shared.dataset.clip import Clip
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.dataset.verdicts import failed
from shared.layouts.registry import read_source


def test_invalid_file_names_are_missing_files(tmp_path):
    cells = ("a" * 300 + ".mp4", "b/" + "c" * 300 + "/d.mp4", "e\0.mp4", "/")
    lines = [json.dumps({"id": str(i), "path": cell, "Joy": 0.5}) for i, cell in enumerate(cells)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    source = read_source(tmp_path / "t.jsonl")
    assert [clip.fingerprint(tmp_path)[1][0][1] for clip in source.clips] == [-1] * 4
    assert {verdict.detail for verdict in prepared_here(source)[1].values()} == {"no such file"}
    found = check_source(tmp_path / "t.jsonl")
    assert found["files"]["missing"] == ["0", "1", "2", "3"] and found["headers"]["of"] == 0


def test_changed_face_crop_changes_the_fingerprint(tmp_path):
    crops = tmp_path / "a" / "crops"
    crops.mkdir(parents=True)
    for number in (2, 1):
        (crops / f"{number}.jpg").write_bytes(b"picture")
    clip = Clip("a", None, crops=crops)
    first = clip.fingerprint(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Clip("a", None, crops=tmp_path / "b" / "crops").fingerprint(tmp_path / "b") == first
    fingerprints = [first]
    for change in (
        lambda: (crops / "2.jpg").write_bytes(b"another picture"),
        lambda: (crops / "3.jpg").write_bytes(b""),
        lambda: (crops / "3.jpg").rename(crops / "4.jpg"),
        lambda: shutil.rmtree(crops),
        lambda: crops.write_bytes(b"no folder"),
    ):
        change()
        fingerprints.append(clip.fingerprint(tmp_path / "a"))
    assert all(a != b for i, a in enumerate(fingerprints) for b in fingerprints[:i])
    for crops in ("e\0", "a" * 300):
        assert Clip("a", None, crops=tmp_path / crops).fingerprint(tmp_path)[1][2][-1] is None


def test_verdict_says_why_a_modality_is_missing(tmp_path):
    sound = write_wav(tmp_path / "x.wav", voice(0.4)[None])
    details = {
        media: prepare_clip(Clip("a", media, audio=sound, problems=("odd",)), Recipe())[1].detail
        for media in (None, tmp_path / "gone.mp4")
    }
    assert details[None] == "no video: no file; odd; no transcript"
    gone = f"no video: its file cannot be read; {tmp_path}/gone.mp4: no such file; odd; no transcript"
    assert details[tmp_path / "gone.mp4"] == gone
    row, verdict = prepare_clip(Clip("a", tmp_path / "gone.mp4", problems=("odd",)), Recipe())
    assert row is None and verdict.detail == "no such file; odd"
    assert failed(Clip("a", None, problems=("odd",)), "took longer than 1 s").detail == "took longer than 1 s; odd"
