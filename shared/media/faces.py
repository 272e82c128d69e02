"""Faces: where they are, whose face the clip is about, and square crops that follow it.

A detector looks at every few frames; detections are linked into tracks; the largest and most persistent track is the
person of the clip. Its boxes are smoothed and interpolated in time, so that crops move as heads do.
"""

import functools
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
"""Named as `haar`, or with the file of their weights, as `yunet:/path/model.onnx`."""

MARGIN = 1.4
"""Side of a crop over the side of the face found: with the chin and the brows, which detectors cut off."""
WHOLE_LOOK = 3
"""Looks from one at the whole picture to the next; in between, faces are followed where they were."""
SMOOTHING = 0.2
"""Seconds: standard deviation of the Gaussian that takes the jitter out of the boxes."""


class FaceDetector:
    """What can find faces."""

    def find(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> float32 (N, 3): centre x, centre y, side, in pixels of the frame. `thorough` is asked
        for where a first look at the clip found nothing: small faces count then, and time does not."""
        raise NotImplementedError

    def follow(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """The faces that were at `boxes` (N, 3) a moment ago, in their order, float32 (N, 3); None when one of them is
        not near there, or the detector has nothing quicker than `find`."""
        return None


class HaarDetector(FaceDetector):
    """Frontal faces by the cascade alt2 that comes with OpenCV (Viola and Jones 2001; Lienhart and Maydt 2002)."""

    # Longest side of the reduced picture, smallest face as a share of the shorter side, scale step, hits needed. A face
    # in front of a camera fills a fifth of the picture or more: the quick look takes 4 ms, the thorough one 10 ms. From
    # a share of 0.3 on it is a quarter faster, at 128 pixels as well 40 %, but loses faces of a quarter of the picture.
    quick = (160, 0.2, 1.15, 2)
    thorough = (320, 0.1, 1.2, 3)
    # A face that is followed is brought to 50 pixels (to 40, boxes come out 3 to 5 % too large), and looked for within
    # a side of its centre, between these shares of its side: a third of the time of a quick look.
    followed, reach, sizes = 50, 1.0, (0.7, 1.3)

    def __init__(self):
        import cv2

        self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")

    def find(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        import cv2

        longest, share, step, hits = self.thorough if thorough else self.quick
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # (H, W)
        scale = min(1.0, longest / max(grey.shape))
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = max(20, int(share * min(grey.shape)))
        if min(grey.shape) < smallest:
            return np.zeros((0, 3), np.float32)
        found = self.cascade.detectMultiScale(grey, scaleFactor=step, minNeighbors=hits, minSize=(smallest, smallest))
        if len(found) == 0:
            return np.zeros((0, 3), np.float32)
        x, y, w, h = np.asarray(found, np.float32).T / scale
        boxes = np.stack([x + w / 2, y + h / 2, (w + h) / 2], axis=1)  # (N, 3)
        return boxes[np.lexsort(boxes.T)]  # the cascade does not promise an order

    def follow(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        import cv2

        out = np.empty((len(boxes), 3), np.float32)
        for number, (x, y, side) in enumerate(boxes):
            left, top = (max(0, int(centre - self.reach * side)) for centre in (x, y))
            right, bottom = (int(centre + self.reach * side) for centre in (x, y))
            grey = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)  # (H, W)
            scale = min(1.0, self.followed / side)
            if scale < 1:
                grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            low, high = (round(side * scale * factor) for factor in self.sizes)
            step, hits = self.quick[2:]
            found = self.cascade.detectMultiScale(
                grey, scaleFactor=step, minNeighbors=hits, minSize=(low, low), maxSize=(high, high)
            )
            if len(found) == 0:
                return None
            u, v, w, h = np.asarray(found, np.float32).T / scale
            there = np.stack([left + u + w / 2, top + v + h / 2, (w + h) / 2], axis=1)  # (M, 3)
            out[number] = there[np.abs(there - boxes[number]).sum(axis=1).argmin()]
        return out


@dataclass
class Track:
    """One face through the clip: frame index -> (centre x, centre y, side)."""

    boxes: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Largest and most persistent: the sum of the sides."""
        return float(sum(box[2] for box in self.boxes.values()))

    def distance(self, box: np.ndarray) -> float:
        """How far a box is from the newest one of the track, in sides; infinite when their sizes differ twofold."""
        last = self.boxes[max(self.boxes)]
        if not 0.5 < box[2] / last[2] < 2:
            return np.inf
        return float(np.hypot(*(box[:2] - last[:2])) / last[2])


@functools.cache
def detector(spec: str) -> FaceDetector:
    """The detector that `spec` names, built once a process; UserError when it cannot be."""
    return DETECTORS.make(spec)


@dataclass
class Faces:
    """One face followed through a clip."""

    turns: int
    """Quarter turns (as np.rot90) that the pictures need: a wrong rotation tag shows people lying down."""
    boxes: np.ndarray
    """float32 (T, 3): centre x, centre y, side, in pixels of the turned pictures; NaN throughout without a face."""
    found: np.ndarray
    """bool (T,): the detector saw the face in this frame, or in both looks around it."""
    others: int = 0
    """Other faces seen at least half as often as this one."""


def find_faces(frames: np.ndarray, every: int, faces: FaceDetector) -> Faces:
    """Follow one face. frames RGB uint8 (T, H, W, 3), looked at every `every` frames and at the last one.

    Where a quick look finds nothing, the pictures are tried turned, and then looked at thoroughly.
    """
    count = len(frames)
    looks = sorted({*range(0, count, every), count - 1}) if count else []
    detections, whole = _look(frames, looks, faces)
    turns, tracks = 0, _tracks(detections, whole)
    if not tracks:
        turns = _turns(frames, looks, faces)
        upright = np.rot90(frames, turns, axes=(1, 2))
        again = [(i, faces.find(np.ascontiguousarray(upright[i]), thorough=not turns)) for i in looks]
        tracks = _tracks(again, set(looks))
    if not tracks:
        return Faces(0, np.full((count, 3), np.nan, np.float32), np.zeros(count, bool))

    track = tracks[0]
    others = sum(2 * len(other.boxes) >= len(track.boxes) for other in tracks[1:])
    seen = np.array([index in track.boxes for index in looks])
    before = np.searchsorted(looks, np.arange(count), side="right") - 1  # (T,) the look at or before a frame
    after = np.searchsorted(looks, np.arange(count), side="left")  # (T,) the one at or after it
    return Faces(turns, _fill(track, count), seen[before] & seen[after], others)


def _look(frames: np.ndarray, looks: list[int], faces: FaceDetector) -> tuple[list[tuple[int, np.ndarray]], set[int]]:
    """What each look finds, and which looks were at the whole picture: every third one, and where faces were lost; the
    others are where faces were."""
    found, whole, boxes = [], set(), np.zeros((0, 3), np.float32)
    for number, index in enumerate(looks):
        followed = faces.follow(frames[index], boxes) if number % WHOLE_LOOK and len(boxes) else None
        if followed is None:
            whole.add(index)
        boxes = faces.find(frames[index]) if followed is None else followed
        found.append((index, boxes))
    return found, whole


def _turns(frames: np.ndarray, looks: list[int], faces: FaceDetector) -> int:
    """Quarter turns after which most of five looks show a face; 0 when none does."""
    some = [looks[i] for i in np.unique(np.linspace(0, len(looks) - 1, 5).round().astype(int))] if looks else []
    if len(some) < 3:
        return 0
    for turns in (1, 3, 2):
        hits = sum(len(faces.find(np.ascontiguousarray(np.rot90(frames[index], turns)))) > 0 for index in some)
        if hits > len(some) / 2:
            return turns
    return 0


def _tracks(detections: list[tuple[int, np.ndarray]], whole: set[int]) -> list[Track]:
    """Link detections frame by frame, each box to the nearest track within one side; return them, weightiest first.
    whole: the frames that were looked at as a whole; what was followed from one of them is no second hit."""
    tracks: list[Track] = []
    for index, boxes in detections:
        pairs = sorted((track.distance(box), t, b) for t, track in enumerate(tracks) for b, box in enumerate(boxes))
        taken_tracks, taken_boxes = set(), set()
        for distance, t, b in pairs:
            if distance < 1.0 and t not in taken_tracks and b not in taken_boxes:
                tracks[t].boxes[index] = boxes[b]
                taken_tracks.add(t)
                taken_boxes.add(b)
        tracks += [Track({index: box}) for b, box in enumerate(boxes) if b not in taken_boxes]
    # One hit in many looks is a patch of wallpaper that happened to look like a face.
    enough = 1 if len(detections) < 4 else 2
    return sorted((t for t in tracks if len(whole & t.boxes.keys()) >= enough), key=lambda track: -track.weight)


def _fill(track: Track, count: int) -> np.ndarray:
    """Boxes for every frame, float32 (T, 3): medians of three against outliers, then linear in between, held at the
    ends, then smoothed."""
    at = sorted(track.boxes)
    known = np.stack([track.boxes[index] for index in at]).astype(np.float64)  # (N, 3)
    if len(known) >= 3:
        neighbours = np.stack([known[:-2], known[1:-1], known[2:]])  # (3, N - 2, 3)
        known = np.concatenate([known[:1], np.median(neighbours, axis=0), known[-1:]])  # (N, 3)
    return np.stack([np.interp(np.arange(count), at, column) for column in known.T], axis=1).astype(np.float32)


def smooth(boxes: np.ndarray, frame_rate: float) -> np.ndarray:
    """Boxes float32 (T, 3) through a Gaussian of SMOOTHING seconds; the ends are held."""
    sigma = SMOOTHING * frame_rate
    reach = int(np.ceil(3 * sigma))
    if len(boxes) < 2 or reach == 0:
        return boxes
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(boxes, ((reach, reach), (0, 0)), mode="edge")  # (T + 2 reach, 3)
    columns = [np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1).astype(np.float32)  # (T, 3)


def crop_faces(frames: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Square crops around the boxes, widened by MARGIN: uint8 (T, size, size, 3). Beyond the picture its edge goes on.
    Without a box (NaN) the crop is the largest square in the middle of the frame."""
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
        beyond = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
        if any(beyond):
            inside = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE)
        out[index] = resize_square(inside, size)
    return out


def resize_square(picture: np.ndarray, size: int) -> np.ndarray:
    """uint8 (S, S, 3) -> (size, size, 3): halved by mean while that leaves enough, bilinear from there, which costs a
    sixth of OpenCV's mean over areas and differs from it by less than a grey value in the mean."""
    import cv2

    while (side := len(picture)) >= 2 * size and side % 2 == 0:
        picture = cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    way = cv2.INTER_AREA if len(picture) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(picture, (size, size), interpolation=way)
