"""What a clip's files hold together: one media file, or sound and face crops in files of their own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shared.dataset.clip import Clip, StoredMedia
from shared.media.decode import SHORTEST_TAIL, Media, MediaError, decode, decode_windows, video_stream
from shared.media.faces import resize_square
from shared.media.headers import read_header
from shared.text import one_line

CROP_NAME = re.compile(r"(\d+)\.(jpe?g|png)", re.IGNORECASE)
USUAL_RATE = 30.0
"""Crops a second where neither a video nor a sound says how long they last."""


@dataclass
class Material:
    """What could be decoded."""

    media: Media
    cropped: bool = False
    """Whether the frames are face crops already."""
    remarks: list[str] = field(default_factory=list)


def gather(clip: Clip, frame_rate: float, max_seconds: float, max_side: int, size: int) -> Material:
    """Decode a clip's files; of provided crops, those nearest to k / frame_rate, size x size pixels. What cannot be
    read is remarked on; MediaError when there are files and nothing in them can, or neither files nor words."""
    has_files = clip.media is not None or clip.audio is not None or clip.crops is not None
    if not has_files and not clip.transcript:
        raise MediaError("neither a file nor words")
    troubles: list[str] = []

    def attempt(source: Path | StoredMedia | None, rate: float) -> Media | None:
        try:
            return None if source is None else decode(_content(source), rate, max_seconds, max_side)
        except MediaError as error:
            alone = clip.audio is None and clip.crops is None
            troubles.append(str(error) if alone else f"{source}: {error}")
            return None

    times = frame_times(clip.media) if clip.crops is not None and isinstance(clip.media, Path) else None
    # The pictures of a file are not looked at where there are crops: a silent one is read then, not broken.
    silent = times is not None and not _has_sound(clip.media)
    media = None if silent else attempt(clip.media, 0.0 if clip.crops is not None else frame_rate)
    sound = attempt(clip.audio, 0.0)
    found = media or _nothing(clip, silent)
    if sound is not None:
        found = replace(
            found,
            waveform=sound.waveform,
            sample_rate=sound.sample_rate,
            duration=max(found.duration, sound.duration),
            damaged_packets=found.damaged_packets + sound.damaged_packets,
            more=found.more or sound.more,
            cancelled=sound.cancelled,
        )
    if clip.crops is not None:
        heard = found.duration
        if times is None and found.more:  # they last as long as all of the sound, not as what was decoded of it
            heard = _seconds(clip.media if sound is None else clip.audio)
        frames, at, end, trouble = read_crops(clip.crops, times, heard, frame_rate, max_seconds, size)
        troubles += [trouble] if trouble else []
        absent = {**found.absent, "vision": "no face crops that can be read"}
        lasts = max(found.duration, min(end, max_seconds))
        more = found.more or end > max_seconds + SHORTEST_TAIL
        found = replace(found, frames=frames, frame_times=at, duration=lasts, absent=absent, more=more)
    if has_files and not len(found.frames) and not len(found.waveform):
        raise MediaError("; ".join(troubles or ["nothing in the files can be decoded"]))
    return Material(found, clip.crops is not None, [*troubles, *clip.remarks])


def words_alone(clip: Clip, trouble: str) -> Material:
    """What is left of a clip of whose files nothing can be decoded; the trouble is remarked on."""
    return Material(_nothing(clip), remarks=[trouble, *clip.remarks])


def _nothing(clip: Clip, silent: bool = False) -> Media:
    """Neither picture nor sound, and why. silent: whether its file can be read, but has no sound."""
    sound = "no file" if clip.media is clip.audio is None else "its file cannot be read"
    absent = {
        "vision": "no file" if clip.media is clip.crops is None else "its file cannot be read",
        "audio": "no sound track" if silent else sound,
    }
    empty = np.zeros(0, np.float32)
    return Media(np.zeros((0, 0, 0, 3), np.uint8), empty, empty, 0, 0.0, absent=absent)


def gather_windows(clip: Clip, frame_rate: float, max_seconds: float, max_side: int, size: int) -> Iterator[Material]:
    """All of a clip that is one media file, window after window of `max_seconds`; of a clip with sound or crops in
    files of their own the first. Otherwise as `gather`; MediaError too, after the windows, when some of it is left."""
    if clip.media is None or clip.audio is not None or clip.crops is not None:
        found = gather(clip, frame_rate, max_seconds, max_side, size)
        yield found
        if found.media.more:
            raise MediaError("not looked at: sound or crops are files of their own, which are read for one window")
        return
    for media in decode_windows(_content(clip.media), frame_rate, max_seconds, max_side):
        yield Material(media, False, list(clip.remarks))


def _content(source: Path | StoredMedia) -> Path | bytes:
    """What `decode` takes. MediaError when a table cannot be read."""
    if not isinstance(source, StoredMedia):
        return source
    try:
        return source.read()
    except Exception as error:  # of pyarrow: whatever a damaged table leads to
        raise MediaError(one_line(error, 200)) from None


def read_crops(
    folder: Path, times: np.ndarray | None, duration: float, frame_rate: float, max_seconds: float, size: int
) -> tuple[np.ndarray, np.ndarray, float, str]:
    """Crops called <number>.jpg, the number being that of the frame: RGB uint8 (T, size, size, 3), their times (T,),
    the second the last one ends, and what is wrong with them ("" when nothing is).

    times: of the video's frames; None where there is no video, and the crops last for `duration` seconds if it is
    above 0.
    """
    none = np.zeros((0, size, size, 3), np.uint8), np.zeros(0, np.float32), 0.0
    try:
        names = {int(m[1]): path for path in sorted(folder.iterdir()) if (m := CROP_NAME.fullmatch(path.name))}
    except OSError:
        return *none, f"{folder}: no such folder of face crops"
    if not names:
        return *none, f"{folder}: no face crops in it"
    numbers = np.array(sorted(names))  # (N,)
    shown, end = crop_times(numbers, times, duration)  # (N,)
    wanted = np.arange(0, min(end, max_seconds), 1 / frame_rate)  # (G,)
    nearest = np.abs(wanted[:, None] - shown[None]).argmin(axis=1)  # (G,)
    near = np.abs(wanted - shown[nearest]) <= 0.5 / frame_rate + 1e-6
    if not near.any():
        near[np.abs(wanted - shown[nearest]).argmin()] = True
    frames, at, broken = [], [], 0
    for time, number in zip(wanted[near], numbers[nearest[near]], strict=True):
        picture = _read_square(names[int(number)], size)
        broken += picture is None
        if picture is not None:
            frames.append(picture)
            at.append(time)
    trouble = f"{folder}: {broken} unreadable face crops left out" if broken else ""
    if not frames:
        return *none, trouble
    return np.stack(frames), np.array(at, np.float32), end, trouble


def crop_times(numbers: np.ndarray, times: np.ndarray | None, duration: float) -> tuple[np.ndarray, float]:
    """Seconds (N,) at which frames of these numbers (N,) are shown, and the second at which the last one ends."""
    count = int(numbers[-1]) + 1
    if times is not None and len(times) > 1:
        gap = float(np.median(np.diff(times)))
        if abs(count - len(times)) <= max(2, 0.1 * len(times)):
            after = times[-1] + gap * np.arange(1, count + 1)
            return np.concatenate([times, after])[numbers], float(times[-1] + gap)
        duration = float(times[-1] + gap)  # cropped from another copy, of another frame rate
    step = duration / count if duration > 0 else 1 / USUAL_RATE
    return numbers * step, count * step


def frame_times(path: Path) -> np.ndarray | None:
    """Seconds (T,) at which a video shows its frames, by its packets alone; None when there is no readable video."""
    import av

    try:
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            stream = video_stream(container)
            if stream is None:
                return None
            stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            if not stamps:
                return None
            start = 0.0 if container.start_time is None else container.start_time / av.time_base
            return np.sort(np.array(stamps)) * float(stream.time_base) - start
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _seconds(source: Path | StoredMedia | None) -> float:
    """How long a file lasts by its header; 0 when it does not say."""
    return (read_header(source).seconds if isinstance(source, Path) else None) or 0.0


def _has_sound(path: Path) -> bool:
    import av

    with av.open(f"file:{path}", metadata_errors="ignore") as container:
        return bool(container.streams.audio)


def _read_square(path: Path, size: int) -> np.ndarray | None:
    """RGB uint8 (size, size, 3): the largest square in the middle of a picture; None when it cannot be read."""
    import cv2

    try:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if picture is None:
        return None
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    return cv2.cvtColor(resize_square(square, size), cv2.COLOR_BGR2RGB)
