"""Find faces, choose the main person of the clip, and crop squares that follow the face.

A detector runs on every few frames, and its boxes are linked to tracks. The largest and most persistent track is the
main person. Its boxes are interpolated and smoothed over time, so that crops move as heads do.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.registry import Registry

DETECTORS = Registry(
    "face detector",
    {
        "haar": "shared.media.faces:HaarDetector",
        "yunet": "shared.media.face_models:YuNet",
        "mediapipe": "shared.media.face_models:MediaPipe",
    },
)
"""Given as `haar`, or with a weight file, as `yunet:/path/model.onnx`."""

MARGIN = 1.4
"""Side of a crop divided by the side of the detected face. It includes chin and brows, which detectors cut off."""
FULL_DETECTION_EVERY = 3
"""Every third sampled frame is searched completely; in the others, faces are tracked near their last position."""
SMOOTHING = 0.2
"""Standard deviation, in seconds, of the Gaussian that removes jitter from the boxes."""


class FaceDetector:
    """Base class of face detectors."""

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        """Faces in RGB uint8 (H, W, 3): float32 (N, 3), center x, center y and side in pixels.

        thorough: nothing was found in the clip so far; detect small faces too, even if it takes long.
        """
        raise NotImplementedError

    def track(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Faces near `boxes` (N, 3), in the same order: float32 (N, 3). None if one of them is not found nearby, or if
        the detector has nothing faster than `detect`."""
        return None


class HaarDetector(FaceDetector):
    """Detects frontal faces with OpenCV's cascade alt2 (Viola and Jones 2001; Lienhart and Maydt 2002)."""

    # Longest side of the reduced frame, smallest face as a share of the shorter side, scale step, neighbors needed.
    # A face in front of a camera fills a fifth of the frame or more: a quick search takes 4 ms, a thorough one 10 ms.
    # A share of 0.3 saves a quarter of the time, and 128 pixels as well 40 %, but miss faces of a quarter of the frame.
    quick = (160, 0.2, 1.15, 2)
    thorough = (320, 0.1, 1.2, 3)
    # A tracked face is scaled to 50 pixels (at 40, boxes become 3 to 5 % too large) and searched for within one side of
    # its center, at these shares of its size. It takes a third of the time of a quick search.
    tracked_side, search_radius, size_range = 50, 1.0, (0.7, 1.3)

    def __init__(self):
        import cv2

        self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        import cv2

        longest, share, step, neighbors = self.thorough if thorough else self.quick
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # (H, W)
        scale = min(1.0, longest / max(gray.shape))
        if scale < 1:
            gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = max(20, int(share * min(gray.shape)))
        if min(gray.shape) < smallest:
            return np.zeros((0, 3), np.float32)
        boxes = self._detect(gray, scale, step, neighbors, smallest)  # (N, 3)
        return boxes[np.lexsort(boxes.T)]  # the cascade returns boxes in any order

    def track(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        import cv2

        out = np.empty((len(boxes), 3), np.float32)
        for number, (x, y, side) in enumerate(boxes):
            left, top = (max(0, int(center - self.search_radius * side)) for center in (x, y))
            right, bottom = (int(center + self.search_radius * side) for center in (x, y))
            gray = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)  # (h, w)
            scale = min(1.0, self.tracked_side / side)
            if scale < 1:
                gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            smallest, largest = (round(side * scale * factor) for factor in self.size_range)
            candidates = self._detect(gray, scale, *self.quick[2:], smallest, largest, left, top)  # (M, 3)
            if len(candidates) == 0:
                return None
            out[number] = candidates[np.abs(candidates - boxes[number]).sum(axis=1).argmin()]
        return out

    def _detect(
        self,
        gray: np.ndarray,
        scale: float,
        step: float,
        neighbors: int,
        smallest: int,
        largest: int | None = None,
        left: int = 0,
        top: int = 0,
    ) -> np.ndarray:
        """Boxes (N, 3) in pixels of the frame. `gray` is its part at (left, top), scaled by `scale`."""
        limits = {"minSize": (smallest, smallest)} | ({"maxSize": (largest, largest)} if largest else {})
        rectangles = self.cascade.detectMultiScale(gray, scaleFactor=step, minNeighbors=neighbors, **limits)
        if len(rectangles) == 0:
            return np.zeros((0, 3), np.float32)
        x, y, w, h = np.asarray(rectangles, np.float32).T / scale
        return np.stack([left + x + w / 2, top + y + h / 2, (w + h) / 2], axis=1)  # (N, 3)


