"""Face crops that come with a dataset: a folder of pictures called <frame number>.jpg."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.media.choose_tracks import choose_tracks
from shared.media.containers import MediaError, open_media
from shared.media.faces import resize_square
from shared.media.remarks import Remarks
from shared.media.stills import decode_still
from shared.media.timeline import Timeline, may_jump

CROP_NAME = re.compile(r"(\d+)\.(jpe?g|png)", re.IGNORECASE)
DEFAULT_RATE = 30.0
"""Crops per second if neither a video nor a sound determines their duration."""


class FaceCrops(NamedTuple):
    frames: np.ndarray
    """RGB uint8 (T, size, size, 3)."""
    times: np.ndarray
    """float32 (T,), seconds."""
    end: float
    """End of the last crop in seconds."""
    problem: str
    """What is wrong with the crops; "" for nothing."""


def read_crops(
    folder: Path, times: np.ndarray | None, duration: float, frame_rate: float, max_seconds: float, size: int
) -> FaceCrops:
    """Read the crops nearest to k / frame_rate in the first `max_seconds`.

    times: of the video's frames; None without a video. The crops then last for `duration` seconds if it is above 0.
    """

    def no_crops(problem: str) -> FaceCrops:
        return FaceCrops(np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.float32), 0.0, problem)

    try:
        paths = {int(m[1]): path for path in sorted(folder.iterdir()) if (m := CROP_NAME.fullmatch(path.name))}
    except OSError:
        return no_crops(f"{folder}: no such folder of face crops")
    if not paths:
        return no_crops(f"{folder}: no face crops in it")
    numbers = np.array(sorted(paths))  # (N,)
    stored_times, end = crop_times(numbers, times, duration)  # (N,)
    grid = np.arange(0, min(end, max_seconds), 1 / frame_rate)  # (G,)
    nearest = np.abs(grid[:, None] - stored_times[None]).argmin(axis=1)  # (G,)
    distance = np.abs(grid - stored_times[nearest])  # (G,)
    near = distance <= 0.5 / frame_rate + 1e-6
    if not near.any():
        near[distance.argmin()] = True
    pictures = [_read_square(paths[int(number)], size) for number in numbers[nearest[near]]]
    readable = [picture is not None for picture in pictures]
    unreadable = readable.count(False)
    problem = f"{folder}: {unreadable} unreadable face crops left out" if unreadable else ""
    if not any(readable):
        return no_crops(problem)
    frames = np.stack([picture for picture in pictures if picture is not None])
    return FaceCrops(frames, grid[near][readable].astype(np.float32), end, problem)


def crop_times(numbers: np.ndarray, times: np.ndarray | None, duration: float) -> tuple[np.ndarray, float]:
    """Seconds (N,) of the frames with these numbers (N,), and the end of the last one in seconds."""
    count = int(numbers[-1]) + 1
    if times is not None and len(times) > 1:
        gap = float(np.median(np.diff(times)))
        if abs(count - len(times)) <= max(2, 0.1 * len(times)):
            after = times[-1] + gap * np.arange(1, count + 1)
            return np.concatenate([times, after])[numbers], float(times[-1] + gap)
        duration = float(times[-1] + gap)  # the crops are from a copy of the video with another frame rate
    step = duration / count if duration > 0 else 1 / DEFAULT_RATE
    return numbers * step, count * step


def frame_times(path: Path) -> np.ndarray | None:
    """Seconds (T,) of the frames of a video, only from its packets; None if there is no readable video."""
    import av

    try:
        with open_media(path) as container:
            choice = choose_tracks(container, lambda: open_media(path))
            if choice.video is None:
                return None
            streams = [container.streams[index] for index in (choice.video, choice.audio) if index is not None]
            timeline = Timeline(streams, streams[0], Remarks(), leads=True, may_jump=may_jump(container))
            packets = timeline.straighten(container.demux(streams))
            stamps = [p.pts for p in packets if p.stream.index == choice.video and p.pts is not None]
            if not stamps:
                return None
            start = 0.0 if container.start_time is None else container.start_time / av.time_base
            return np.sort(np.array(stamps)) * float(streams[0].time_base or 0) - start
    except (av.error.FFmpegError, MediaError, OSError, ValueError):
        return None


def _read_square(path: Path, size: int) -> np.ndarray | None:
    """RGB uint8 (size, size, 3): the largest central square of a picture; None if the picture cannot be read."""
    try:
        picture = decode_still(path)
    except ValueError:
        return None
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_square(picture[top : top + side, left : left + side], size)
