"""Decoding: pictures at given times and sound, whatever state a file is in and however long it is.

Pictures are taken by their time stamps, never by the frame rate a file claims. Rotation and pixel shape are applied.
Channels are averaged (a downmix by the resampler would add 3 dB) and the level stays as it is. A packet that cannot be
decoded is counted and left out.

The file is opened once for its pictures and once for its sound: each is then read just as far as a window needs, and no
way of interleaving them makes one wait in memory for the other.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.text import one_line

LONGEST_GAP = 0.05
"""Seconds by which sound may be off its time stamp before silence is put in or sound is cut."""

SILENT = 1e-3
"""Of full scale: a mean of channels that never exceeds it, while one of them is tenfold that, has cancelled them."""

SHORTEST_TAIL = 0.1
"""Seconds. Less than this after the last whole window is what a codec pads with."""


class MediaError(Exception):
    """Says in one line why a file cannot be used."""


@dataclass
class Media:
    """What could be decoded of a file. Time 0 is where its first stream starts."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3), upright; T = 0 without a picture."""
    frame_times: np.ndarray
    """Seconds, float32 (T,): k / frame_rate for the times at which the file shows a picture."""
    waveform: np.ndarray
    """float32 (S,), the mean of the channels, level untouched; S = 0 without sound."""
    sample_rate: int
    """Of the waveform, in Hz, as in the file; 0 without sound."""
    duration: float
    """Seconds until the last picture or sound ends, `max_seconds` at most."""
    damaged_packets: int = 0
    """Packets that could not be decoded."""
    start: float = 0.0
    """Seconds into the file at which this window begins; the times above count from there."""
    more: bool = False
    """Whether the file goes on after this."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why there is no "vision" or "audio", where there is none."""
    cancelled: bool = False
    """Whether channels can be heard, but their mean cannot: one is the other upside down."""


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """float32 (S,) at `rate` Hz -> float32 (round(S * new_rate / rate),)."""
    if len(waveform) == 0 or rate == new_rate:
        return waveform.astype(np.float32)
    import soxr

    return soxr.resample(waveform.astype(np.float32), rate, new_rate)


def decode(source: Path | bytes, frame_rate: float, max_seconds: float, max_side: int = 480) -> Media:
    """Decode the first `max_seconds` of a file, or of the bytes of one, in bounded memory.

    frame_rate: pictures per second, each the one nearest to its time, 0 for the sound alone; max_side: larger pictures
    are reduced to it. MediaError when the file cannot be opened or nothing in it can be decoded.
    """
    with contextlib.closing(decode_windows(source, frame_rate, max_seconds, max_side)) as windows:
        return next(windows)


def decode_windows(source: Path | bytes, frame_rate: float, seconds: float, max_side: int = 480) -> Iterator[Media]:
    """Decode all of a file, window after window of `seconds`, in the memory that one of them takes. A window in which
    neither a picture nor a sound begins is left out, and so is a tail of less than SHORTEST_TAIL. Otherwise as
    `decode`."""
    with contextlib.ExitStack() as opened:
        container = opened.enter_context(_open(source))
        tracks: list[_Pictures | _Sound] = []
        absent = {} if frame_rate else {"vision": "pictures were not asked for"}
        video = video_stream(container) if frame_rate else None
        if video is not None:
            tracks.append(_Pictures(container, video, frame_rate, max_side))
            container = opened.enter_context(_open(source))
        elif frame_rate:
            absent["vision"] = "no moving pictures, only a cover" if container.streams.video else "no video track"
        audio = next(iter(container.streams.audio), None)
        if audio is not None:
            tracks.append(_Sound(container, audio))
        else:
            absent["audio"] = "no sound track"
        if not tracks:
            raise MediaError("neither a picture nor a sound track")
        yield from _windows(tracks, _start(container, tracks), seconds, absent)


def _open(source: Path | bytes):
    import av

    inside = isinstance(source, bytes)
    if not inside and not os.path.isfile(source):
        raise MediaError("no such file")
    if (len(source) if inside else Path(source).stat().st_size) == 0:
        raise MediaError("the file is empty")
    try:
        return av.open(io.BytesIO(source) if inside else f"file:{source}", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"not a readable media file ({_reason(error)})") from None


def _start(container, tracks: list) -> float:
    """Seconds at which the first stream starts, by the clock of the file."""
    import av

    if container.start_time is not None:
        return container.start_time / av.time_base
    first = [frame.time for frame in (track.peek() for track in tracks) if frame is not None and frame.time is not None]
    return min(first, default=0.0)


