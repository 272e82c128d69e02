"""Face detectors whose weights you supply (`--detector yunet:/path/model.onnx`), and MediaPipe's tasks."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.faces import FaceDetector
from shared.text import one_line

QUICK_SIDE = 320
"""Pixels: longest side of frames in a quick search."""


class YuNet(FaceDetector):
    """OpenCV's FaceDetectorYN (Wu, Peng, Yu 2023). The file is face_detection_yunet_*.onnx of OpenCV's model zoo."""

    def __init__(self, path: str):
        import cv2

        _check(path, "yunet", "the .onnx file of OpenCV's model zoo")
        try:
            self.net = cv2.FaceDetectorYN.create(path, "", (QUICK_SIDE, QUICK_SIDE), 0.6)
        except cv2.error as error:
            raise UserError(f"{path}: YuNet cannot load this file ({one_line(error, 120)})") from None

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        """As `FaceDetector.detect`."""
        import cv2

        scale = 1.0 if thorough else min(1.0, QUICK_SIDE / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
        self.net.setInputSize((small.shape[1], small.shape[0]))
        _, faces = self.net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return _boxes(np.zeros((0, 4)) if faces is None else faces[:, :4] / scale)


class MediaPipeTask:
    """One of MediaPipe's vision tasks (package `mediapipe`), by its name and the file of its model.

    Called with RGB uint8 (H, W, 3), it returns MediaPipe's own result.
    """

    def __init__(self, name: str, path: str, **options: Any):
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError:
            raise UserError(f"{path}: needs the package mediapipe: pip install mediapipe") from None
        self.image, self.format = mediapipe.Image, mediapipe.ImageFormat.SRGB
        task, settings = getattr(vision, name), getattr(vision, f"{name}Options")
        try:
            self.net = task.create_from_options(settings(base_options=BaseOptions(model_asset_path=path), **options))
        except (RuntimeError, ValueError) as error:
            reason = one_line(error, 120)
            raise UserError(f"{path}: MediaPipe's {name} cannot load this file ({reason})") from None

    def __call__(self, frame: np.ndarray) -> Any:
        return self.net.detect(self.image(image_format=self.format, data=np.ascontiguousarray(frame)))


class MediaPipe(FaceDetector):
    """MediaPipe's FaceDetector task. The file is one of its .tflite or .task models."""

    def __init__(self, path: str):
        _check(path, "mediapipe", "a face detection model of MediaPipe")
        self.net = MediaPipeTask("FaceDetector", path)

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        """As `FaceDetector.detect`; `thorough` makes no difference."""
        boxes = [detection.bounding_box for detection in self.net(frame).detections]
        return _boxes(np.array([[box.origin_x, box.origin_y, box.width, box.height] for box in boxes]).reshape(-1, 4))


def _check(path: str, name: str, what: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected --detector {name}:PATH with PATH {what}")


def _boxes(rectangles: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, width, height to float32 (N, 3) center x, center y, side, sorted: detectors give any order."""
    x, y, w, h = np.asarray(rectangles, np.float32).T
    boxes = np.stack([x + w / 2, y + h / 2, (w + h) / 2], axis=1)  # (N, 3)
    return boxes[np.lexsort(boxes.T)]
