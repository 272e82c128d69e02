"""Decode sound, and frames at regular times, from a media file of any length and condition.

Frames are selected by their timestamps, never by the frame rate that a file claims. Rotation and pixel aspect are
applied. Channels are averaged (a downmix by the resampler would add 3 dB), unless this loses sound (see channels.py),
and the level is not changed. Packets that cannot be decoded are counted and left out.

The file is opened once for its frames and once for its sound. Each is read only as far as a window needs, and neither
has to wait in memory for the other, however they are interleaved.
"""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.media.channels import Mix, measure_frames
from shared.media.choose_tracks import choose_tracks
from shared.media.containers import MediaError as MediaError
from shared.media.containers import open_media
from shared.media.joined_files import unread_recordings
from shared.media.remarks import Remarks
from shared.media.timeline import BREAK, SUSPICIOUS
from shared.media.tracks import AudioTrack, Track, VideoTrack, no_frames

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MIN_TAIL_SECONDS = 0.1
"""A shorter rest of a file, such as codec padding, is added to the window before."""


@dataclass
class Media:
    """A decoded file, or a window of it. Time 0 is the start of its first stream."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3), upright; T = 0 without a picture."""
    frame_times: np.ndarray
    """Seconds, float32 (T,): multiples of 1 / frame_rate where the file has frames."""
    waveform: np.ndarray
    """float32 (S,), the mean of the channels (see channels.py) at their original level; S = 0 without sound."""
    sample_rate: int
    """Sample rate of the waveform in Hz, as in the file; 0 without sound."""
    duration: float
    """Seconds until the end of the last frame or sound, at most the window's length (see MIN_TAIL_SECONDS)."""
    damaged_packets: int = 0
    """Packets that could not be decoded."""
    start: float = 0.0
    """Start of this window in the file, in seconds; the times above count from here."""
    more: bool = False
    """Whether the file continues after this window."""
    absence_reasons: dict[str, str] = field(default_factory=dict)
    """{"vision" or "audio": why it is missing}."""
    remarks: Remarks = field(default_factory=Remarks)
    """What was repaired, left out or chosen in this window."""


def decode(source: Path | bytes, frame_rate: float, max_seconds: float, max_side: int = 480) -> Media:
    """Decode the first `max_seconds` of a file, or of the bytes of one, in bounded memory.

    frame_rate: frames per second, 0 for only sound; max_side: larger frames are downscaled to it. Raises MediaError
    if the file cannot be opened or nothing in it can be decoded.
    """
    with contextlib.closing(decode_windows(source, frame_rate, max_seconds, max_side)) as windows:
        return next(windows)


def decode_windows(
    source: Path | bytes, frame_rate: float, seconds: float, max_side: int = 480
) -> Generator[Media, None, None]:
    """Decode all of a file in windows of `seconds`, with one window in memory. Otherwise as `decode`.

    Windows in a break (see BREAK in timeline.py) are left out. The last window is up to MIN_TAIL_SECONDS longer.
    """
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(open_media(source))
        choice = choose_tracks(container, lambda: open_media(source))
        tracks: list[Track] = []
        reasons = {} if frame_rate else {"vision": "frames were not requested"}
        if choice.video is not None and frame_rate:
            video: Any = container.streams[choice.video]
            tracks.append(VideoTrack(container, video, frame_rate, max_side, choice.audio))
            container = stack.enter_context(open_media(source))
        elif frame_rate:
            reasons["vision"] = _why_no_video(container)
        if choice.audio is not None:
            audio: Any = container.streams[choice.audio]
            track = AudioTrack(container, audio, choice.video)
            track.mixes = _channel_mixes(source, audio)
            tracks.append(track)
        else:
            reasons["audio"] = "no decoder for its track" if container.streams.audio else "no audio track"
        if not tracks:
            raise MediaError("neither a video nor an audio track that can be decoded")
        yield from _windows(
            tracks, _start(container, tracks), seconds, reasons, choice.remarks + unread_recordings(source)
        )


def _why_no_video(container: "InputContainer") -> str:
    """The reason if no video track can be used."""
    if not container.streams.video:
        return "no video track"
    if all(stream.codec_context is None for stream in container.streams.video):
        return "no decoder for its track"
    return "no moving pictures, only a cover"


def _channel_mixes(source: Path | bytes, stream: "AudioStream") -> dict[str, Mix]:
    """How the channels of a stream are mixed, decided on the whole stream, the same for every window."""
    if stream.codec_context.channels == 1:
        return {}
    with open_media(source) as container:
        again: Any = container.streams[stream.index]
        return measure_frames(AudioTrack(container, again).rest())


