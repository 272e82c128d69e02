"""Decode frames at regular times, and sound, of a media file of any length and in any state.

Frames are selected by their timestamps, never by the frame rate that a file claims. Rotation and pixel aspect are
applied. Channels are averaged (a downmix by the resampler would add 3 dB), unless that loses sound (see channels.py),
and the level is not changed. Packets that cannot be decoded are counted and left out.

The file is opened once for its frames and once for its sound. Each is then read only as far as a window needs, and
neither has to wait in memory for the other, however they are interleaved.
"""

import contextlib
import io
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.media.channels import Mix, measure_frames
from shared.media.remarks import Remarks
from shared.media.timeline import BREAK, SUSPICIOUS
from shared.media.tracks import AudioTrack, Track, VideoTrack, no_frames, video_stream
from shared.text import one_line

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MIN_TAIL_SECONDS = 0.1
"""A last window shorter than this is padding by the codec and is left out."""


class MediaError(Exception):
    """A file cannot be used; the message says why, in one line."""


@dataclass
class Media:
    """A decoded file, or a window of it. Time 0 is the start of its first stream."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3), upright; T = 0 without a picture."""
    frame_times: np.ndarray
    """Seconds, float32 (T,): multiples of 1 / frame_rate, as far as the file has frames."""
    waveform: np.ndarray
    """float32 (S,), the mean of the channels (see channels.py) at their original level; S = 0 without sound."""
    sample_rate: int
    """Of the waveform, in Hz, as in the file; 0 without sound."""
    duration: float
    """Seconds until the last frame or sound ends, at most the length of the window."""
    damaged_packets: int = 0
    """Packets that could not be decoded."""
    start: float = 0.0
    """Seconds of the file before this window; the times above count from there."""
    more: bool = False
    """Whether the file continues after this window."""
    absence_reasons: dict[str, str] = field(default_factory=dict)
    """For "vision" and "audio" the reason if it is missing."""
    remarks: Remarks = field(default_factory=Remarks)
    """What was repaired, left out or chosen in this window."""


def decode(source: Path | bytes, frame_rate: float, max_seconds: float, max_side: int = 480) -> Media:
    """Decode the first `max_seconds` of a file, or of the bytes of one, in bounded memory.

    frame_rate: frames per second, 0 for sound alone; max_side: larger frames are scaled down to it. Raises MediaError
    if the file cannot be opened or nothing in it can be decoded.
    """
    with contextlib.closing(decode_windows(source, frame_rate, max_seconds, max_side)) as windows:
        return next(windows)


def decode_windows(
    source: Path | bytes, frame_rate: float, seconds: float, max_side: int = 480
) -> Generator[Media, None, None]:
    """Decode all of a file in windows of `seconds`, in the memory of one window. Otherwise as `decode`.

    Windows in a break (see BREAK in timeline.py) are left out, and so is a last one below MIN_TAIL_SECONDS.
    """
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(_open(source))
        tracks: list[Track] = []
        reasons = {} if frame_rate else {"vision": "frames were not requested"}
        video, audio = video_stream(container), next(iter(container.streams.audio), None)
        if video is not None and frame_rate:
            tracks.append(VideoTrack(container, video, frame_rate, max_side, audio.index if audio else None))
            container = stack.enter_context(_open(source))
        elif frame_rate:
            reasons["vision"] = "no moving pictures, only a cover" if container.streams.video else "no video track"
        audio = next(iter(container.streams.audio), None)
        if audio is not None:
            track = AudioTrack(container, audio, video.index if video else None)
            track.mixes = _channel_mixes(source, audio)
            tracks.append(track)
        else:
            reasons["audio"] = "no audio track"
        if not tracks:
            raise MediaError("neither a video nor an audio track")
        yield from _windows(tracks, _start(container, tracks), seconds, reasons)


def _open(source: Path | bytes) -> "InputContainer":
    import av

    if not isinstance(source, bytes) and not os.path.isfile(source):
        raise MediaError("no such file")
    if (len(source) if isinstance(source, bytes) else Path(source).stat().st_size) == 0:
        raise MediaError("the file is empty")
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    try:
        return av.open(file, "r", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise MediaError(f"not a readable media file ({reason})") from None


def _channel_mixes(source: Path | bytes, stream: "AudioStream") -> dict[str, Mix]:
    """How the channels of a stream become one, decided by a look at the whole of it, the same for every window."""
    if stream.codec_context.channels == 1:
        return {}
    position = stream.container.streams.audio.index(stream)
    with _open(source) as container:
        return measure_frames(AudioTrack(container, container.streams.audio[position]).rest())


def _start(container: "InputContainer", tracks: list[Track]) -> float:
    """Seconds at which the first stream starts, by the clock of the file."""
    import av

    frames = [frame for track in tracks if (frame := track.peek()) is not None]
    times = [track.timeline.first for track in tracks if track.timeline.first is not None]
    first = min((frame.time for frame in frames if frame.time is not None), default=min(times, default=0.0))
    start = first if container.start_time is None else container.start_time / av.time_base
    # Wrong time stamps of the first packets make the stated start wrong.
    return first if start > first + SUSPICIOUS or start < first - BREAK else start


def _windows(tracks: list[Track], start: float, seconds: float, reasons: dict[str, str]) -> Iterator[Media]:
    """Windows with what every track holds in them. start: of the clip, by the clock of the file."""
    number, any_window = 0, False
    while True:
        begin, end = number * seconds, (number + 1) * seconds
        parts = {track.modality: track.window(start, begin, end) for track in tracks}
        frames, times = parts.get("vision", no_frames())
        waveform, rate = parts.get("audio", (np.zeros(0, np.float32), 0))
        finished = all(track.finished for track in tracks)
        duration = min(max(track.end for track in tracks), end) - begin
        is_padding = finished and any_window and duration < MIN_TAIL_SECONDS
        if any(track.in_window for track in tracks) and (len(frames) or len(waveform)) and not is_padding:
            missing = [name for name, part in (("vision", frames), ("audio", waveform)) if not len(part)]
            yield Media(
                frames=frames,
                frame_times=times,
                waveform=waveform,
                sample_rate=rate if len(waveform) else 0,
                duration=duration,
                damaged_packets=sum(track.damaged for track in tracks) + max(track.unreadable for track in tracks),
                start=begin,
                more=not finished,
                absence_reasons={name: reasons.get(name) or _why_empty(name, tracks) for name in missing},
                remarks=sum((track.remarks for track in tracks), Remarks()),
            )
            any_window = True
            for track in tracks:
                track.damaged = track.unreadable = 0
                track.remarks.clear()
            number += 1
        else:
            # Skip to the window in which the next frame starts: its timestamp may be years ahead.
            next_times = [track.next_time(start) for track in tracks if not track.finished]
            number = max(number + 1, int(min(next_times, default=0.0) / seconds))
        if finished:
            break
    if not any_window:
        raise MediaError("nothing in the file can be decoded")


def _why_empty(modality: str, tracks: list[Track]) -> str:
    track = next(track for track in tracks if track.modality == modality)
    name = "video" if modality == "vision" else "audio"
    if not track.has_decoded and track.finished:
        return f"nothing in the {name} track can be decoded"
    return f"the {name} track {'has ended' if track.finished else 'has nothing in this window'}"
