"""Face detection, tracking and crops."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers.media_files import face
from helpers.mediapipe_stand_in import stand_in

from shared.errors import UserError
from shared.media.faces import MARGIN, FaceDetector, HaarDetector, crop_faces, load_detector, smooth, track_face


class ScriptedDetector(FaceDetector):
    """Returns given boxes: {frame number: boxes}. Frames store their number in a pixel."""

    def __init__(self, boxes):
        self.boxes, self.searched = boxes, []

    def detect(self, frame, thorough=False):
        number = int(frame[0, 0, 0])
        self.searched.append(number)
        return np.array(self.boxes.get(number, []), np.float32).reshape(-1, 3)


def numbered(count, height=100, width=200):
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count)
    return frames


def test_moving_face_is_tracked():
    where = np.linspace(110, 210, 13)
    frames = np.stack([face(x=x) for x in where])
    result = track_face(frames, 3, HaarDetector())
    assert result.quarter_turns == 0 and result.detected.all()
    assert np.abs(result.boxes[:, 0] - where).max() < 12
    assert np.abs(result.boxes[:, 1] - 125).max() < 20 and (np.abs(result.boxes[:, 2] / 110 - 1) < 0.3).all()


@pytest.mark.parametrize("side", [100, 150, 220])
def test_tracking_finds_what_detection_finds(side):
    haar = HaarDetector()
    before, after = (face(480, 640, x=x, y=230, side=side) for x in (250, 250 + side / 4))
    boxes = haar.detect(before)
    tracked = haar.track(after, boxes)
    assert len(boxes) == 1 and np.abs(tracked - haar.detect(after)).max() < 0.15 * side
    # The face has disappeared or is too far away; one of two faces is missing.
    assert haar.track(np.full_like(after, 90), boxes) is None
    assert haar.track(np.roll(after, 320, axis=1), boxes) is None
    assert haar.track(after, np.stack([boxes[0], boxes[0] + (300, 0, 0)])) is None


class ScriptedTracker(ScriptedDetector):
    """Tracks too, until a face is lost."""

    def track(self, frame, boxes):
        number = int(frame[0, 0, 0])
        self.tracked = [*getattr(self, "tracked", []), number]
        now = np.array(self.boxes.get(number, []), np.float32).reshape(-1, 3)
        return now[: len(boxes)] if len(now) >= len(boxes) else None


def test_every_third_frame_and_one_with_a_lost_face_is_searched_completely():
    finds = {i: [(50 + i, 50, 30)] for i in range(12) if i != 4}
    script = ScriptedTracker(finds)
    result = track_face(numbered(12), 1, script)
    # 4 has no face, so it and 5 are searched.
    assert script.searched == [0, 3, 4, 5, 6, 9] and script.tracked == [1, 2, 4, 7, 8, 10, 11]
    assert result.detected.tolist() == [i != 4 for i in range(12)]


def test_tracked_face_is_not_counted_twice():
    class StickyTracker(ScriptedDetector):
        """Keeps a detected face for two more frames."""

        def track(self, frame, boxes):
            return boxes if int(frame[0, 0, 0]) % 3 else None

    wallpaper = {3: [(50, 50, 30)]}
    assert not track_face(numbered(12), 1, StickyTracker(wallpaper)).detected.any()
    result = track_face(numbered(12), 1, StickyTracker(wallpaper | {6: [(50, 50, 30)]}))
    assert result.detected.tolist() == [3 <= i < 9 for i in range(12)]


def test_new_face_is_detected_by_a_complete_search():
    finds = {i: [(50, 50, 30)] + [(150, 50, 40)] * (i > 3) for i in range(12)}
    result = track_face(numbered(12), 1, ScriptedTracker(finds))
    assert result.other_faces == 1 and result.detected.all()
    np.testing.assert_allclose(result.boxes[:, 2], 30)


def test_noise_has_no_face():
    rng = np.random.default_rng(0)
    walls = rng.integers(0, 255, (4, 120, 160, 3)).astype(np.uint8)
    result = track_face(walls, 2, HaarDetector())
    assert not result.detected.any() and np.isnan(result.boxes).all()
    assert len(track_face(walls[:0], 2, HaarDetector()).boxes) == 0


def test_rotated_frames_are_turned_upright():
    frames = np.stack([face(mouth=m) for m in np.linspace(0, 1, 9)])
    result = track_face(np.rot90(frames, 1, axes=(1, 2)), 2, HaarDetector())
    assert result.quarter_turns == 3 and result.detected.all()
    assert np.abs(result.boxes[:, 0] - 160).max() < 12


@pytest.mark.parametrize("turns", [0, 1])
def test_quick_search_finds_a_face_of_a_quarter_of_the_frame(turns):
    """Upright and rotated: a box of 69 pixels in a frame of 480 x 270."""
    quick = HaarDetector()
    quick.thorough = quick.quick
    frames = np.stack([face(270, 480, x=250, y=140, side=55)] * 3)
    result = track_face(np.rot90(frames, turns, axes=(1, 2)), 1, quick)
    assert result.detected.all() and np.abs(result.boxes - (250, 140, 70)).max() < 8


def test_frame_between_samples_needs_a_face_in_both():
    finds = {0: [(50, 50, 30)], 3: [(53, 50, 30)], 9: [(59, 50, 30)], 10: [(60, 50, 30)]}
    script = ScriptedDetector(finds)
    result = track_face(numbered(11), 3, script)
    assert script.searched == [0, 3, 6, 9, 10]
    assert result.detected.tolist() == [True] * 4 + [False] * 5 + [True] * 2
    np.testing.assert_allclose(result.boxes[:, 0], np.arange(50, 61), atol=1.01)  # interpolated without a detection


def test_largest_and_most_persistent_face_is_tracked():
    small = {i: (30 + i, 50, 25) for i in range(12)}
    large = {i: (140 - i, 50, 60) for i in range(12)}
    flash = {5: (90, 40, 90)}
    finds = {i: [track[i] for track in (small, large, flash) if i in track] for i in range(12)}
    result = track_face(numbered(12), 1, ScriptedDetector(finds))
    np.testing.assert_allclose(result.boxes[:, 2], 60)
    np.testing.assert_allclose(result.boxes[:, 0], 140 - np.arange(12), atol=1.01)
    assert result.detected.all()


def test_single_hit_in_many_frames_is_no_face():
    assert not track_face(numbered(8), 1, ScriptedDetector({4: [(50, 50, 30)]})).detected.any()
    assert track_face(numbered(1), 1, ScriptedDetector({0: [(50, 50, 30)]})).detected.all()


def test_outlier_does_not_move_the_box():
    finds = {i: [(50, 50, 30)] for i in range(9)} | {4: [(50, 62, 40)]}
    result = track_face(numbered(9), 1, ScriptedDetector(finds))
    np.testing.assert_allclose(result.boxes, np.tile([50, 50, 30], (9, 1)), atol=1e-4)


def test_smoothing_removes_jitter_and_keeps_constants():
    rng = np.random.default_rng(0)
    still = np.tile(np.float32([40, 50, 30]), (40, 1))
    np.testing.assert_allclose(smooth(still, 8.0), still, rtol=1e-5)
    shaken = still + rng.normal(0, 2, still.shape).astype(np.float32)
    assert np.std(smooth(shaken, 8.0) - still) < 0.6 * np.std(shaken - still)
    assert np.isnan(smooth(np.full((5, 3), np.nan, np.float32), 8.0)).all()


def test_crop_contains_the_box_and_its_margin():
    frame = np.zeros((1, 200, 300, 3), np.uint8)
    frame[0, 80:120, 130:170] = 255  # a box of 40 around (150, 100)
    crop = crop_faces(frame, np.float32([[150, 100, 40]]), 56)[0, :, :, 0]
    assert abs((crop > 127).mean() - 1 / MARGIN**2) < 0.02
    rows = np.flatnonzero(crop[28] > 127)
    assert abs(rows[0] - (55 - rows[-1])) <= 1  # in the middle


def test_crop_outside_the_frame_repeats_its_border_and_without_a_box_is_central():
    frame = np.full((1, 100, 160, 3), 200, np.uint8)
    assert (crop_faces(frame, np.float32([[0, 0, 80]]), 48) == 200).all()
    assert (crop_faces(frame, np.float32([[900, -700, 30]]), 48) == 200).all()
    frame[0, :, :30] = frame[0, :, 130:] = 0  # beside the middle square
    assert (crop_faces(frame, np.full((1, 3), np.nan, np.float32), 48) == 200).all()
    assert crop_faces(frame[:0], np.zeros((0, 3), np.float32), 48).shape == (0, 48, 48, 3)


def test_unknown_detector_is_an_error():
    with pytest.raises(UserError, match="did you mean 'haar'"):
        load_detector("harr")


def test_missing_or_wrong_detector_file_is_an_error(tmp_path):
    for spec, words in (
        ("yunet", "write yunet:/path/to/it"),
        ("haar:/some/file", "takes no file"),
        ("yunet:/no/where.onnx", "no such file"),
        ("mediapipe:/no/where.task", "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            load_detector(spec)
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(UserError, match="YuNet cannot load this file"):
        load_detector(f"yunet:{tmp_path / 'noise.onnx'}")


def test_yunet_boxes_are_converted(monkeypatch, tmp_path):
    """A stand-in with the interface of OpenCV's class detects the white box."""
    import cv2

    class Net:
        def setInputSize(self, size):
            self.size = size

        def detect(self, picture):
            assert picture.shape[1::-1] == self.size and picture[..., 0].max() < 250 < picture[..., 2].max()  # BGR
            y, x = np.nonzero(picture[..., 2] > 127)
            if not len(x):
                return 1, None
            box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1, *[0] * 10, 0.9]
            return 1, np.float32([box])

    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *given: Net())
    (tmp_path / "model.onnx").write_bytes(b"x")
    yunet = load_detector(f"yunet:{tmp_path / 'model.onnx'}")
    frame = np.zeros((400, 640, 3), np.uint8)
    frame[100:180, 200:260, 0] = 255
    for thorough in (False, True):
        np.testing.assert_allclose(yunet.detect(frame, thorough), [[230, 140, 70]], atol=2)