def _start(container: "InputContainer", tracks: list[Track]) -> float:
    """Start of the first stream in seconds, by the clock of the file."""
    import av

    frames = [frame for track in tracks if (frame := track.peek()) is not None]
    times = [track.timeline.first for track in tracks if track.timeline.first is not None]
    first = min((frame.time for frame in frames if frame.time is not None), default=min(times, default=0.0))
    start = first if container.start_time is None else container.start_time / av.time_base
    # Wrong timestamps of the first packets make the stated start wrong.
    return first if start > first + SUSPICIOUS or start < first - BREAK else start


@dataclass
class _Part:
    """The content of the tracks in a time span. Frame times count from the start of the file."""

    frames: np.ndarray
    times: np.ndarray
    waveform: np.ndarray
    rate: int
    is_content: bool
    """Whether this is not merely the silence of a break."""

    def __bool__(self) -> bool:
        return self.is_content and bool(len(self.frames) or len(self.waveform))

    def followed_by(self, other: "_Part") -> "_Part":
        pictures = [part for part in (self, other) if len(part.frames)] or [self]
        alone = pictures[0] if len(pictures) == 1 else None  # a copy of all frames takes as long as detecting a face
        return _Part(
            alone.frames if alone else np.concatenate([part.frames for part in pictures]),
            alone.times if alone else np.concatenate([part.times for part in pictures]),
            np.concatenate([self.waveform, other.waveform]),
            other.rate or self.rate,
            self.is_content or other.is_content,
        )


def _read_part(tracks: list[Track], start: float, begin: float, end: float) -> _Part:
    parts = {track.modality: track.window(start, begin, end) for track in tracks}
    frames, times = parts.get("vision", no_frames())
    waveform, rate = parts.get("audio", (np.zeros(0, np.float32), 0))
    is_content = any(track.in_window for track in tracks)
    return _Part(frames, times.astype(np.float64) + begin, waveform, rate, is_content)


def _windows(
    tracks: list[Track], start: float, seconds: float, reasons: dict[str, str], chosen: Remarks
) -> Iterator[Media]:
    """Windows with the content of every track. start: of the clip, by the clock of the file; chosen: remarks about the
    file and the choice of its tracks, for the first window."""
    number, remarks, any_window = 0, chosen, False
    tail, read_until = min(MIN_TAIL_SECONDS, seconds / 2), 0.0
    rest: _Part | None = None  # what is already read of this window
    while not all(track.finished for track in tracks):
        begin, end = number * seconds, (number + 1) * seconds
        part = _read_part(tracks, start, max(begin, read_until), end)
        part = part if rest is None else rest.followed_by(part)
        # Read a little more to see whether the file ends with this window.
        rest, read_until = _read_part(tracks, start, end, end + tail), end + tail
        finished = all(track.finished for track in tracks)
        if finished:
            part, end = part.followed_by(rest), end + tail
        if part:
            missing = [name for name, held in (("vision", part.frames), ("audio", part.waveform)) if not len(held)]
            yield Media(
                frames=part.frames,
                frame_times=(part.times - begin).astype(np.float32),
                waveform=part.waveform,
                sample_rate=part.rate if len(part.waveform) else 0,
                duration=min(max(track.end for track in tracks), end) - begin,
                damaged_packets=sum(track.damaged for track in tracks) + max(track.unreadable for track in tracks),
                start=begin,
                more=not finished,
                absence_reasons={name: reasons.get(name) or _why_empty(name, tracks) for name in missing},
                remarks=sum((track.remarks for track in tracks), remarks),
            )
            any_window, remarks = True, Remarks()
            for track in tracks:
                track.damaged = track.unreadable = 0
                track.remarks.clear()
        number += 1
        if not part and not rest:
            # Skip to the window in which the next frame starts: its timestamp may be years ahead.
            next_times = [track.next_time(start) for track in tracks if not track.finished]
            next_number = int(min(next_times, default=0.0) / seconds)
            number, rest = (next_number, None) if next_number > number else (number, rest)
    if not any_window:
        raise MediaError("nothing in the file can be decoded")


def _why_empty(modality: str, tracks: list[Track]) -> str:
    track = next(track for track in tracks if track.modality == modality)
    name = "video" if modality == "vision" else "audio"
    if not track.has_decoded and track.finished:
        return f"nothing in the {name} track can be decoded"
    return f"the {name} track {'has ended' if track.finished else 'has nothing in this window'}"
