"""Small media files for tests."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from shared.dataset.clip import ClipSource
from shared.dataset.clip_dataset import ClipSample, decode_row
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.prepare_dataset import describe
from shared.dataset.recipe import Recipe
from shared.dataset.verdicts import Verdict

TICK = Fraction(1, 1000)


def write_video(
    path: Path,
    frames: np.ndarray | None,
    times: np.ndarray | None = None,
    sound: np.ndarray | None = None,
    rate: int = 16000,
    codec: str = "libx264",
    crf: int = 10,
    pixel_shape: int = 1,
    pixels: str = "yuv420p",
    sound_from: float = 0.0,
    claims: int = 25,
) -> Path:
    """Write frames RGB uint8 (T, H, W, 3) at times (T,) in seconds (by default 25 per second), and sound (channels, S)
    from `sound_from` seconds on. claims: frames per second that the header claims."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames is not None:
            times = np.arange(len(frames)) / 25 if times is None else times
            best = {"crf": str(crf), "preset": "ultrafast"} if codec in ("libx264", "libx265", "libvpx") else {"q": "2"}
            video = container.add_stream(codec, rate=claims, options=best)
            video.codec_context.thread_count = 1  # libvpx's threads wait busily for each other
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = pixels
            if codec not in ("mpeg1video", "mpeg2video"):  # they support only common frame rates
                video.codec_context.time_base = TICK
            video.codec_context.sample_aspect_ratio = pixel_shape
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            sound_codec = {".webm": "libopus", ".opus": "libopus", ".oga": "flac", ".mpg": "mp2"}.get(
                path.suffix, "aac"
            )
            audio = container.add_stream(sound_codec, rate=rate, layout=layout)
        if video is not None:
            for picture, time in zip(frames, times, strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(float(time) / TICK), TICK
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
            block.sample_rate, block.pts, block.time_base = rate, round(sound_from * rate), Fraction(1, rate)
            container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def write_wav(path: Path, sound: np.ndarray, rate: int = 16000) -> Path:
    """Write sound (channels, S) in [-1, 1) as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(sound))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(sound.T * 32768).astype("<i2").tobytes())
    return path


def write_rotation(path: Path, degrees: int) -> Path:
    """Write a display matrix into the track header of an MP4: players rotate it by `degrees` counterclockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + (40 if data[at] == 0 else 52)
    one = 1 << 16
    a, b, c, d = {90: (0, -one, one, 0), 180: (-one, 0, 0, -one), 270: (0, one, -one, 0)}[degrees]
    for place, value in ((0, a), (4, b), (12, c), (16, d)):
        data[matrix + place : matrix + place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))
    return path


def clock(times: np.ndarray, height: int = 64, width: int = 96) -> np.ndarray:
    """Frames that encode their time: eight gray bars hold units of 20 ms in binary. uint8 (T, H, W, 3)."""
    units = np.round(np.asarray(times) * 50).astype(int)
    bits = (units[:, None] >> np.arange(8)) & 1  # (T, 8)
    bars = np.repeat(bits, width // 8, axis=1)  # (T, W)
    return np.broadcast_to(40 + 170 * bars[:, None, :, None], (len(units), height, width, 3)).astype(np.uint8)


def read_clock(frames: np.ndarray) -> np.ndarray:
    """The times in seconds (T,) of frames from `clock`."""
    height, width = frames.shape[1:3]
    middles = (np.arange(8) * 2 + 1) * width // 16
    bits = frames[:, height // 2][:, middles].mean(axis=-1) > 125  # (T, 8)
    return (bits << np.arange(8)).sum(axis=1) / 50


def decode_every_frame(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """RGB uint8 (T, H, W, 3) and the seconds (T,) of all frames of a video."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="bgr24")[..., ::-1], frame.time) for frame in container.decode(video=0)]
    return np.stack([frame for frame, _ in frames]), np.array([time for _, time in frames])


def face(
    height: int = 240, width: int = 320, x: float = 160, y: float = 120, side: float = 110, mouth: float = 0.3
) -> np.ndarray:
    """A drawn face that the cascade detects. RGB uint8 (H, W, 3)."""
    import cv2

    picture = np.full((height, width, 3), (120, 150, 170), np.uint8)

    def at(dx, dy):
        return round(x + dx * side), round(y + dy * side)

    def oval(dx, dy, rx, ry, color):
        size = max(1, round(rx * side)), max(1, round(ry * side))
        cv2.ellipse(picture, at(dx, dy), size, 0, 0, 360, color, -1, cv2.LINE_AA)

    oval(0, -0.05, 0.56, 0.72, (70, 45, 30))  # hair
    oval(0, 0.05, 0.48, 0.62, (225, 180, 150))
    for sign in (-1, 1):
        oval(sign * 0.2, -0.1, 0.11, 0.06, (250, 250, 250))
        oval(sign * 0.2, -0.1, 0.05, 0.055, (40, 30, 30))
        cv2.line(picture, at(sign * 0.1, -0.22), at(sign * 0.32, -0.23), (50, 35, 25), max(2, round(0.045 * side)))
        oval(sign * 0.05, 0.17, 0.03, 0.02, (150, 100, 80))
    cv2.line(picture, at(0, -0.05), at(-0.05, 0.14), (195, 150, 120), max(1, round(0.03 * side)), cv2.LINE_AA)
    oval(0, 0.36, 0.17, 0.03 + 0.1 * mouth, (150, 50, 55))
    return picture


def voice(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Buzzing syllables with pauses over a little noise: float32 (S,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.cos(2 * np.pi * 120 * k * time + k) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None)
    return (0.08 * buzz * syllables + 0.0005 * rng.standard_normal(len(time))).astype(np.float32)


def prepared_here(source: ClipSource) -> tuple[dict[str, ClipSample | None], dict[str, Verdict]]:
    """The samples (None if failed) and verdicts of all clips of a source, prepared in this process."""
    recipe = Recipe()
    info = describe(source, recipe)
    results = {clip.id: prepare_clip(clip, recipe) for clip in source.clips}
    samples = {name: None if row is None else decode_row(row, info) for name, (row, _) in results.items()}
    return samples, {name: verdict for name, (_, verdict) in results.items()}
