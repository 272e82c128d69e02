"""What a player shows at a time is what is shown here, in windows as at once; repairs are counted."""

import av
import numpy as np
import pytest
from helpers.media_files import clock, read_clock, voice, write_video

from shared.media.decode import Media, decode, decode_windows
from shared.media.remarks import note_lines, problem_lines


def lines(media: Media) -> str:
    return "; ".join(problem_lines(media.remarks) + note_lines(media.remarks))


def assert_windows_equal_whole(path, rate=8.0, lengths=(0.7, 1.0, 2.5)) -> Media:
    """All frames, times and samples of the windows are those of the file decoded at once, which is returned."""
    whole = decode(path, rate, 1e5)
    for seconds in lengths:
        parts = list(decode_windows(path, rate, seconds))
        if len(whole.frames):
            frames = [part.frames for part in parts if len(part.frames)]
            np.testing.assert_array_equal(np.concatenate(frames), whole.frames)
            times = np.concatenate([part.frame_times + part.start for part in parts])
            np.testing.assert_allclose(times, whole.frame_times, atol=1e-4)
        np.testing.assert_array_equal(np.concatenate([part.waveform for part in parts]), whole.waveform)
        total: dict = {}
        for part in parts:
            for remark, amount in part.remarks.items():
                total[remark] = total.get(remark, 0) + amount
        assert total == pytest.approx(dict(whole.remarks))
    return whole


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
@pytest.mark.parametrize("with_sound", [True, False])
def test_picture_is_held_until_the_next_one(tmp_path, suffix, with_sound):
    """Slides: a picture every 3 s."""
    times = np.arange(4) * 3.0
    sound = np.pad(voice(1.0, 48000), (0, 8 * 48000))[None] if with_sound else None
    codec = "libvpx" if suffix == ".webm" else "libx264"
    path = write_video(tmp_path / f"slides{suffix}", clock(times / 3), times, sound, 48000, codec=codec)
    media = assert_windows_equal_whole(path)
    np.testing.assert_allclose(media.frame_times, np.arange(80) / 8, atol=1e-6)  # the last one is shown for 1 s
    np.testing.assert_allclose(read_clock(media.frames), np.floor(media.frame_times / 3), atol=0.011)
    assert not media.remarks


@pytest.mark.parametrize("gap", [0.03, 0.4, 5.0])
def test_gap_in_the_sound_is_silent_and_said(tmp_path, gap):
    """Of two bursts, the second comes later by `gap` seconds; windows end within the gap, also just before its end."""
    path, rate = tmp_path / "gap.mkv", 16000
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for k in range(100):
            samples = np.full((1, 320), 8000 if k in (0, 50) else 0, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, round((k * 0.02 + gap * (k >= 50)) * rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    media = assert_windows_equal_whole(path, lengths=(0.35, 0.7, 1.04, 1.36))
    bursts = np.flatnonzero(np.diff(media.waveform, prepend=0) > 0.1) / rate
    kept = gap > 0.05
    np.testing.assert_allclose(bursts, [0, 1 + gap * kept], atol=0.002)
    assert ("have no sound" in lines(media)) == kept


def burst(seconds: float, at: float, rate: int) -> np.ndarray:
    """Silence with 20 ms of a tone: float32 (S,)."""
    sound, tone = np.zeros(round(seconds * rate), np.float32), np.sin(np.arange(rate // 50) * 0.3)
    sound[round(at * rate) :][: len(tone)] = 0.7 * tone
    return sound


def bursts(media: Media) -> np.ndarray:
    """Seconds at which bursts start, (N,)."""
    loud = np.flatnonzero(np.abs(media.waveform) > 0.15)
    return loud[np.diff(loud, prepend=-media.sample_rate) > 0.1 * media.sample_rate] / media.sample_rate


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.ts", "libx264"),
        ("a.ts", "mpeg2video"),
        ("a.mpg", "mpeg1video"),
        ("a.webm", "libvpx"),
        ("a.mkv", "libx264"),
        ("a.ts", None),
        ("a.opus", None),
        ("a.oga", None),
    ],
)
def test_files_joined_end_to_end_are_read_to_their_end(tmp_path, name, codec):
    """Two parts of 2 s: pictures 0 to 49 and 100 to 149, bursts at 0.5 s; both are in the same order and in sync."""
    times, parts = np.arange(50) / 25, []
    for first in (0, 100):
        pictures = None if codec is None else clock((first + np.arange(50)) / 50)
        path, sound = tmp_path / f"{first}{name}", burst(2, 0.5, 48000)[None]
        parts.append(write_video(path, pictures, times, sound, 48000, codec=codec or "").read_bytes())
    (tmp_path / name).write_bytes(b"".join(parts))
    media = decode(tmp_path / name, 25, 20)
    first_burst, second_burst = bursts(media)
    assert abs(first_burst - 0.51) < 0.02 and abs(second_burst - first_burst - 2) < 0.03
    if codec:
        numbers = np.round(read_clock(media.frames) * 50).astype(int)
        assert sorted({*numbers}) == [*range(50), *range(100, 150)] and (np.diff(numbers) >= 0).all()
        joint = media.frame_times[np.flatnonzero(numbers == 100)[0]]
        assert abs(joint - 2 - (second_burst - first_burst - 2)) < 0.042  # one frame
    assert "time stamps start again in 1 place" in lines(media) and not problem_lines(media.remarks)
