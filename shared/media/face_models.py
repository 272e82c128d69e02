"""Face detectors with your own weights (`--detector yunet:/path/model.onnx`), and MediaPipe's tasks."""

import atexit
import contextlib
import functools
import importlib
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.faces import FaceDetector
from shared.text import one_line

QUICK_SIDE = 320
"""Pixels: longest side of frames in a quick search."""

INSTALL_MEDIAPIPE = "pip install mediapipe --no-deps"
"""It needs certifi, matplotlib, numpy and an OpenCV, which are installed. Its declared dependency,
opencv-contrib-python, writes into the folder of opencv-python-headless, and the package installed last overwrites the
other."""


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
    """One of MediaPipe's vision tasks (package `mediapipe`), by its name and model file.

    Called with RGB uint8 (H, W, 3), it returns MediaPipe's result. MediaPipe 1.x reports usage to its vendor; the tasks
    created here do not (`_without_reports`).
    """

    def __init__(self, name: str, path: str, **options: Any):
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError:
            raise UserError(f"{path}: needs the package mediapipe: {INSTALL_MEDIAPIPE}") from None
        self.image, self.format = mediapipe.Image, mediapipe.ImageFormat.SRGB
        task, settings = getattr(vision, name), getattr(vision, f"{name}Options")
        base_options = _without_reports(BaseOptions)(model_asset_path=path)
        try:
            self.net = task.create_from_options(settings(base_options=base_options, **options))
        except (RuntimeError, ValueError) as error:
            reason = one_line(error, 120)
            raise UserError(f"{path}: MediaPipe's {name} cannot load this file ({reason})") from None
        self._process = os.getpid()
        _close_at_exit(self)

    def __call__(self, frame: np.ndarray) -> Any:
        return self.net.detect(self.image(image_format=self.format, data=np.ascontiguousarray(frame)))

    def close(self) -> None:
        """Close the task and its thread; it cannot be called afterwards."""
        net, self.net = self.net, None
        if net is not None and self._process == os.getpid():  # the thread is not in a forked process
            net.close()


_OPEN: "weakref.WeakSet[MediaPipeTask]" = weakref.WeakSet()


def _close_at_exit(task: MediaPipeTask) -> None:
    """Close `task` while its thread still runs. MediaPipe closes open tasks after its modules are gone, which ends in a
    traceback; `atexit` is too late as well, because pool threads end before it."""
    _register_closing()
    _OPEN.add(task)


@functools.cache
def _register_closing() -> None:
    importlib.import_module("concurrent.futures.thread")  # registers first; the last one registered is called first
    getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _close_all() -> None:
    for task in list(_OPEN):
        with contextlib.suppress(Exception):  # all results are there already
            task.close()


def _without_reports(base_options: Any) -> Any:
    """MediaPipe's class of base options, for tasks that report no usage. Version 1.x sends reports over TLS with the
    certificates in these options; without certificates, the library ends the connection before it sends anything."""

    class WithoutReports(base_options):
        def to_ctypes(self) -> Any:
            options = super().to_ctypes()
            options.ca_bundle_path = os.devnull.encode()
            return options

    return WithoutReports


class MediaPipe(FaceDetector):
    """MediaPipe's FaceDetector task. The file is one of its .tflite or .task models."""

    def __init__(self, path: str):
        _check(path, "mediapipe", "a face detection model of MediaPipe")
        self.net = MediaPipeTask("FaceDetector", path)

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        """As `FaceDetector.detect`; `thorough` has no effect."""
        boxes = [detection.bounding_box for detection in self.net(frame).detections]
        return _boxes(np.array([[box.origin_x, box.origin_y, box.width, box.height] for box in boxes]).reshape(-1, 4))


def _check(path: str, name: str, what: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected --detector {name}:PATH with PATH {what}")


def _boxes(rectangles: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, width, height to float32 (N, 3) center x, center y, side, sorted: detectors return any
    order."""
    x, y, w, h = np.asarray(rectangles, np.float32).T
    boxes = np.stack([x + w / 2, y + h / 2, (w + h) / 2], axis=1)  # (N, 3)
    return boxes[np.lexsort(boxes.T)]