def test_mediapipe_boxes_are_converted(monkeypatch, tmp_path):
    """A stand-in with the used part of the interface of the package."""
    box = types.SimpleNamespace(origin_x=10, origin_y=20, width=40, height=60)
    found = types.SimpleNamespace(detections=[types.SimpleNamespace(bounding_box=box)])
    net = types.SimpleNamespace(
        detect=lambda image: found if image.data.any() else types.SimpleNamespace(detections=[])
    )
    stand_in(monkeypatch, "FaceDetector", lambda options: net)
    (tmp_path / "model.tflite").write_bytes(b"x")
    mediapipe = load_detector(f"mediapipe:{tmp_path / 'model.tflite'}")
    np.testing.assert_allclose(mediapipe.detect(np.full((90, 90, 3), 9, np.uint8)), [[30, 50, 50]])
    assert mediapipe.detect(np.zeros((90, 90, 3), np.uint8)).shape == (0, 3)


def test_mediapipe_gets_no_certificates_to_report_usage_with(monkeypatch, tmp_path):
    given = []
    stand_in(monkeypatch, "FaceDetector", lambda options: given.append(options.base_options.to_ctypes()))
    (tmp_path / "model.tflite").write_bytes(b"x")
    load_detector(f"mediapipe:{tmp_path / 'model.tflite'}")
    assert given[0].model_asset_path.decode() == str(tmp_path / "model.tflite")
    assert given[0].ca_bundle_path == b"/dev/null"


