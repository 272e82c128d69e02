"""How published code usually does it: the baselines of the rows that read media."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

SIZE, FRAME_RATE, AUDIO_RATE = 96, 8.0, 16000


class Decoded(NamedTuple):
    frames: np.ndarray
    """uint8 (T, H, W, 3), every frame."""
    waveform: np.ndarray
    """float32 (S,), the mean of the channels."""
    frame_rate: float
    sample_rate: int


def read_all(path: Path) -> Decoded:
    """Every frame as RGB, and all of the sound, by PyAV."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 25)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])  # (T, H, W, 3)
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray().astype(np.float32).mean(axis=0) for frame in container.decode(audio=0)]
        sample_rate = container.streams.audio[0].rate
    return Decoded(frames, np.concatenate(sound), rate, sample_rate)


@cache
def _cascade() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")


def prepare_clip(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode everything, look for a face in each frame that is kept, cut it out, resample the sound: JPEG files and
    float32 (S,)."""
    from scipy.signal import resample_poly

    decoded = read_all(path)
    crops = []
    for frame in decoded.frames[:: max(1, round(decoded.frame_rate / FRAME_RATE))]:
        found = _cascade().detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1.1, 4)
        height, width = frame.shape[:2]
        x, y, w, h = max(found, key=lambda box: box[2] * box[3]) if len(found) else (0, 0, width, height)
        crop = cv2.resize(frame[y : y + h, x : x + w], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        crops.append(cv2.imencode(".jpg", crop)[1])
    return crops, resample_poly(decoded.waveform, AUDIO_RATE, decoded.sample_rate).astype(np.float32)


def load_sample(path: Path, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A training sample made from the media file each time: uint8 (frames, 96, 96, 3) and float32 (S,)."""
    from scipy.signal import resample_poly

    decoded = read_all(path)
    chosen = decoded.frames[np.linspace(0, len(decoded.frames) - 1, frames).astype(int)]
    pictures = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in chosen])
    return pictures, resample_poly(decoded.waveform, AUDIO_RATE, decoded.sample_rate).astype(np.float32)


def each(work: Callable[[Path], object], paths: Sequence[Path], threads: int) -> None:
    """Apply to all paths, in as many threads: decoding and cascades leave Python's lock to others."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, paths):
            pass
