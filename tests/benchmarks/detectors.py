"""How well and how fast face detectors find faces in clips whose faces are known.

    python tests/benchmarks/detectors.py DIR --detectors haar,yunet:FILE.onnx --sheet boxes.png \\
        --faces '{"talking/*": [0.5, 0.55, 0.5], "odd/cut.mp4": [0.5, 0.5, 0.3]}'

Every clip is decoded as `emit prepare` does. Three figures of a detector, each over the clips that show a face:

frame by frame  a quick search of every frame: in how many a box is on the face, boxes elsewhere, milliseconds
as prepared     the track that crops follow (`shared/media/faces.py`), which searches few frames completely, turns
                pictures that lie on their side and looks longer where nothing was found: clips with a face, their
                frames with a track on it, clips in which something else is tracked, milliseconds
landmarks       with --landmarker: crops of the track in which MediaPipe's face landmarker finds the face, milliseconds

Milliseconds are processor time of all threads, so that a busy machine does not count. Look at the sheet where the truth
is not known: it shows three frames of each clip with the boxes of all detectors.
"""

import fnmatch
import itertools
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.options.outputs import OutputFile
from shared.options.ranges import CheckedOptions

if TYPE_CHECKING:
    from shared.media.faces import FaceDetector, FaceTrack
    from stage2_fusion.data.action_units import ActionUnits

COLORS = ((255, 60, 60), (60, 255, 60), (60, 120, 255), (255, 255, 60))
"""Of the detectors' boxes on the sheet, in their order; the known face is white."""
SHEET_SIDE = 240


@dataclass
class DetectorsConfig(CheckedOptions):
    """Compare face detectors on clips whose faces are known."""

    source: Path = field()
    """Folder of clips; files that are none are left out."""
    detectors: list[str] = field(default_factory=lambda: ["haar"])
    """As for `emit prepare --detector`."""
    faces: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Pattern of paths in the folder: center x as a share of the width, center y and side as shares of the height, of
    the face that is in all frames of these clips. The first pattern that fits counts; other clips show no face."""
    landmarker: Path | None = None
    """MediaPipe's face_landmarker.task."""
    sheet: OutputFile | None = None
    """PNG of three frames of each clip, with the boxes."""


@dataclass
class ShownClip:
    """A decoded clip."""

    name: str
    frames: np.ndarray
    """RGB uint8 (T, H, W, 3)."""
    face: np.ndarray | None
    """float (3,): center x, center y and side in pixels."""

    def right(self, boxes: np.ndarray) -> np.ndarray:
        """Whether boxes (N, 3) are on the face: the center is off by less than half its side, and the side by less than
        a factor of two. bool (N,)."""
        if self.face is None:
            return np.zeros(len(boxes), bool)
        near = np.hypot(*(boxes[:, :2] - self.face[:2]).T) < self.face[2] / 2
        return near & (boxes[:, 2] > self.face[2] / 2) & (boxes[:, 2] < 2 * self.face[2])


@dataclass
class Figures:
    """Of one detector."""

    name: str
    found: int = 0
    """Frames with a box on the face."""
    false: int = 0
    """Boxes elsewhere."""
    seconds: float = 0.0
    tracked_clips: int = 0
    """Clips whose track is on the face, in most of its frames."""
    tracked: int = 0
    """Frames that `emit prepare` counts as frames with a face, where one is."""
    missed: dict[str, int] = field(default_factory=dict)
    """Frames whose face is not tracked, by clip."""
    false_clips: list[str] = field(default_factory=list)
    """Clips in which something else is tracked."""
    track_seconds: float = 0.0
    landmarks: int = 0
    """Crops of these frames in which the landmarker finds a face."""
    landmark_seconds: float = 0.0


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        DetectorsConfig,
        argv,
        prog="detectors.py",
        example="python tests/benchmarks/detectors.py DIR --detectors haar",
        positional=("source",),
    )
    clips = read_clips(config)
    units = None
    if config.landmarker:
        from stage2_fusion.data.action_units import ActionUnits

        units = ActionUnits(config.landmarker)
    figures = [measure(name, clips, units) for name in config.detectors]
    print("\n".join(table(figures, clips, units is not None)))
    if config.sheet:
        write_sheet(config.sheet, config.detectors, clips)
        print(f"{config.sheet}: {', '.join(config.detectors)} in red, green, blue, yellow; the known face in white")
    return 0


def read_clips(config: DetectorsConfig) -> list[ShownClip]:
    """The clips with pictures, at the rate and the size of `emit prepare`. UserError when there are none."""
    from shared.dataset.recipe import Recipe
    from shared.media.decode import MediaError, decode

    recipe, clips = Recipe(), []
    for path in sorted(path for path in config.source.rglob("*") if path.is_file()):
        try:
            frames = decode(path, recipe.frame_rate, recipe.max_seconds, recipe.max_side).frames
        except MediaError:
            continue
        if len(frames):
            name = path.relative_to(config.source).as_posix()
            clips.append(ShownClip(name, frames, _known_face(name, frames.shape, config.faces)))
    if not any(clip.face is not None for clip in clips):
        raise UserError(f"{config.source}: no clip with pictures fits a pattern of --faces")
    return clips


