"""Decoding: pictures at given times and sound, from one pass over a file, whatever state the file is in.

Pictures are taken by their time stamps, never by the frame rate a file claims. Rotation and pixel shape are applied.
Channels are averaged (a downmix by the resampler would add 3 dB) and the level stays as it is. A packet that cannot be
decoded is counted and left out.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LONGEST_GAP = 0.05
"""Seconds by which sound may be off its time stamp before silence is put in or sound is cut."""


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
    import av

    inside = isinstance(source, bytes)
    if not inside and not Path(source).is_file():
        raise MediaError("no such file")
    if (len(source) if inside else Path(source).stat().st_size) == 0:
        raise MediaError("the file is empty")
    try:
        container = av.open(io.BytesIO(source) if inside else f"file:{source}", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"not a readable media file ({_reason(error)})") from None
    with container:
        return _decode(container, frame_rate, max_seconds, max_side)


def _decode(container, frame_rate: float, max_seconds: float, max_side: int) -> Media:
    """Feed packets to the two tracks until both have enough."""
    import av

    tracks: dict[int, _Pictures | _Sound] = {}
    video = video_stream(container) if frame_rate else None
    audio = next(iter(container.streams.audio), None)
    if video is not None:
        tracks[video.index] = _Pictures(video, frame_rate, max_seconds, max_side)
    if audio is not None:
        tracks[audio.index] = _Sound(audio, max_seconds)
    if not tracks:
        raise MediaError("neither a picture nor a sound track")

    start = None if container.start_time is None else container.start_time / av.time_base
    damaged = 0
    for packet in _packets(container, [stream for stream in (video, audio) if stream is not None]):
        if packet is None:
            damaged += 1
            continue
        track = tracks[packet.stream.index]
        if not track.done:
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                damaged += 1
                continue
            for frame in frames:
                time = frame.time if frame.time is not None else track.expected(start or 0.0)
                start = time if start is None else start
                track.add(frame, time - start)
        if all(track.done for track in tracks.values()):
            break

    pictures = tracks[video.index].finish() if video is not None else _no_pictures()
    sound = tracks[audio.index] if audio is not None else None
    waveform, rate = sound.finish() if sound is not None else (np.zeros(0, np.float32), 0)
    frames, times, end = pictures
    if len(frames) == 0 and len(waveform) == 0:
        raise MediaError("nothing in the file can be decoded")
    end = max(end, len(waveform) / rate if rate else 0.0)
    return Media(frames, times, waveform, rate if len(waveform) else 0, min(end, max_seconds), damaged)


def _packets(container, streams) -> Iterator:
    """Packets of both streams as they lie in the file, and None for each place that cannot be read."""
    import av

    failures = 0
    while failures < 20:
        try:
            yield from container.demux(streams)
            return
        except (av.error.EOFError, StopIteration):
            return
        except (av.error.FFmpegError, ValueError):
            failures += 1
            yield None


def video_stream(container):
    """The first stream of moving pictures; a cover is none."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _no_pictures() -> tuple[np.ndarray, np.ndarray, float]:
    return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32), 0.0


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())


