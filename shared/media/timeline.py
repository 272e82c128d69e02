"""One clock for the packets of a file: order and continuity come from the stream, timestamps only refine them.

In files joined end to end, timestamps start again, and individual timestamps may be wrong. Each track of a file is read
from its own container; both see the packets of both tracks, and so arrive at the same clock.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from shared.media.remarks import Remark, Remarks

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

JITTER = 0.05
"""Seconds that timestamps may step back without a reason."""
REORDERED = 0.7
"""The same for reordered frames in Matroska, which has no decoding times: they are guessed, wrongly after a joint."""
OVERLAP = 0.5
"""Seconds that a single stream may step back: more is not an overlap, but a clock that starts again."""
SUSPICIOUS = 1.0
"""A longer step forward, in seconds, is compared with the packets after it."""
DISCONTINUITY = 10.0
"""A longer step forward of all streams, in seconds, starts a new part, in formats whose clocks may jump (MPEG-TS)."""
BREAK = 3600.0
"""A longer gap, in seconds, is a break in the recording: nothing is shown in it."""
FOLLOWERS = 3
"""Packets to check after a jump, to tell a new part from a wrong timestamp."""
SETTLED = 1.5
"""Seconds of a stream, after its jump, within which the other streams jump too if a new part starts."""
SEAM = 0.25
"""Seconds by which the sound of one part may overlap the next, as codecs pad it: pictures then follow without a gap."""
MAX_LOOKAHEAD = 4000
"""Packets."""
MAX_REORDERED = 17
"""Most frames that decoding may be ahead of display."""

JOINED = Remark("time stamps start again in {} place(s): the parts of the recording follow each other")
REBASED = Remark("time stamps of one track jump in {} place(s): it goes on where it was")
WRONG_STAMPS = Remark("{} wrong or stuck time stamp(s): the order of the recording is used")


@dataclass
class Line:
    """A stream on the common clock. Times are in seconds; raw times are from the file."""

    stream: "Stream"
    offset: float = 0.0
    """Added to raw times."""
    last: float | None = None
    """Raw time of the last packet that has one."""
    step: float = 0.0
    """Between the last two packets."""
    end: float = 0.0
    """End of what has been read so far, on the common clock."""
    stuck: float | None = None
    """The raw time shared by many packets that are being read."""
    spacing: float | None = None
    """Seconds between frames that share a timestamp."""
    joints: deque[float] = field(default_factory=deque)
    """Where new parts start, on the common clock."""
    is_back: bool = False
    """Whether the current packets would be hidden by FFmpeg because their timestamps step back."""

    def raw_time(self, packet: "Packet") -> float | None:
        """The time to order packets by; None without a timestamp."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        # Without dts at the start, the stamps of a stream that reorders its frames are not comparable.
        if ticks is None or (packet.dts is None and self.last is not None):
            return None
        return self.seconds(ticks)

    def __post_init__(self) -> None:
        base = self.stream.time_base or Fraction(0)
        self.ticks = base.numerator, base.denominator  # a packet creates its time base anew on each access
        guessed = "matroska" in self.stream.container.format.name and self.stream.type == "video"
        codec: Any = self.stream.codec_context
        self.jitter = REORDERED if guessed and codec.has_b_frames else JITTER

    def seconds(self, ticks: int | None) -> float:
        """As the function of this name, in the stream's time base."""
        return ticks * self.ticks[0] / self.ticks[1] if ticks else 0.0

    def shown(self, packet: "Packet") -> float:
        """The raw display time of a packet."""
        return self.seconds(packet.pts if packet.pts is not None else packet.dts)

    def jumps(self, since: float, time: float, forward: float) -> bool:
        """Whether the step from one raw time to the next is irregular."""
        return time < since - self.jitter or time > since + forward

    def steps_back(self, time: float | None) -> bool:
        return time is not None and self.last is not None and time < self.last - self.jitter

    def read(self, packet: "Packet", time: float) -> None:
        if self.last is not None and time > self.last:
            self.step = time - self.last
        self.last = time
        self.end = max(self.end, self.end_of(packet))

    def end_of(self, packet: "Packet") -> float:
        """Where a packet ends on the common clock."""
        return self.shown(packet) + self.offset + self._duration(packet)

    def _duration(self, packet: "Packet") -> float:
        if self.stream.type == "video" and 0 < self.step <= 1:
            return self.step
        stated = self.seconds(packet.duration)
        return stated if 0 < stated <= 1 else 0.0

    def shift(self, packet: "Packet") -> None:
        """Put a packet on the common clock."""
        ticks = round(self.offset / float(packet.time_base or 1)) if self.offset else 0
        if ticks and packet.pts is not None:
            packet.pts += ticks
        if ticks and packet.dts is not None:
            packet.dts += ticks


