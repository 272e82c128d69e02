"""Opening media files: only local files, and nothing that they refer to."""

import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from shared.text import one_line

if TYPE_CHECKING:
    from av.container import InputContainer

PLAYLISTS = {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp", "vobsub"}
"""Formats of FFmpeg that open other files or the network."""
MAX_NAMELESS = 64 << 20
"""Bytes: larger files are read only by name, even if it contains a pattern."""


class MediaError(Exception):
    """A file cannot be used; the message says why, in one line."""


def open_media(source: Path | bytes) -> "InputContainer":
    """Open a file, or the bytes of one. Raises MediaError if it is not a media file, or a list of other files."""
    import av

    if not isinstance(source, bytes) and not os.path.isfile(source):
        raise MediaError("no such file")
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if size == 0:
        raise MediaError("the file is empty")
    options = {"format_whitelist": _own_formats(), "protocol_whitelist": "file"}
    try:
        if isinstance(source, bytes):
            return av.open(io.BytesIO(source), "r", metadata_errors="ignore", options=options)
        try:
            return av.open(f"file:{source}", "r", metadata_errors="ignore", options=options)
        except av.error.ArgumentError:  # a refused format: FFmpeg takes names of pictures for patterns of names
            if size > MAX_NAMELESS:
                raise
            content = io.BytesIO(Path(source).read_bytes())
            return av.open(content, "r", metadata_errors="ignore", options=options)
    except av.error.ArgumentError:
        raise MediaError(
            "not a readable media file (damaged, or a list of other files, which are not opened)"
        ) from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise MediaError(f"not a readable media file ({reason})") from None


@functools.cache
def _own_formats() -> str:
    import av

    return ",".join(sorted(av.formats_available - PLAYLISTS))
