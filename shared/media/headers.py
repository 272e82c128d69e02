"""Headers of media files: duration, rates, tracks. Nothing is decoded."""

import os
from dataclasses import dataclass
from pathlib import Path

from shared.text import one_line


@dataclass
class Header:
    """What a header claims, which may be wrong: a fifth of Hume-Vidmimic2 claims 1000 frames per second."""

    seconds: float | None = None
    frame_rate: float | None = None
    """Frames per second; None without a video track."""
    sample_rate: int | None = None
    """Hz; None without an audio track."""
    reason: str = ""
    """Why the file cannot be opened; "" if it can."""


def read_header(path: Path) -> Header:
    """Read the header of a file. Never raises; see `Header.reason`."""
    import av

    from shared.media.tracks import video_stream

    if not os.path.isfile(path):
        return Header(reason="no such file")
    if path.stat().st_size == 0:
        return Header(reason="the file is empty")
    try:
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            video = video_stream(container)
            audio = next(iter(container.streams.audio), None)
            if video is None and audio is None:
                return Header(reason="neither a video nor an audio track")
            rate = (video.average_rate or video.guessed_rate) if video is not None else None
            return Header(
                seconds=None if container.duration is None else container.duration / av.time_base,
                frame_rate=None if video is None else float(rate or 0),
                sample_rate=None if audio is None else audio.rate,
            )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        return Header(reason=f"not a readable media file ({reason})")


def evenly_spaced(items: list, count: int) -> list:
    """`count` of the items, evenly spaced; all of them if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
