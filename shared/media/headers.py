"""Headers of media files: duration, rates, tracks. Nothing is decoded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.media.choose_tracks import choose_tracks
from shared.media.containers import MediaError, open_media
from shared.media.remarks import note_lines
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
    remarks: list[str] = field(default_factory=list)
    """Which of several tracks are used."""


def read_header(path: Path) -> Header:
    """Read the header of a file. Never raises; see `Header.reason`."""
    import av

    try:
        with open_media(path) as container:
            choice = choose_tracks(container, lambda: open_media(path))
            if choice.video is None and choice.audio is None:
                return Header(reason="neither a video nor an audio track that can be decoded")
            streams: Any = container.streams
            video, audio = (None if index is None else streams[index] for index in (choice.video, choice.audio))
            rate = (video.average_rate or video.guessed_rate) if video is not None else None
            return Header(
                seconds=None if container.duration is None else container.duration / av.time_base,
                frame_rate=None if video is None else float(rate or 0),
                sample_rate=None if audio is None else audio.rate,
                remarks=note_lines(choice.remarks),
            )
    except MediaError as error:
        return Header(reason=str(error))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return Header(reason=f"not a readable media file ({one_line(getattr(error, 'strerror', None) or error)})")


def evenly_spaced(items: list, count: int) -> list:
    """`count` of the items, evenly spaced; all of them if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
