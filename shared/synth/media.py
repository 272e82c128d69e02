"""Writes media files: H.264 with AAC in MP4, VP8 with Opus in WebM, sound only as MP3. A single thread and no dates
keep the bytes the same everywhere."""

from fractions import Fraction
from pathlib import Path

import av
import av.audio
import av.video
import numpy as np

VIDEO: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"preset": "ultrafast", "crf": "22", "threads": "1"}),
    ".webm": (
        "libvpx",
        {"deadline": "realtime", "cpu-used": "16", "static-thresh": "50", "threads": "1", "crf": "20", "b": "800k"},
    ),
}
AUDIO: dict[str, tuple[str, dict[str, str]]] = {".mp4": ("aac", {"aac_coder": "fast"}), ".webm": ("libopus", {})}
CLOCK = Fraction(1, 1000)
"""Milliseconds, the resolution of WebM."""


def write_video(
    path: Path,
    frames: np.ndarray,
    times: np.ndarray,
    rate: float,
    channels: np.ndarray | None,
    audio_rate: int,
    suffix: str = "",
) -> None:
    """Write frames RGB uint8 (T, H, W, 3), shown from times (T,) seconds on; `rate` is the frame rate in the header.

    channels float32 (S, channels) at `audio_rate` Hz, or None for a file without a sound track. H and W must be even.
    suffix: .mp4 or .webm, if the path does not end in it.
    """
    suffix = suffix or path.suffix
    codec, options = VIDEO[suffix]
    file_options = {"fflags": "+bitexact"}  # no version tags and no random identifiers
    with av.open(str(path), "w", format=suffix[1:], options=file_options) as container:
        video = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000), options=options)
        assert isinstance(video, av.video.VideoStream)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = CLOCK
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        audio = None
        if channels is not None:
            layout = "mono" if channels.shape[1] == 1 else "stereo"
            audio = _add_audio(container, *AUDIO[suffix], audio_rate, layout)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(float(time) / CLOCK), CLOCK
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None and channels is not None:
            _encode(container, audio, channels.T, audio_rate, layout)


def write_mp3(path: Path, waveform: np.ndarray, rate: int) -> None:
    """Write float32 (S,) at `rate` Hz as a mono MP3 without tags."""
    with av.open(str(path), "w", format="mp3", options={"fflags": "+bitexact", "id3v2_version": "0"}) as container:
        audio = _add_audio(container, "libmp3lame", {"b": "64k"}, rate, "mono")
        _encode(container, audio, waveform[None], rate, "mono")


def _add_audio(
    container: av.container.OutputContainer, codec: str, options: dict[str, str], rate: int, layout: str
) -> av.audio.AudioStream:
    audio = container.add_stream(codec, rate=rate, options=options, layout=layout)
    assert isinstance(audio, av.audio.AudioStream)
    audio.codec_context.thread_count = 1
    audio.codec_context.flags |= av.codec.context.Flags.bitexact
    return audio


def _encode(
    container: av.container.OutputContainer, audio: av.audio.AudioStream, planes: np.ndarray, rate: int, layout: str
) -> None:
    """Encode float32 planes (channels, S)."""
    sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=layout)
    sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
    container.mux(audio.encode(sound))
    container.mux(audio.encode())