def _windows(tracks: list, start: float, seconds: float, absent: dict[str, str]) -> Iterator[Media]:
    """Let every track fill one window after the other."""
    number, yielded = 0, False
    while True:
        begin, end = number * seconds, (number + 1) * seconds
        parts = {track.modality: track.window(start, begin, end) for track in tracks}
        frames, times = parts.get("vision", _no_pictures())
        waveform, rate = parts.get("audio", (np.zeros(0, np.float32), 0))
        over = all(track.over for track in tracks)
        until = min(max(track.end for track in tracks), end) - begin
        tail = over and yielded and until < SHORTEST_TAIL
        if any(track.fresh for track in tracks) and (len(frames) or len(waveform)) and not tail:
            damaged = sum(track.damaged for track in tracks) + max(track.unreadable for track in tracks)
            missing = [name for name, part in (("vision", frames), ("audio", waveform)) if not len(part)]
            why = {name: absent.get(name) or _why_empty(name, tracks) for name in missing}
            rate = rate if len(waveform) else 0
            cancelled = any(track.cancelled for track in tracks)
            yield Media(frames, times, waveform, rate, until, damaged, begin, not over, why, cancelled)
            yielded = True
            for track in tracks:
                track.damaged = track.unreadable = 0
            number += 1
        else:
            # Straight to where something begins: a time stamp may lie years ahead.
            ahead = [track.ahead(start) for track in tracks if not track.over]
            number = max(number + 1, int(min(ahead, default=0.0) / seconds))
        if over:
            break
    if not yielded:
        raise MediaError("nothing in the file can be decoded")


def _why_empty(name: str, tracks: list) -> str:
    track = next(track for track in tracks if track.modality == name)
    if not track.begun and track.over:
        return f"nothing in the {'video' if name == 'vision' else 'sound'} track can be decoded"
    return f"the {'picture' if name == 'vision' else 'sound'} {'has ended' if track.over else 'does not reach here'}"