class _Pictures:
    """Takes decoded frames in the order they are shown and keeps, for each wanted time, the nearest one."""

    def __init__(self, stream, frame_rate: float, max_seconds: float, max_side: int):
        # One thread: clips are decoded in parallel already.
        stream.codec_context.thread_count = 1
        shape = float(stream.sample_aspect_ratio or 1)
        self.pixel_shape = shape if 0.25 <= shape <= 4 else 1.0
        self.usual_gap = float(1 / stream.average_rate) if stream.average_rate else 0.04
        self.rate, self.end, self.max_side = frame_rate, max_seconds, max_side
        self.kept: list[np.ndarray] = []
        self.times: list[float] = []
        self.last, self.last_time, self.gap, self.picture = None, -1.0, None, None
        self.next_index: int | None = None
        self.size: tuple[int, int] | None = None
        self.done = False

    def expected(self, start: float) -> float:
        """When a frame without a time stamp is shown."""
        return start + (0.0 if self.last is None else self.last_time + self.usual_gap)

    def add(self, frame, time: float) -> None:
        if self.last is None:
            # The grid begins with the first time that is nearer to this frame than one step.
            self.next_index = max(0, round(time * self.rate))
        elif time <= self.last_time:
            return
        else:
            self.gap = time - self.last_time
            self._keep_until((self.last_time + time) / 2)
        self.last, self.last_time, self.picture = frame, time, None
        self.done = self.next_index / self.rate >= self.end

    def finish(self) -> tuple[np.ndarray, np.ndarray, float]:
        """frames (T, H, W, 3), frame_times (T,), seconds at which the last picture ends."""
        if self.last is None:
            return _no_pictures()
        shown = self.last_time + min(self.gap or self.usual_gap, 1.0)
        # The last picture stays for one gap; a lone one is kept however short it is shown.
        self._keep_until(max(shown - 1e-6, self.next_index / self.rate if not self.kept else 0.0))
        if not self.kept:
            return _no_pictures()
        return np.stack(self.kept), np.array(self.times, np.float32), shown

    def _keep_until(self, time: float) -> None:
        """Let the last frame stand for the wanted times up to `time`."""
        while self.next_index / self.rate <= time and self.next_index / self.rate < self.end:
            if self.picture is None:
                self.picture = self._convert(self.last)
            self.kept.append(self.picture)
            self.times.append(self.next_index / self.rate)
            self.next_index += 1

    def _convert(self, frame) -> np.ndarray:
        """RGB uint8 (H, W, 3), upright, square pixels, no side longer than max_side."""
        if self.size is None:
            width, height = frame.width * self.pixel_shape, frame.height
            scale = min(1.0, self.max_side / max(width, height))
            self.size = max(2, round(width * scale)), max(2, round(height * scale))
        same = self.size == (frame.width, frame.height)
        scaling = {} if same else {"width": self.size[0], "height": self.size[1], "interpolation": "AREA"}
        image = frame.to_ndarray(format="rgb24", **scaling)
        turns = round((frame.rotation or 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns))


class _Sound:
    """Lays decoded sound out in time: gaps become silence, overlaps are cut, channels are averaged."""

    def __init__(self, stream, max_seconds: float):
        stream.codec_context.thread_count = 1
        self.max_seconds = max_seconds
        self.parts: list[np.ndarray] = []
        self.rates: Counter = Counter()
        self.rate, self.length = 0, 0
        self.done = False

    def expected(self, start: float) -> float:
        return start + (self.length / self.rate if self.rate else 0.0)

    def add(self, frame, time: float) -> None:
        mono = to_mono(frame.to_ndarray(), frame.format.is_packed, frame.layout.nb_channels)
        if not len(mono):
            return
        self.rate = self.rate or frame.sample_rate
        mono = resample(mono, frame.sample_rate, self.rate)
        ahead = round(time * self.rate) - self.length
        # At the very beginning every sample counts; later, clocks of container and codec may drift a little.
        if abs(ahead) > (0 if self.length == 0 else LONGEST_GAP * self.rate):
            if ahead > 0:
                self._append(np.zeros(min(ahead, self._room()), np.float32))
            else:
                mono = mono[-ahead:]
        self._append(mono[: self._room()])
        self.done = self._room() == 0

    def finish(self) -> tuple[np.ndarray, int]:
        """waveform (S,), rate in Hz."""
        waveform = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        return np.nan_to_num(waveform, posinf=1.0, neginf=-1.0), self.rate

    def _append(self, samples: np.ndarray) -> None:
        self.parts.append(samples)
        self.length += len(samples)

    def _room(self) -> int:
        return max(0, int(self.max_seconds * self.rate) - self.length)


def to_mono(samples: np.ndarray, packed: bool, channels: int) -> np.ndarray:
    """The mean of the channels, float32 (S,) in [-1, 1]. samples: (channels, S), or (1, S * channels) when packed."""
    if packed:
        samples = samples.reshape(-1, channels).T  # (channels, S)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.mean(axis=0, dtype=np.float32)
