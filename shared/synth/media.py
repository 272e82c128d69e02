"""Writing a clip as a media file: H.264 with AAC in mp4, VP8 with Opus in WebM, sound alone as MP3. One thread, no
dates."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VIDEO = {
    ".mp4": ("libx264", {"preset": "ultrafast", "crf": "22", "threads": "1"}),
    ".webm": (
        "libvpx",
        {"deadline": "realtime", "cpu-used": "16", "static-thresh": "50", "threads": "1", "crf": "20", "b": "800k"},
    ),
}
AUDIO = {".mp4": ("aac", {"aac_coder": "fast"}), ".webm": ("libopus", {})}
CLOCK = Fraction(1, 1000)
"""Milliseconds: WebM has no finer clock."""


def write(
    path: Path,
    frames: np.ndarray,
    times: np.ndarray,
    rate: float,
    waveform: np.ndarray | None,
    audio_rate: int,
    suffix: str = "",
) -> None:
    """Write frames RGB uint8 (T, H, W, 3) shown from times (T,) seconds on, rate: frames a second in the header.

    waveform float32 (S, channels) at audio_rate Hz, or None for a file without a sound track. H and W must be even.
    suffix: .mp4 or .webm where the path does not end in it.
    """
    suffix = suffix or path.suffix
    codec, options = VIDEO[suffix]
    file_options = {"fflags": "+bitexact"}  # no version tags and no random identifiers
    with av.open(str(path), "w", format=suffix[1:], options=file_options) as container:
        video = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000), options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = CLOCK
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        audio = None
        if waveform is not None:
            layout = "mono" if waveform.shape[1] == 1 else "stereo"
            codec, options = AUDIO[suffix]
            audio = container.add_stream(codec, rate=audio_rate, layout=layout, options=options)
            audio.codec_context.thread_count = 1
            audio.codec_context.flags |= av.codec.context.Flags.bitexact
        for picture, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(float(time) / CLOCK), CLOCK
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform.T), format="fltp", layout=layout)
            sound.sample_rate, sound.pts, sound.time_base = audio_rate, 0, Fraction(1, audio_rate)
            container.mux(audio.encode(sound))
            container.mux(audio.encode())


def write_mp3(path: Path, waveform: np.ndarray, rate: int) -> None:
    """Write float32 (S,) at `rate` Hz as a mono MP3 without tags."""
    with av.open(str(path), "w", format="mp3", options={"fflags": "+bitexact", "id3v2_version": "0"}) as container:
        audio = container.add_stream("libmp3lame", rate=rate, layout="mono", options={"b": "64k"})
        audio.codec_context.thread_count = 1
        audio.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None]), format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