def test_mediapipe_task_is_closed_while_its_thread_runs(tmp_path):
    """MediaPipe runs every call in a thread of its own, also that of `close`."""
    script = tmp_path / "script.py"
    script.write_text(
        "import types\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import pytest\n"
        "from helpers.mediapipe_stand_in import stand_in\n"
        "from shared.media.face_models import MediaPipeTask\n"
        "class Net:\n"
        "    executor, open = ThreadPoolExecutor(1), True\n"
        "    def close(self):\n"
        "        if self.open:\n"
        "            self.open = False\n"
        "            self.executor.submit(print, 'closed').result()\n"
        "    __del__ = close\n"
        "stand_in(pytest.MonkeyPatch(), 'FaceLandmarker', lambda options: Net())\n"
        "task = MediaPipeTask('FaceLandmarker', 'path')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("closed\n", "")


def test_other_persistent_faces_are_counted():
    finds = {i: [(30, 50, 25), (140, 50, 60)] for i in range(12)} | {5: [(30, 50, 25), (140, 50, 60), (90, 90, 20)]}
    assert track_face(numbered(12), 1, ScriptedDetector(finds)).other_faces == 1
    assert track_face(numbered(12), 1, ScriptedDetector({i: [(140, 50, 60)] for i in range(12)})).other_faces == 0
