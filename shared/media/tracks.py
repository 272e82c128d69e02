"""The video and audio tracks of an open media file: decoded in order, and placed in time by their timestamps."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shared.media.arrays import MAX_LEVEL
from shared.media.channels import Mix, frame_channels, layout_key
from shared.media.pictures import PictureConverter
from shared.media.remarks import Remark, Remarks
from shared.media.timeline import BREAK, Timeline, may_jump, seconds
from shared.media.waveform import RateConverter

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_AUDIO_DRIFT = 0.05
"""Seconds that sound may differ from its timestamp before silence is inserted or sound is cut."""
MAX_LAST_FRAME = 1.0
"""Most seconds to show a frame before the end or before a break."""
EARLY = 6e-4
"""Seconds that a frame may be shown early: containers round times to milliseconds."""
MAX_READ_FAILURES = 20
"""Unreadable positions in a file before the rest is given up."""

LATE_FRAMES = Remark(
    "{} frame(s) left out: their time stamps are before those of frames already shown", is_problem=True
)

SILENCE = Remark("{} s inside the sound have no sound: they are silent")
NOT_FINITE = Remark("{} sample(s) of sound are NaN or infinite: silent", is_problem=True)
TOO_LOUD = Remark(
    "{} sample(s) of sound are far beyond full scale, which is 1: cut off; divide them by their full scale",
    is_problem=True,
)
OTHER_FORMAT = Remark(
    "the rest is left out: a joined recording of another codec, sample rate or number of channels; split the file",
    is_problem=True,
)
PAUSE = Remark("the recording pauses for {} s, which are left out")
OVERLAP = Remark("{} s of sound left out: its time stamps overlap", is_problem=True)


class Track:
    """One stream of an open file. Decodes its frames in order, one frame ahead."""

    modality: ClassVar[str]

    def __init__(self, container: "InputContainer", stream: "VideoStream | AudioStream", other: int | None = None):
        """other: index of the stream of the other track of this clip, which is read from a separate container."""
        # One thread, because several clips are decoded in parallel.
        stream.codec_context.thread_count = 1
        self.damaged = self.unreadable = 0
        """Packets that cannot be decoded, and positions that cannot be read, since the last window."""
        self.remarks: Remarks = Remarks()
        """What was repaired, left out or chosen since the last window."""
        self.has_decoded = self.in_window = False
        """Whether anything has been decoded at all, and whether anything is in the current window."""
        self.end = 0.0
        """End of the last decoded frame in seconds."""
        streams: list[Any] = [stream] if other is None else [stream, container.streams[other]]
        leads = stream.type == "video" or other is None
        self.timeline = Timeline(streams, stream, self.remarks, leads, may_jump(container))
        self._frames = self._decode(container, stream, streams)
        self._next: Any = None

    @property
    def finished(self) -> bool:
        """Whether no later window has a frame of this track."""
        raise NotImplementedError

    def expected_time(self) -> float:
        """Seconds at which a frame without a timestamp starts."""
        raise NotImplementedError

    def window(self, start: float, begin: float, end: float) -> tuple[np.ndarray, Any]:
        """The content of the track from `begin` to `end`. start: of the clip, by the clock of the file; all in
        seconds."""
        raise NotImplementedError

    def peek(self) -> Any:
        """The next VideoFrame or AudioFrame; None at the end."""
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next

    def rest(self) -> Iterator[Any]:
        """All remaining frames, which are consumed."""
        while self.peek() is not None:
            yield self.take()

    def take(self) -> Any:
        frame, self._next = self.peek(), None
        return frame

    def time(self, frame: "VideoFrame | AudioFrame", start: float) -> float:
        """Seconds from the start of the clip."""
        if frame.time is not None:
            return frame.time - start
        # Formats without presentation times, such as AVI, have decoding times.
        return self.expected_time() if frame.dts is None else seconds(frame.dts, frame.time_base) - start

    def next_time(self, start: float) -> float:
        """Seconds at which the next frame starts."""
        frame = self.peek()
        return self.end if frame is None else self.time(frame, start)

    def _decode(
        self,
        container: "InputContainer",
        stream: "VideoStream | AudioStream",
        streams: list[Any],
    ) -> "Iterator[VideoFrame | AudioFrame]":
        import av

        for packet in self.timeline.straighten(self._packets(container, streams)):
            if packet.stream_index != stream.index:
                continue
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damaged += 1
                continue
            self.after_packet(packet)
            yield from frames

    def after_packet(self, packet: "Packet") -> None:
        """Inspect the decoder after a packet."""

    def _packets(self, container: "InputContainer", streams: list[Any]) -> "Iterator[Packet]":
        import av

        failures = 0
        while failures < MAX_READ_FAILURES:
            try:
                yield from container.demux(streams)
                return
            except (av.error.EOFError, StopIteration):
                return
            except av.error.PatchWelcomeError:
                self.remarks[OTHER_FORMAT] = 1
                return
            except (av.error.FFmpegError, ValueError):
                failures += 1
                self.unreadable += 1


class VideoTrack(Track):
    """Selects, for each time of a regular grid, the frame that a player shows: the last one at or before it."""

    modality = "vision"

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        frame_rate: float,
        max_side: int,
        other: int | None = None,
    ):
        super().__init__(container, stream, other)
        self.pictures = PictureConverter(stream, max_side, self.remarks)
        self.default_gap = float(1 / stream.average_rate) if stream.average_rate else 0.04
        self.rate = frame_rate
        self.images: list[np.ndarray] = []
        """Images of the current window, and their times."""
        self.times: list[float] = []
        self.last: Any = None
        """The frame before the next one, its time, the time since the frame before it, and its image once converted."""
        self.last_time, self.gap = -1.0, 0.0
        self.last_image: np.ndarray | None = None
        self.next_index = 0
        """The next grid time is next_index / rate."""

    @property
    def finished(self) -> bool:
        return self.peek() is None and (self.last is None or self.next_index / self.rate >= self.end - 1e-6)

    def expected_time(self) -> float:
        if self.last is None:
            return 0.0
        usual = self.gap if 0 < self.gap <= MAX_LAST_FRAME else self.default_gap
        return self.last_time + (self.timeline.own.spacing or usual)

    def window(self, start: float, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Frames (T, H, W, 3) and their times (T,), which count from `begin`."""
        self.images, self.times = [], []
        self.next_index = max(self.next_index, math.ceil(begin * self.rate - 1e-6))
        while (frame := self.peek()) is not None:
            time = self.time(frame, start)
            if self.last is not None and self.last_time < time:
                self._show_last(time - EARLY if time - self.last_time <= BREAK else self._last_end(), end)
            if time >= end:
                break
            self._advance(self.take(), time)
        if self.peek() is None and self.last is not None:
            # A single frame is kept even if it is short.
            self.end = self._last_end()
            single = not self.has_decoded
            self._show_last(max(self.end, (self.next_index + 0.5) / self.rate if single else 0.0), end)
        elif self.last is not None:
            is_break = self.time(self.peek(), start) - self.last_time > BREAK
            self.end = min(end, self._last_end()) if is_break else end
        self.in_window = bool(self.images)
        if not self.images:
            return no_frames()
        return np.stack(self.images), (np.array(self.times) - begin).astype(np.float32)

    def after_packet(self, packet: "Packet") -> None:
        self.pictures.note_aspect(packet.pts)

    def _last_end(self) -> float:
        """End of the last frame in seconds if no frame follows it: it lasts for one gap."""
        return self.last_time + min(self.gap or self.default_gap, MAX_LAST_FRAME)

    def _advance(self, frame: "VideoFrame", time: float) -> None:
        """Make `frame` the last frame, unless it is earlier than the current one."""
        if self.last is None or time - self.last_time > BREAK:
            # The grid starts, or continues after a break, with the first time within half a step of this frame.
            self.next_index = max(self.next_index, round(time * self.rate))
        elif time < self.last_time:
            self.remarks[LATE_FRAMES] += 1
            return
        if self.last is not None and time > self.last_time:
            self.gap = time - self.last_time
        self.last, self.last_time, self.last_image = frame, time, None

    def _show_last(self, until: float, end: float) -> None:
        """Use the last frame for all grid times before `until` and `end`."""
        while self.next_index / self.rate < min(until - 1e-6, end):
            if self.last_image is None:
                self.last_image = self.pictures.convert(self.last)
            if self.last_image is not None:
                self.images.append(self.last_image)
                self.times.append(self.next_index / self.rate)
                self.has_decoded = True
            self.next_index += 1