class Timeline:
    """Puts packets on one clock without jumps. Gaps in one stream, and pauses in formats with reliable clocks,
    remain."""

    def __init__(self, streams: "Sequence[Stream]", own: "Stream", remarks: Remarks, leads: bool, may_jump: bool):
        """own: the stream with repairs noted in `remarks`; leads: note new parts too; may_jump: see DISCONTINUITY."""
        self.lines = {stream.index: Line(stream) for stream in streams}
        self.own, self.remarks, self.leads = self.lines[own.index], remarks, leads
        self.forward = DISCONTINUITY if may_jump else float("inf")
        self.offset = 0.0
        """Of the newest part."""
        self.first: float | None = None
        """The first time on the common clock."""
        self._ahead: deque[Any] = deque()
        self._packets: Iterator[Any] = iter(())

    def straighten(self, packets: "Iterator[Packet]") -> "Iterator[Packet]":
        """The packets of all streams in order, with timestamps on the common clock, or without."""
        self._packets = packets
        while (packet := self._ahead.popleft() if self._ahead else next(self._packets, None)) is not None:
            line = self.lines[packet.stream.index]
            time = line.raw_time(packet)
            line.is_back = packet.is_discard and (line.is_back or line.steps_back(time))
            if time is not None:
                if self._is_wrong(packet, line, time):
                    packet.pts = packet.dts = None
                    if line is self.own:
                        self.remarks[WRONG_STAMPS] += 1
                else:
                    line.read(packet, time)
                    self._note_first(time + line.offset)
            line.shift(packet)
            yield _shown_copy(packet) if line.is_back else packet

    def _is_wrong(self, packet: "Packet", line: Line, time: float) -> bool:
        """Whether to ignore a packet's timestamp. Starts a new part if one begins here."""
        if line.stuck is not None:
            if time == line.stuck:
                return True
            line.stuck = None
        if line.last is None:
            if self._first_is_wrong(line, time):
                return True
            self._join_late(packet, line, time)
            return False
        if time == line.last:
            return self._is_stuck(line, time)
        if line.jumps(line.last, time, SUSPICIOUS):
            followers = self._times_ahead(line, FOLLOWERS)
            if _returns(line.last, time, followers) or (not followers and time - line.last > BREAK):
                return True
            self._follow_jump(packet, line, time)
        return _is_far(packet, line)

    def _first_is_wrong(self, line: Line, time: float) -> bool:
        """Whether the first packet is far from the following ones, which are close together."""
        after = self._times_ahead(line, 2)
        if len(after) < 2 or abs(after[1] - after[0]) > SUSPICIOUS:
            return False
        if time - SUSPICIOUS <= after[0] <= time + BREAK:
            return False
        self._note_first(after[0] + line.offset)
        return True

    def _note_first(self, time: float) -> None:
        self.first = time if self.first is None else min(self.first, time)

    def _join_late(self, packet: "Packet", line: Line, time: float) -> None:
        """Let a stream that begins with a new part, far before the others, be the first one of that part."""
        others = [other for other in self.lines.values() if other is not line and other.last is not None]
        if any((other.last or 0.0) - time > SUSPICIOUS for other in others):
            starts, ends = self._seam(packet, line, others)
            if len(starts) > 1:
                ends.pop(line.stream.index)
                self._start_part(line, time, self._offset_of_part(starts, ends))
            else:
                line.offset = self.offset

    def _start_part(self, line: Line, time: float, offset: float) -> None:
        if self.leads:
            self.remarks[JOINED] += 1
        self.offset = line.offset = offset
        line.joints.append(time + offset)

    def _is_stuck(self, line: Line, time: float) -> bool:
        """Whether several packets share one time. Two may: fields, or a frame that replaces another."""
        if self._times_ahead(line, 2) != [time, time]:
            return False
        count = 2
        for later in self._later(line):
            if later != time:
                line.spacing = (later - time) / count if later > time else None
                break
            count += 1
        line.stuck = time
        return True

    def _follow_jump(self, packet: "Packet", line: Line, time: float) -> None:
        """Decide what a lasting jump is: a new part, a clock wraparound, or local to this stream."""
        last = line.last or 0.0
        others = [other for other in self.lines.values() if other is not line and other.last is not None]
        now = max((other.end for other in others), default=line.end)
        if line.offset != self.offset and abs(time + self.offset - now) < DISCONTINUITY / 2:
            line.offset = self.offset  # the other streams have made this jump before
            line.joints.append(time + line.offset)
        elif line.jumps(last, time, self.forward):
            starts, ends = self._seam(packet, line, others)
            if not starts:
                self._follow_alone(line, time)
                return
            self._start_part(line, time, self._offset_of_part(starts, ends))

    def _follow_alone(self, line: Line, time: float) -> None:
        """A jump that the other streams do not make: small overlaps stay, to keep synchronization."""
        if line.jumps((line.last or 0.0) - OVERLAP, time, float("inf")):
            line.offset = line.end - time
            if line is self.own:
                self.remarks[REBASED] += 1

    def _seam(self, packet: "Packet", line: Line, others: list[Line]) -> tuple[dict[int, float], dict[int, float]]:
        """For each stream, by index, the raw time at which the new part starts, empty if the others continue as before;
        and the end of the old part on the common clock."""
        starts = {line.stream.index: line.shown(packet)}
        ends = {one.stream.index: one.end for one in [line, *others]}
        latest = {other.stream.index: other.last or 0.0 for other in others}
        time = begin = line.raw_time(packet) or 0.0
        goes_on = False
        for ahead in self._look_ahead():
            index, other = ahead.stream.index, self.lines[ahead.stream.index]
            stamp = other.raw_time(ahead)
            if stamp is None:
                continue
            if index in starts:
                starts[index] = min(starts[index], other.shown(ahead))
                time = stamp if other is line else time
            elif index in latest:
                if other.jumps(latest[index], stamp, self.forward):
                    starts[index] = other.shown(ahead)
                else:
                    goes_on, ends[index] = True, max(ends[index], other.end_of(ahead))
                latest[index] = stamp
            if not begin - JITTER <= time <= begin + SETTLED:
                break
        return ({}, ends) if goes_on and len(starts) == 1 else (starts, ends)

    def _offset_of_part(self, starts: dict[int, float], ends: dict[int, float]) -> float:
        """The offset of the new part: after all of the old one; pictures follow at once if sound overlaps a little."""
        behind = max(ends.values()) - min(starts.values())
        for index, start in starts.items():
            if self.lines[index].stream.type == "video" and index in ends:
                seamless = ends[index] - start
                return seamless if 0 <= behind - seamless <= SEAM else behind
        return behind

    def _look_ahead(self) -> "Iterator[Packet]":
        """The packets to come."""
        i = 0
        while i < MAX_LOOKAHEAD:
            if i == len(self._ahead):
                packet = next(self._packets, None)
                if packet is None:
                    return
                self._ahead.append(packet)
            yield self._ahead[i]
            i += 1

    def _later(self, line: Line) -> Iterator[float]:
        """Raw times of the packets of a stream to come."""
        for packet in self._look_ahead():
            if packet.stream.index == line.stream.index:
                time = line.raw_time(packet)
                if time is not None:
                    yield time

    def _times_ahead(self, line: Line, count: int) -> list[float]:
        return [time for time, _ in zip(self._later(line), range(count), strict=False)]