def _known_face(name: str, shape: tuple[int, ...], faces: dict[str, tuple[float, float, float]]) -> np.ndarray | None:
    for pattern, (x, y, side) in faces.items():
        if fnmatch.fnmatchcase(name, pattern):
            return np.array([x * shape[2], y * shape[1], side * shape[1]])
    return None


def measure(name: str, clips: list[ShownClip], units: "ActionUnits | None") -> Figures:
    """One detector on all clips."""
    from shared.dataset.recipe import Recipe
    from shared.media.faces import crop_faces, load_detector, smooth, track_face

    figures, detector, recipe = Figures(name), load_detector(name), Recipe()
    detector.detect(clips[0].frames[0])  # the first call also loads
    for clip in clips:
        began = time.process_time()
        boxes = [detector.detect(frame) for frame in clip.frames]
        figures.seconds += time.process_time() - began
        right = [clip.right(each) for each in boxes]
        figures.found += sum(bool(each.any()) for each in right)
        figures.false += sum(int((~each).sum()) for each in right)
        began = time.process_time()
        track = track_face(clip.frames, recipe.face_every, detector)
        figures.track_seconds += time.process_time() - began
        on_face = _on_face(clip, track)
        figures.tracked_clips += bool(on_face.mean() > 0.5)
        figures.tracked += int(on_face.sum())
        if clip.face is not None and not on_face.all():
            figures.missed[clip.name] = int((~on_face).sum())
        if track.detected.sum() > on_face.sum():
            figures.false_clips.append(clip.name)
        if units is not None and on_face.any():
            upright = np.rot90(clip.frames, track.quarter_turns, axes=(1, 2))  # (T, H, W, 3)
            crops = crop_faces(upright, smooth(track.boxes, recipe.frame_rate), 224)[on_face]  # (N, 224, 224, 3)
            began = time.process_time()
            figures.landmarks += int(units.read(crops)[:, 0].sum())
            figures.landmark_seconds += time.process_time() - began
    return figures


def _on_face(clip: ShownClip, track: "FaceTrack") -> np.ndarray:
    """The frames with a track on the known face: bool (T,). In turned pictures any place counts."""
    if track.quarter_turns:
        return track.detected & (clip.face is not None)
    return track.detected & clip.right(np.nan_to_num(track.boxes, nan=-1e9))


def table(figures: list[Figures], clips: list[ShownClip], landmarks: bool) -> list[str]:
    """Markdown."""
    shown = [clip for clip in clips if clip.face is not None]
    frames, faces = (sum(len(clip.frames) for clip in some) for some in (clips, shown))
    head = ["detector", f"found, of {faces} frames", "false", "ms", f"tracked clips, of {len(shown)}", "their frames"]
    head += [f"false, of {len(clips)} clips", "ms"]
    head += ["landmarks found", "ms"] if landmarks else []
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for each in figures:
        cells = [each.name.partition(":")[0], each.found, each.false, f"{1000 * each.seconds / frames:.1f}"]
        cells += [each.tracked_clips, each.tracked, len(each.false_clips), f"{1000 * each.track_seconds / frames:.1f}"]
        if landmarks:
            share = 1000 * each.landmark_seconds / max(1, each.tracked)
            cells += [f"{each.landmarks} of {each.tracked}", f"{share:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [f"{each.name}: not tracked in {name}: {n} frames" for each in figures for name, n in each.missed.items()]
    lines += [f"{each.name}: a false track in {', '.join(each.false_clips)}" for each in figures if each.false_clips]
    return lines


def write_sheet(path: Path, detectors: list[str], clips: list[ShownClip]) -> None:
    """Three frames of each clip, a row a clip."""
    import cv2

    from shared.media.faces import load_detector

    loaded, rows = [load_detector(name) for name in detectors], []
    for clip in clips:
        count = len(clip.frames)
        tiles = [_tile(clip, index, loaded) for index in (0, count // 2, count - 1)]  # each uint8 (260, 240, 3)
        rows.append(np.concatenate(tiles, axis=1))  # uint8 (260, 720, 3)
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def _tile(clip: ShownClip, index: int, detectors: "list[FaceDetector]") -> np.ndarray:
    """One frame with boxes: uint8 (260, 240, 3)."""
    import cv2

    frame = clip.frames[index].copy()  # (H, W, 3)
    boxes = [(clip.face, (255, 255, 255))] if clip.face is not None else []
    for detector, color in zip(detectors, itertools.cycle(COLORS)):
        boxes += [(box, color) for box in detector.detect(clip.frames[index])]
    for (x, y, side), color in boxes:
        corners = [(round(x + sign * side / 2), round(y + sign * side / 2)) for sign in (-1, 1)]
        cv2.rectangle(frame, *corners, color, 2)
    scale = SHEET_SIDE / max(frame.shape[:2])
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((SHEET_SIDE + 20, SHEET_SIDE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    cv2.putText(tile, f"{clip.name[-26:]} {index}", (2, SHEET_SIDE + 15), 0, 0.4, (255, 255, 255), 1)
    return tile


if __name__ == "__main__":
    sys.exit(main())
