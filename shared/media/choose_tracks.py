"""Which video and sound track of a file are used: the default one if it has content, otherwise the one with most."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.media.remarks import Remark, Remarks
from shared.media.waveform import to_channels

if TYPE_CHECKING:
    from av.container import InputContainer

SILENT_PEAK = 1e-3
"""Fraction of full scale: a sound track that never exceeds it is silent."""
FLAT = 2.0
"""Standard deviation of gray values (0 to 255): with less, a picture shows nothing."""
SHORT = 0.05
"""Fraction of the longest track: shorter ones are previews."""
PLACES = (0.0, 0.25, 0.5, 0.75)
"""Fractions of the duration where tracks are compared."""
PLACE_SECONDS = 10.0
PLACE_PACKETS = 2000
PLACE_PICTURES = 4
"""How much is read, and how many pictures are decoded, at each position."""
SIDE_TRACKS = (
    "comment",
    "dub",
    "lyrics",
    "karaoke",
    "hearing_impaired",
    "visual_impaired",
    "clean_effects",
    "timed_thumbnails",
    "non_diegetic",
    "captions",
    "descriptions",
    "metadata",
    "dependent",
    "still_image",
)
"""Dispositions of tracks that accompany the main one."""


@dataclass
class Choice:
    """Indices of the chosen streams; None without one."""

    video: int | None
    audio: int | None
    remarks: Remarks = field(default_factory=Remarks)
    """Whether there were several tracks to choose from."""


@dataclass
class Content:
    """The content of samples of a track."""

    seconds: float = 0.0
    """The length of the track, as stated or read."""
    peak: float = 0.0
    """Peak of the sound, as a fraction of full scale."""
    deviation: float = 0.0
    """Largest standard deviation of gray values among the decoded pictures."""
    decoded: int = 0
    """Frames that can be decoded."""
    pixels: int = 0

    def shows_something(self) -> bool:
        return self.peak > SILENT_PEAK or self.deviation > FLAT


def choose_tracks(container: "InputContainer", reopen: Callable[[], "InputContainer"]) -> Choice:
    """Choose among the tracks of an open file. With several of a kind, samples are read from a separate container."""
    videos, audios = candidates(container.streams.video), candidates(container.streams.audio)
    several = [stream.index for group in (videos, audios) if len(group) > 1 for stream in group]
    contents: dict[int, Content] = {}
    if several:
        with reopen() as probe:
            contents = _sample(probe, several)
    for index, content in contents.items():
        if content.decoded and not content.shows_something():
            with reopen() as probe:
                _read_on(probe, index, content)
    remarks = Remarks()
    for kind, streams in (("video", container.streams.video), ("sound", container.streams.audio)):
        _note_unreadable(kind, list(streams), remarks)
    video = _choose("video", videos, contents, remarks)
    return Choice(video, _choose("sound", audios, contents, remarks), remarks)


def candidates(streams: Any) -> list[Any]:
    """Streams that may be used: no covers, and none without a decoder."""
    import av

    cover = av.stream.Disposition.attached_pic
    return [stream for stream in streams if stream.codec_context is not None and not stream.disposition & cover]


def _note_unreadable(kind: str, streams: list[Any], remarks: Remarks) -> None:
    """Note which tracks have no decoder if others are read instead."""
    unread = [stream for stream in streams if stream.codec_context is None]
    if unread and len(unread) < len(streams):
        numbers = ", ".join(str(streams.index(stream) + 1) for stream in unread)
        what = "the default, " if any(_is_default(stream) for stream in unread) else ""
        text = f"{kind} track {numbers} of {len(streams)} ({what}no decoder) is left out: another one is used"
        remarks[Remark(text, is_problem=bool(what))] = 1


def _choose(kind: str, streams: list[Any], contents: dict[int, Content], remarks: Remarks) -> int | None:
    if len(streams) < 2:
        return streams[0].index if streams else None
    longest = max(contents[stream.index].seconds for stream in streams)
    shown = [stream for stream in streams if _has_content(kind, contents[stream.index], longest)]
    main = [stream for stream in shown if not _is_side_track(stream)] or shown or streams
    defaults = [stream for stream in main if _is_default(stream)]
    best = max(defaults or main, key=lambda stream: (*_amount(contents[stream.index], longest), -stream.index))
    ignored = next((stream for stream in streams if _is_default(stream) and stream not in main), None)
    if ignored is not None and ignored not in shown:
        why = "the default has no content"
    elif defaults:
        why = "the default" if len(defaults) == 1 else "the default with most content"
    else:
        why = "the one with most content"
    remarks[Remark(f"{len(streams)} {kind} tracks: number {streams.index(best) + 1} is used, {why}")] = 1
    return int(best.index)


def _has_content(kind: str, content: Content, longest: float) -> bool:
    if content.decoded == 0 or content.seconds < SHORT * longest:
        return False
    return content.shows_something() and (kind == "sound" or content.decoded > 1)


def _amount(content: Content, longest: float) -> tuple[bool, int]:
    """Larger for more content. Tracks of about the same length differ only by the size of their pictures."""
    return content.seconds >= 0.9 * longest, content.pixels


def _is_default(stream: Any) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.default)


def _is_side_track(stream: Any) -> bool:
    import av

    return any(stream.disposition & av.stream.Disposition[name] for name in SIDE_TRACKS)


def _sample(container: "InputContainer", indices: list[int]) -> dict[int, Content]:
    """Read a little of the streams at several positions."""
    import av

    contents = {index: Content() for index in indices}
    streams = [container.streams[index] for index in indices]
    for stream in streams:
        stream.codec_context.thread_count = 1
        contents[stream.index].seconds = _stated_seconds(stream)
    duration = (container.duration or 0) / av.time_base
    start = (container.start_time or 0) / av.time_base
    places = [place * duration for place in PLACES] if duration > len(PLACES) * PLACE_SECONDS else [0.0]
    for place in places:
        try:
            if place:
                container.seek(round((start + place) * av.time_base))
            _sample_place(container, streams, contents)
        except (av.error.FFmpegError, ValueError):
            continue
    return contents


def _read_on(container: "InputContainer", index: int, content: Content) -> None:
    """Read a track with silent or flat samples until it has content."""
    import av

    container.streams[index].codec_context.thread_count = 1
    try:
        for packet in container.demux(container.streams[index]):
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                continue
            for frame in frames:
                _look_at(frame, content)
            if content.shows_something():
                return
    except (av.error.FFmpegError, ValueError):
        return


def _stated_seconds(stream: Any) -> float:
    """The duration from the header; 0 if it does not say."""
    # Matroska has it in a tag; the stream's duration is then the file's.
    text = next((value for name, value in stream.metadata.items() if name.upper().startswith("DURATION")), "")
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return float((stream.duration or 0) * (stream.time_base or 0))


def _sample_place(container: "InputContainer", streams: list[Any], contents: dict[int, Content]) -> None:
    import av

    pictures = dict.fromkeys(contents, 0)
    first: dict[int, float] = {}
    for number, packet in enumerate(container.demux(streams)):
        content, index = contents[packet.stream.index], packet.stream.index
        if packet.pts is not None:
            time = float(packet.pts * (packet.time_base or 0))
            first.setdefault(index, time)
            content.seconds = max(content.seconds, time - first[index])
            if all(time > begin + PLACE_SECONDS for begin in first.values()):
                return
        if number > PLACE_PACKETS:
            return
        try:
            if packet.stream.type == "audio" or pictures[index] < PLACE_PICTURES:
                frames = packet.decode()
                pictures[index] += len(frames)
                for frame in frames:
                    _look_at(frame, content)
        except (av.error.FFmpegError, ValueError):
            continue


def _look_at(frame: Any, content: Content) -> None:
    content.decoded += 1
    if hasattr(frame, "samples"):
        channels = to_channels(frame.to_ndarray(), frame.format.is_packed, frame.layout.nb_channels)
        content.peak = max(content.peak, float(np.nan_to_num(np.abs(channels)).max(initial=0)))
    else:
        gray = frame.reformat(width=64, height=64, format="gray").to_ndarray()  # (64, 64)
        content.deviation = max(content.deviation, float(gray.std()))
        content.pixels = frame.width * frame.height
