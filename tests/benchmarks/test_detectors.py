"""The comparison of face detectors on drawn clips."""

import re

import numpy as np
import pytest
from benchmarks import detectors
from helpers.media_files import face, write_video

from shared.errors import UserError
from shared.media.faces import DETECTORS, FaceDetector

FACES = '{"face*": [0.5, 0.5, 0.45]}'


class Corner(FaceDetector):
    """Takes a corner of every picture for a face."""

    def detect(self, frame, thorough=False):
        return np.float32([[30, 30, 40]])


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "face.mp4", np.stack([face(240, 320, x=160, y=120, side=110)] * 12))
    write_video(tmp_path / "wall.mp4", np.full((12, 240, 320, 3), 90, np.uint8))
    (tmp_path / "notes.txt").write_text("no clip")
    return tmp_path


def test_found_faces_and_false_ones_are_counted(folder, monkeypatch, capsys):
    monkeypatch.setitem(DETECTORS.parts, "corner", "test_detectors:Corner")
    sheet = folder / "boxes.png"
    words = [str(folder), "--detectors", "haar,corner", "--faces", FACES, "--sheet", str(sheet)]
    assert detectors.main(words) == 0
    shown = capsys.readouterr().out
    frames = int(re.search(r"found, of (\d+) frames", shown)[1])
    cells = {
        row[0]: row for line in shown.splitlines() if (row := line.strip("| ").split(" | "))[0] in ("haar", "corner")
    }
    assert frames > 2 and "tracked clips, of 1 " in shown and "false, of 2 clips" in shown
    assert cells["haar"][1:3] == [str(frames), "0"] and cells["haar"][4:7] == ["1", str(frames), "0"]
    assert cells["corner"][1:3] == ["0", str(2 * frames)] and cells["corner"][4:7] == ["0", "0", "2"]
    assert f"corner: not tracked in face.mp4: {frames} frames" in shown
    assert "corner: a false track in face.mp4, wall.mp4" in shown
    assert sheet.read_bytes()[1:4] == b"PNG"


def test_clips_without_a_known_face_are_refused(folder):
    with pytest.raises(UserError, match="no clip with pictures fits a pattern of --faces"):
        detectors.main([str(folder), "--faces", '{"nothing": [0.5, 0.5, 0.5]}'])
