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