def video_stream(container):
    """The first stream of moving pictures; a cover is none."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _no_pictures() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32)


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error)


class _Track:
    """One stream of an open file: decoded frames in their order, one of them ahead."""

    modality: str

    def __init__(self, container, stream):
        # One thread: clips are decoded in parallel already.
        stream.codec_context.thread_count = 1
        self.damaged = self.unreadable = 0
        """Packets that did not decode, and places that cannot be read, since the last window."""
        self.begun = self.fresh = False
        """Whether anything was decoded at all, and whether anything begins in this window."""
        self.cancelled = False
        """Whether channels cancelled each other in this window."""
        self.end = 0.0
        """Seconds at which what was decoded so far ends."""
        self._frames = self._decoded(container, stream)
        self._next = None

    def peek(self):
        """The frame that comes next; None at the end."""
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next

    def take(self):
        frame, self._next = self.peek(), None
        return frame

    def time(self, frame, start: float) -> float:
        """Seconds from the start of the clip."""
        return frame.time - start if frame.time is not None else self.expected()

    def ahead(self, start: float) -> float:
        """When the next frame is shown or heard."""
        frame = self.peek()
        return self.end if frame is None else self.time(frame, start)

    def _decoded(self, container, stream) -> Iterator:
        import av

        for packet in self._packets(container, stream):
            try:
                yield from packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damaged += 1

    def _packets(self, container, stream) -> Iterator:
        import av

        failures = 0
        while failures < 20:
            try:
                yield from container.demux(stream)
                return
            except (av.error.EOFError, StopIteration):
                return
            except (av.error.FFmpegError, ValueError):
                failures += 1
                self.unreadable += 1


class _Pictures(_Track):
    """Takes decoded frames in the order they are shown and keeps, for each wanted time, the nearest one."""

    modality = "vision"

    def __init__(self, container, stream, frame_rate: float, max_side: int):
        from av.video.reformatter import VideoReformatter

        super().__init__(container, stream)
        shape = float(stream.sample_aspect_ratio or 1)
        self.pixel_shape = shape if 0.25 <= shape <= 4 else 1.0
        self.usual_gap = float(1 / stream.average_rate) if stream.average_rate else 0.04
        self.rate, self.max_side = frame_rate, max_side
        self.kept: list[np.ndarray] = []
        self.times: list[float] = []
        self.last, self.last_time, self.gap, self.picture = None, -1.0, None, None
        self.next_index = 0
        self.size: tuple[int, int] | None = None
        self.reformatter = VideoReformatter()  # a frame's own would be set up anew for each

    @property
    def over(self) -> bool:
        """Whether no window after this one has a picture."""
        return self.peek() is None and (self.last is None or self.next_index / self.rate >= self.end - 1e-6)

    def expected(self) -> float:
        """When a frame without a time stamp is shown."""
        return 0.0 if self.last is None else self.last_time + self.usual_gap

    def window(self, start: float, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """frames (T, H, W, 3), frame_times (T,) from `begin` to `end`."""
        self.kept, self.times, self.fresh = [], [], False
        self.next_index = max(self.next_index, math.ceil(begin * self.rate - 1e-6))
        while (frame := self.peek()) is not None:
            time = self.time(frame, start)
            if self.last is not None and self.last_time < time:
                self._keep_until((self.last_time + time) / 2, end)
            if time >= end:
                break
            self._see(self.take(), time)
        if self.peek() is None and self.last is not None:
            # The last picture stays for one gap; a lone one is kept however short it is shown.
            self.end = self.last_time + min(self.gap or self.usual_gap, 1.0)
            lone = not self.begun
            self._keep_until(max(self.end - 1e-6, self.next_index / self.rate if lone else 0.0), end)
        elif self.last is not None:
            self.end = end
        if not self.kept:
            return _no_pictures()
        return np.stack(self.kept), (np.array(self.times) - begin).astype(np.float32)

    def _see(self, frame, time: float) -> None:
        if self.last is None:
            # The grid begins with the first time that is nearer to this frame than one step.
            self.next_index = max(self.next_index, round(time * self.rate))
        elif time <= self.last_time:
            return
        else:
            self.gap = time - self.last_time
        self.last, self.last_time, self.picture, self.fresh = frame, time, None, True

    def _keep_until(self, time: float, end: float) -> None:
        """Let the last frame stand for the wanted times up to `time`, and before `end`."""
        while self.next_index / self.rate <= time and self.next_index / self.rate < end:
            if self.picture is None:
                self.picture = self._convert(self.last)
            self.kept.append(self.picture)
            self.times.append(self.next_index / self.rate)
            self.next_index += 1
            self.begun = True

    def _convert(self, frame) -> np.ndarray:
        """RGB uint8 (H, W, 3), upright, square pixels, no side longer than max_side."""
        import cv2

        if self.size is None:
            width, height = frame.width * self.pixel_shape, frame.height
            scale = min(1.0, self.max_side / max(width, height))
            self.size = max(2, round(width * scale)), max(2, round(height * scale))
        same = self.size == (frame.width, frame.height)
        scaling = {} if same else {"width": self.size[0], "height": self.size[1], "interpolation": "AREA"}
        # Blue first, then turned about: FFmpeg's way to red first is half as fast.
        image = self.reformatter.reformat(frame, format="bgr24", **scaling).to_ndarray()  # (H, W, 3)
        turns = round((frame.rotation or 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), turns))


class _Sound(_Track):
    """Lays decoded sound out in time: gaps become silence, overlaps are cut, channels are averaged."""

    modality = "audio"

    def __init__(self, container, stream):
        super().__init__(container, stream)
        self.parts: list[np.ndarray] = []
        self.rate, self.length, self.taken = 0, 0, 0

    @property
    def over(self) -> bool:
        return self.peek() is None and self.length == self.taken

    def expected(self) -> float:
        return self.length / self.rate if self.rate else 0.0

    def window(self, start: float, begin: float, end: float) -> tuple[np.ndarray, int]:
        """waveform (S,) from `begin` to `end`, rate in Hz."""
        self.fresh = self.length > self.taken
        mean_peak = channel_peak = 0.0
        while (frame := self.peek()) is not None:
            self.rate = self.rate or frame.sample_rate
            first, limit = int(begin * self.rate), int(end * self.rate)
            if self.length < first:
                self.length = self.taken = first  # windows were left out
            if self.length >= limit:
                break
            ahead = round(self.time(frame, start) * self.rate) - self.length
            # At the very beginning every sample counts; later, clocks of container and codec may drift a little.
            off = abs(ahead) > (LONGEST_GAP * self.rate if self.begun else 0)
            if off and ahead > 0:
                self._append(np.zeros(min(ahead, limit - self.length), np.float32))
            if self.length >= limit:
                break
            channels = to_channels(frame.to_ndarray(), frame.format.is_packed, frame.layout.nb_channels)
            mono = to_mono(channels)
            mean_peak = max(mean_peak, np.abs(mono).max(initial=0))
            channel_peak = max(channel_peak, np.abs(channels).max(initial=0) if mean_peak <= SILENT else 0)
            mono = resample(mono, self.take().sample_rate, self.rate) if len(mono) else mono
            self._append(mono[-ahead:] if off and ahead < 0 else mono)
            self.begun = self.fresh = self.length > self.taken
        if not self.rate:
            return np.zeros(0, np.float32), 0
        self.cancelled = mean_peak <= SILENT and channel_peak > 10 * SILENT
        self.end = self.length / self.rate
        waveform = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        room = max(0, int(end * self.rate) - self.taken)
        self.parts = [waveform[room:].copy()] if len(waveform) > room else []
        self.taken += min(room, len(waveform))
        return np.nan_to_num(waveform[:room], posinf=1.0, neginf=-1.0), self.rate

    def _append(self, samples: np.ndarray) -> None:
        self.parts.append(samples)
        self.length += len(samples)


def to_channels(samples: np.ndarray, packed: bool, count: int) -> np.ndarray:
    """float32 (count, S) in [-1, 1]. samples: (count, S), or (1, S * count) when packed."""
    if packed:
        samples = samples.reshape(-1, count).T  # (count, S)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)


def to_mono(channels: np.ndarray) -> np.ndarray:
    """The mean of the channels (C, S), float32 (S,)."""
    return channels.mean(axis=0, dtype=np.float32) if len(channels) > 1 else channels[0]