def may_jump(container: "InputContainer") -> bool:
    """Whether the format of an open file allows jumps of its clock."""
    from av.format import Flags

    flag: Any = Flags.ts_discont
    return bool(container.format.flags & flag.value)


def _returns(last: float, time: float, followers: list[float]) -> bool:
    """Whether packets after a jump continue from before it, so that only single timestamps are wrong."""
    if time > last:
        return any(last < follower < time - JITTER for follower in followers)
    return any(follower > last for follower in followers)


def _is_far(packet: "Packet", line: Line) -> bool:
    """Whether a frame is shown much earlier or later than it is decoded."""
    if packet.pts is None or packet.dts is None:
        return False
    ahead = line.seconds(packet.pts - packet.dts)
    return not -DISCONTINUITY < ahead < max(DISCONTINUITY, MAX_REORDERED * line.step)


def _shown_copy(packet: "Packet") -> "Packet":
    """A packet without the discard mark that FFmpeg sets on fragments with restarted timestamps."""
    import av

    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base, copy.duration = packet.stream, packet.time_base, packet.duration
    copy.pts, copy.dts, copy.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
    return copy


def seconds(ticks: int | None, time_base: Fraction | None) -> float:
    """Exactly float(ticks * time_base); Fraction arithmetic took an eighth of the time of preparing a clip."""
    return ticks * time_base.numerator / time_base.denominator if ticks and time_base else 0.0