def load_detector(spec: str) -> FaceDetector:
    """The detector named by `spec`, built once per thread: detectors are stateful, and OpenCV's return wrong boxes if
    threads share one. Raises UserError if it cannot be built."""
    built = _thread.__dict__
    if spec not in built:
        built[spec] = DETECTORS.make(spec)
    return built[spec]


_thread = threading.local()
"""{spec: detector} of each thread."""


@dataclass
class FaceTrack:
    """One face, tracked through a clip."""

    quarter_turns: int
    """Quarter turns (as in np.rot90) that make the frames upright: with a wrong rotation tag, people lie on their
    side."""
    boxes: np.ndarray
    """float32 (T, 3): center x, center y and side, in pixels of the upright frames; all NaN without a face."""
    detected: np.ndarray
    """bool (T,): whether the face was detected in this frame, or in both sampled frames around it."""
    other_faces: int = 0
    """Number of other faces detected at least half as often as this one."""


@dataclass
class _Candidate:
    """A face in some of the sampled frames: frame index -> box (3,)."""

    boxes: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The sum of the sides: high for large and persistent faces."""
        return float(sum(box[2] for box in self.boxes.values()))

    def distance(self, box: np.ndarray) -> float:
        """Distance from the last box, in sides; infinite if the sizes differ by a factor of two."""
        last = self.boxes[max(self.boxes)]
        if not 0.5 < box[2] / last[2] < 2:
            return np.inf
        return float(np.hypot(*(box[:2] - last[:2])) / last[2])


def track_face(frames: np.ndarray, every: int, detector: FaceDetector) -> FaceTrack:
    """Track the largest and most persistent face in frames RGB uint8 (T, H, W, 3).

    Every `every`-th frame and the last one are sampled. If a quick search finds no face, the frames are rotated and
    then searched thoroughly.
    """
    count = len(frames)
    sampled = sorted({*range(0, count, every), count - 1}) if count else []
    detections, searched = _detect_or_track(frames, sampled, detector)
    quarter_turns, candidates = 0, _link(detections, searched)
    if not candidates:
        quarter_turns = _find_quarter_turns(frames, sampled, detector)
        upright = np.rot90(frames, quarter_turns, axes=(1, 2))
        detections = [
            (i, detector.detect(np.ascontiguousarray(upright[i]), thorough=not quarter_turns)) for i in sampled
        ]
        candidates = _link(detections, set(sampled))
    if not candidates:
        return FaceTrack(0, np.full((count, 3), np.nan, np.float32), np.zeros(count, bool))

    face = candidates[0]
    other_faces = sum(2 * len(other.boxes) >= len(face.boxes) for other in candidates[1:])
    detected = np.array([index in face.boxes for index in sampled])
    before = np.searchsorted(sampled, np.arange(count), side="right") - 1  # (T,) the sampled frame at or before a frame
    after = np.searchsorted(sampled, np.arange(count), side="left")  # (T,) the sampled frame at or after a frame
    return FaceTrack(quarter_turns, _interpolate(face, count), detected[before] & detected[after], other_faces)


def _detect_or_track(
    frames: np.ndarray, sampled: Sequence[int], detector: FaceDetector
) -> tuple[list[tuple[int, np.ndarray]], set[int]]:
    """The boxes (N, 3) in each sampled frame, and which frames were searched completely: every third one, and frames
    where a face was lost."""
    detections, searched, boxes = [], set(), np.zeros((0, 3), np.float32)
    for number, index in enumerate(sampled):
        tracked = detector.track(frames[index], boxes) if number % FULL_DETECTION_EVERY and len(boxes) else None
        if tracked is None:
            searched.add(index)
        boxes = detector.detect(frames[index]) if tracked is None else tracked
        detections.append((index, boxes))
    return detections, searched


def _find_quarter_turns(frames: np.ndarray, sampled: list[int], detector: FaceDetector) -> int:
    """Quarter turns after which most of five sampled frames show a face; 0 if there are none."""
    indices = (
        [sampled[i] for i in np.unique(np.linspace(0, len(sampled) - 1, 5).round().astype(int))] if sampled else []
    )
    if len(indices) < 3:
        return 0
    for quarter_turns in (1, 3, 2):
        hits = sum(len(detector.detect(np.ascontiguousarray(np.rot90(frames[i], quarter_turns)))) > 0 for i in indices)
        if hits > len(indices) / 2:
            return quarter_turns
    return 0


def _link(detections: list[tuple[int, np.ndarray]], searched: set[int]) -> list[_Candidate]:
    """Link detections frame by frame, each box to the nearest candidate within one side. The highest weight comes
    first.

    searched: the frames that were searched completely. Boxes tracked from one of them do not count as further hits.
    """
    candidates: list[_Candidate] = []
    for index, boxes in detections:
        pairs = sorted((face.distance(box), f, b) for f, face in enumerate(candidates) for b, box in enumerate(boxes))
        used_faces, used_boxes = set(), set()
        for distance, f, b in pairs:
            if distance < 1.0 and f not in used_faces and b not in used_boxes:
                candidates[f].boxes[index] = boxes[b]
                used_faces.add(f)
                used_boxes.add(b)
        candidates += [_Candidate({index: box}) for b, box in enumerate(boxes) if b not in used_boxes]
    # A single hit in many frames is probably a pattern on the wall that looks like a face.
    min_hits = 1 if len(detections) < 4 else 2
    faces = [face for face in candidates if len(searched & face.boxes.keys()) >= min_hits]
    return sorted(faces, key=lambda face: -face.weight)


def _interpolate(face: _Candidate, count: int) -> np.ndarray:
    """A box for every frame, float32 (T, 3): medians of three remove outliers, then linear interpolation."""
    indices = sorted(face.boxes)
    boxes = np.stack([face.boxes[index] for index in indices]).astype(np.float64)  # (N, 3)
    if len(boxes) >= 3:
        triples = np.stack([boxes[:-2], boxes[1:-1], boxes[2:]])  # (3, N - 2, 3)
        boxes = np.concatenate([boxes[:1], np.median(triples, axis=0), boxes[-1:]])  # (N, 3)
    columns = [np.interp(np.arange(count), indices, column) for column in boxes.T]
    return np.stack(columns, axis=1).astype(np.float32)


def smooth(boxes: np.ndarray, frame_rate: float) -> np.ndarray:
    """Boxes float32 (T, 3), smoothed by a Gaussian of SMOOTHING seconds; the first and last box are repeated."""
    sigma = SMOOTHING * frame_rate
    radius = int(np.ceil(3 * sigma))
    if len(boxes) < 2 or radius == 0:
        return boxes
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(boxes, ((radius, radius), (0, 0)), mode="edge")  # (T + 2 radius, 3)
    columns = [np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1).astype(np.float32)  # (T, 3)


def crop_faces(frames: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Square crops around the boxes (T, 3), widened by MARGIN: uint8 (T, size, size, 3).

    Outside the frame, its border pixels are repeated. Without a box (NaN) the crop is the largest central square.
    """
    import cv2

    count, height, width = frames.shape[:3]
    out = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        x, y, side = boxes[index]
        if np.isnan(side):
            x, y, side = width / 2, height / 2, min(height, width)
        else:
            side = side * MARGIN
        side = 2 * max(1, round(float(side) / 2))
        left, top = round(float(x) - side / 2), round(float(y) - side / 2)
        inside = frames[index, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
        if inside.size == 0:
            inside, top, left, side = frames[index], 0, 0, max(height, width)
        borders = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
        if any(borders):
            inside = cv2.copyMakeBorder(inside, *borders, cv2.BORDER_REPLICATE)
        out[index] = resize_square(inside, size)
    return out


def crop_clip(
    frames: np.ndarray, every: int, detector: FaceDetector, frame_rate: float, size: int
) -> tuple[np.ndarray, FaceTrack]:
    """Track the face in frames RGB uint8 (T, H, W, 3) and crop it with `track_face`, `smooth` and `crop_faces`: uint8
    (T, size, size, 3), and the track."""
    track = track_face(frames, every, detector)
    upright = np.rot90(frames, track.quarter_turns, axes=(1, 2))  # (T, H, W, 3)
    return crop_faces(upright, smooth(track.boxes, frame_rate), size), track


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (S, S, 3) to (size, size, 3): halve it while possible, then bilinear.

    This takes a sixth of the time of OpenCV's INTER_AREA and differs from it by less than one gray level on average.
    """
    import cv2

    while (side := len(image)) >= 2 * size and side % 2 == 0:
        image = cv2.resize(image, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    interpolation = cv2.INTER_AREA if len(image) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)
