"""What a player shows at a time is what is shown here, in windows as at once; repairs are counted."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import clock, read_clock, voice, write_video, write_wav

from shared.media import timeline
from shared.media.decode import Media, decode, decode_windows
from shared.media.remarks import note_lines, problem_lines


def lines(media: Media) -> str:
    return "; ".join(problem_lines(media.remarks) + note_lines(media.remarks))


def assert_windows_equal_whole(path, rate=8.0, lengths=(0.7, 1.0, 2.5)) -> Media:
    """All frames, times and samples of the windows are those of the file decoded at once, which is returned."""
    whole = decode(path, rate, 1000)
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


def write_fragments(path: Path, first: int) -> bytes:
    """Fragmented MP4 of 2 s: pictures from `first` on, 10 in each fragment, and a burst at 0.5 s."""
    how = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(path), "w", options=how) as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast", "g": "10"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for k, picture in enumerate(clock((first + np.arange(50)) / 50)):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            image.pts, image.time_base = k, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(burst(2, 0.5, 48000)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 48000, 0
        container.mux([*audio.encode(sound), *audio.encode()])
    return path.read_bytes()


@pytest.mark.parametrize("with_header", [True, False])
def test_fragments_whose_clock_starts_again_are_read(tmp_path, with_header):
    """Two recordings of a camera in one fragmented MP4, with the header of each or of the first alone."""
    first, second = write_fragments(tmp_path / "1.mp4", 0), write_fragments(tmp_path / "2.mp4", 100)
    (tmp_path / "a.mp4").write_bytes(first + (second if with_header else second[second.index(b"moof") - 4 :]))
    media = assert_windows_equal_whole(tmp_path / "a.mp4", 25.0)
    numbers = np.round(read_clock(media.frames) * 50).astype(int)
    assert sorted({*numbers}) == [*range(50), *range(100, 150)] and (np.diff(numbers) >= 0).all()
    np.testing.assert_allclose(bursts(media), [0.52, 2.54], atol=0.03)
    assert lines(media) == "time stamps start again in 1 place: the parts of the recording follow each other"


def test_parts_of_other_rates_follow_each_other(tmp_path):
    """Chained Ogg FLAC: the clock of the container counts samples of the first part."""
    parts = []
    for rate in (48000, 44100, 16000):
        path = write_video(tmp_path / f"{rate}.oga", None, sound=burst(2, 0.5, rate)[None], rate=rate)
        parts.append(path.read_bytes())
    (tmp_path / "all.oga").write_bytes(b"".join(parts))
    media = assert_windows_equal_whole(tmp_path / "all.oga")
    np.testing.assert_allclose(bursts(media), [0.5, 2.5, 4.5], atol=0.005)
    assert media.duration == pytest.approx(6, abs=0.01) and "start again in 2 places" in lines(media)


def test_rest_that_cannot_be_read_is_said(tmp_path):
    """FFmpeg does not read chained Ogg Vorbis whose sample rate changes."""
    for rate in (48000, 44100):
        with av.open(str(tmp_path / "part.ogg"), "w") as container:
            stream = container.add_stream("vorbis", rate=rate, layout="stereo", options={"strict": "-2"})
            sound = np.repeat(burst(1, 0.5, rate)[None], 2, axis=0)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, 0
            container.mux([*stream.encode(frame), *stream.encode()])
        with (tmp_path / "all.ogg").open("ab") as file:
            file.write((tmp_path / "part.ogg").read_bytes())
    media = decode(tmp_path / "all.ogg", 8, 20)
    assert media.duration == pytest.approx(1, abs=0.1) and not media.damaged_packets
    (line,) = problem_lines(media.remarks)
    assert line.startswith(
        "the rest is left out: a joined recording of another codec, sample rate or number of channels"
    )


def test_sound_that_begins_with_the_second_part_is_in_sync(tmp_path):
    pictures, times = clock(np.arange(50) / 25), np.arange(50) / 25
    first = write_video(tmp_path / "silent.ts", pictures, times)
    second = write_video(tmp_path / "sound.ts", pictures, times, burst(2, 0.5, 48000)[None], 48000)
    (tmp_path / "a.ts").write_bytes(first.read_bytes() + second.read_bytes())
    media = assert_windows_equal_whole(tmp_path / "a.ts")
    (start,) = bursts(media)
    assert abs(start - 2.5) < 0.03 and media.frame_times[-1] == 3.875


@pytest.mark.parametrize("name", ["a.mp4", "headless.mp4", "a.flv", "a.wav", "a.wmv"])
def test_recordings_that_no_player_reads_are_said(tmp_path, name):
    path = tmp_path / name
    sound = burst(1, 0.5, 44100)[None]
    if name == "a.wav":
        write_wav(path, sound, 44100)
    else:
        codec = "wmv2" if name == "a.wmv" else "libx264"
        write_video(path, clock(np.arange(25) / 25), sound=sound, rate=44100, codec=codec)
    assert not decode(path, 8, 20).remarks
    data = path.read_bytes()
    again = data[int.from_bytes(data[:4], "big") :] if name == "headless.mp4" else data
    path.write_bytes(data + again * 2)
    for source in (path, path.read_bytes()):
        media = decode(source, 8, 20)
        assert media.duration < 1.2 and "2 more recordings" in problem_lines(media.remarks)[0]


def patch_flv(data: bytes, change) -> bytes:
    """FLV with the milliseconds of its packets set by change(is_video, number, milliseconds)."""
    out, at, count = bytearray(data), 13, {8: 0, 9: 0, 18: 0}
    while at + 11 <= len(out):
        kind, size = out[at], int.from_bytes(out[at + 1 : at + 4], "big")
        if kind != 18:
            time = change(kind == 9, count[kind], int.from_bytes(out[at + 4 : at + 7], "big"))
            out[at + 4 : at + 7], out[at + 7] = (time & 0xFFFFFF).to_bytes(3, "big"), time >> 24
        count[kind] += 1
        at += 15 + size
    return bytes(out)


@pytest.fixture(scope="module")
def flv(tmp_path_factory):
    """50 pictures, and a burst at 0.5 s."""
    path = tmp_path_factory.mktemp("flv") / "a.flv"
    sound = burst(2, 0.5, 44100)[None]
    return write_video(path, clock(np.arange(50) / 50), np.arange(50) / 25, sound, 44100).read_bytes()


HOURS = 18_000_000
REPAIRED, AGAIN, ALONE = "wrong or stuck time stamp", "time stamps start again in 1 place", "one track jump in 1 place"


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (lambda video, k, t: t, ""),
        (lambda video, k, t: t + HOURS, ""),
        (lambda video, k, t: t + HOURS if video and k == 20 else t, REPAIRED),
        (lambda video, k, t: t + HOURS if not video and k == 40 else t, REPAIRED),
        (lambda video, k, t: t + HOURS if k == 1 else t, REPAIRED),
        (lambda video, k, t: t + HOURS if video and k == 50 else t, REPAIRED),
        (lambda video, k, t: 0 if k == 20 else t, REPAIRED),
        (lambda video, k, t: 0, REPAIRED),
        (lambda video, k, t: 0 if video else t, REPAIRED),
        (lambda video, k, t: t if video else 0, REPAIRED),
        (lambda video, k, t: t // 1000 * 1000, REPAIRED),
        (lambda video, k, t: t if t < 1000 else t - 1000, AGAIN),
        (lambda video, k, t: t if t < 1000 or video else t - 1000, ALONE),
        (lambda video, k, t: t if t < 1000 or not video else t - 1000, ALONE),
    ],
    ids=lambda value: None if callable(value) else value[:12].replace(" ", "-"),
)
def test_order_of_the_recording_stands_for_wrong_time_stamps(flv, tmp_path, change, remark):
    path = tmp_path / "a.flv"
    path.write_bytes(patch_flv(flv, change))
    media = assert_windows_equal_whole(path, 25.0, (0.7,))
    numbers = np.round(read_clock(media.frames) * 50).astype(int)
    assert numbers[0] == 0 and numbers[-1] == 49 and abs(len(numbers) - 50) <= 1
    assert np.abs(numbers - media.frame_times * 25).max() < 1.6  # FLV rounds, and starts with the sound
    np.testing.assert_allclose(bursts(media), [0.523], atol=0.002)
    assert (remark in lines(media)) if remark else not media.remarks


def test_break_of_hours_is_left_out(flv, tmp_path):
    path = tmp_path / "a.flv"
    path.write_bytes(patch_flv(flv, lambda video, k, t: t if t < 1000 else t + HOURS))
    first, second = decode_windows(path, 8, 10)
    assert [first.start, second.start] == [0, 18000] and first.duration == pytest.approx(1, abs=0.1)
    assert len(first.waveform) / 44100 == pytest.approx(1, abs=0.05) and "pauses for 18000 s" in lines(first)
    assert np.round(read_clock(second.frames)[-1] * 50) > 40


@pytest.mark.parametrize("base", [Fraction(1, 90000), Fraction(1, 12800), Fraction(1001, 30000), Fraction(1, 44100)])
def test_times_are_those_of_exact_fractions_to_the_bit(base):
    for ticks in (0, 1, -7, 1024, 123457, 2**33 - 1, -(2**40) - 3, 2**62 + 1):
        assert timeline.seconds(ticks, base) == float(ticks * base)
    assert timeline.seconds(None, base) == timeline.seconds(5, None) == 0.0