class AudioTrack(Track):
    """Averages channels and places sound in time: gaps become silence, overlaps are cut."""

    modality = "audio"

    def __init__(self, container: "InputContainer", stream: "AudioStream", other: int | None = None):
        super().__init__(container, stream, other)
        self.parts: list[np.ndarray] = []
        """Samples that no window has returned yet."""
        self.rate, self.length, self.returned = 0, 0, 0
        """Hz; samples placed so far; samples returned by windows."""
        self.position: int | None = None
        """Where the next frame starts, in samples, once this is decided."""
        self.exact = True
        """Whether the next frame is placed exactly: the first one of a part of the recording."""
        self.is_alone = other is None
        """Whether there is no picture to synchronize with: joined parts then follow each other without a cut."""
        self.shift, self.by_count = 0.0, False
        """Seconds added to the times of the current part; whether times of another sample rate are ignored."""
        self.mixes: dict[str, Mix] = {}
        """How channels are mixed, by layout; the mean for any other layout."""
        self.converter: RateConverter | None = None
        """For frames with another rate than the first one."""

    @property
    def finished(self) -> bool:
        return self.peek() is None and self.length == self.returned and self.converter is None

    def expected_time(self) -> float:
        return self._end_of_placed() / self.rate if self.rate else 0.0

    def window(self, start: float, begin: float, end: float) -> tuple[np.ndarray, int]:
        """The waveform (S,) and its rate in Hz."""
        self.in_window = self.length > self.returned
        while (frame := self.peek()) is not None:
            self.rate = self.rate or frame.sample_rate
            first, limit = int(begin * self.rate), int(end * self.rate)
            if self.length >= limit:
                break
            self.by_count |= self.is_alone and frame.sample_rate != self.rate  # its clock may count samples
            silence = self._place(self.time(frame, start), start)
            if silence > BREAK * self.rate:
                if self.length + silence >= limit:
                    break  # nothing is added in a break
                if self.length < first:  # windows in the break were left out
                    silence -= first - self.length
                    self.length = self.returned = first
            self._add_silence(silence, limit)
            if self.length >= limit:
                break
            mix = self.mixes.get(layout_key(frame), Mix())
            if mix.remark:
                self.remarks[mix.remark] = 1
            self._add_frame(mix.apply(frame_channels(frame)), self.take().sample_rate)
        if self.peek() is None:
            self._end_conversion()
        if not self.rate:
            return np.zeros(0, np.float32), 0
        self.end = self.length / self.rate
        waveform = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        room = max(0, int(end * self.rate) - self.returned)
        self.parts = [waveform[room:].copy()] if len(waveform) > room else []
        self.returned += min(room, len(waveform))
        return self._repair(waveform[:room]), self.rate

    def _repair(self, waveform: np.ndarray) -> np.ndarray:
        """Samples (S,) without NaN, infinite values and values beyond MAX_LEVEL: float samples may be anything."""
        if not len(waveform) or np.abs(waveform).max() <= MAX_LEVEL:  # False with NaN
            return waveform
        if broken := int((~np.isfinite(waveform)).sum()):
            self.remarks[NOT_FINITE] += broken
        waveform = np.nan_to_num(waveform, posinf=0.0, neginf=0.0)
        if loud := int((np.abs(waveform) > MAX_LEVEL).sum()):
            self.remarks[TOO_LOUD] += loud
        return np.clip(waveform, -MAX_LEVEL, MAX_LEVEL)

    def _end_of_placed(self) -> int:
        return self.length + (self.converter.pending if self.converter else 0)

    def _part_starts(self, time: float) -> bool:
        """Whether the first frame of a part of the recording has this time, by the clock of the file."""
        joints = self.timeline.own.joints
        is_first = bool(joints) and time >= joints[0] - 1e-3
        while joints and time >= joints[0] - 1e-3:
            joints.popleft()
        return is_first

    def _place(self, time: float, start: float) -> int:
        """Decide where the next frame, of this time, starts; samples of silence before it, negative for an overlap.
        start: of the clip, by the clock of the file."""
        if self.position is None:
            starts_part = self._part_starts(time + start)
            if starts_part and self.is_alone:
                self.shift = self._end_of_placed() / self.rate - time
            self.exact |= starts_part
            offset = 0 if self.by_count else round((time + self.shift) * self.rate) - self._end_of_placed()
            drift = MAX_AUDIO_DRIFT * self.rate
            # A part's first frame is placed exactly; later, the clocks of container and codec may drift a little.
            if not self.exact and abs(offset) <= drift:
                offset = 0
            elif offset > 0:
                self._end_conversion()
                if self.has_decoded and offset > drift:
                    self.remarks[SILENCE if offset <= BREAK * self.rate else PAUSE] += offset / self.rate
            self.position = self._end_of_placed() + offset
        return self.position - self._end_of_placed()

    def _add_silence(self, count: int, limit: int) -> None:
        """Silence of `count` samples; later windows add the part beyond `limit`."""
        if count > 0:
            self._append(np.zeros(min(count, limit - self.length), np.float32))
            self.in_window = True

    def _add_frame(self, mono: np.ndarray, rate: int) -> None:
        """Samples (S,) at `rate` Hz, without the part that overlaps the sound before them."""
        overlap = max(0, self._end_of_placed() - (self.position or 0))
        self.position, self.exact = None, overlap * rate > len(mono) * self.rate
        if overlap:
            cut = min(len(mono), round(overlap * rate / self.rate))
            if self.has_decoded and overlap > MAX_AUDIO_DRIFT * self.rate:
                self.remarks[OVERLAP] += cut / rate
            mono = mono[cut:]
        if self.converter is not None and self.converter.rate != rate:
            self._end_conversion()
        if self.converter is None and rate != self.rate:
            self.converter = RateConverter(rate, self.rate)
        self._append(mono if self.converter is None else self.converter.convert(mono))
        self.has_decoded = self.in_window = True

    def _end_conversion(self) -> None:
        if self.converter is not None:
            rest, self.converter = self.converter.finish(), None
            self._append(rest)

    def _append(self, samples: np.ndarray) -> None:
        self.parts.append(samples)
        self.length += len(samples)


def no_frames() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32)
