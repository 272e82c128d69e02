"""Decoding: times, rotation, levels, and damaged files."""

import struct

import av
import numpy as np
import pytest
from helpers.media_files import clock, read_clock, voice, write_rotation, write_video, write_wav

from shared.media.decode import MediaError, _Part, decode, decode_windows
from shared.media.remarks import problem_lines
from shared.media.tracks import no_frames
from shared.media.waveform import resample, to_channels


def test_frames_are_selected_by_their_timestamps(tmp_path):
    """25 frames per second, then 5, then a gap: selection by index would be seconds off."""
    times = np.concatenate([np.arange(0, 2, 1 / 25), np.arange(2, 4, 0.2), [4.6, 4.64]])
    media = decode(write_video(tmp_path / "vfr.mp4", clock(times), times), 10, 20)
    np.testing.assert_allclose(media.frame_times, np.arange(len(media.frame_times)) / 10, atol=1e-6)
    assert len(media.frame_times) == 47  # up to 4.64 s plus 40 ms for the last frame
    held = [times[times <= k / 10 + 1e-9][-1] for k in range(47)]  # the last one at or before each time
    np.testing.assert_allclose(read_clock(media.frames), held, atol=0.011)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_containers_agree_and_sound_stays_in_sync(tmp_path, suffix):
    """A click at 1 s stays at 1 s, whatever padding the container adds."""
    times = np.arange(0, 2, 1 / 25)
    sound = np.zeros((1, 96000), np.float32)
    sound[0, 48000:48480] = 0.8 * np.sin(np.arange(480) * 0.3)
    codec = "libvpx" if suffix == ".webm" else "libx264"
    media = decode(write_video(tmp_path / f"a{suffix}", clock(times), sound=sound, rate=48000, codec=codec), 8, 20)
    np.testing.assert_allclose(media.frame_times, np.arange(16) / 8, atol=1e-6)
    assert np.abs(read_clock(media.frames) - media.frame_times).max() <= 0.04
    start = np.flatnonzero(np.abs(media.waveform) > 0.3)[0] / media.sample_rate
    assert abs(start - 1.0) < 0.01 and abs(media.duration - 2) < 0.06


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:20, :30] = (250, 20, 20)  # red at the top left
    path = write_video(tmp_path / "phone.mp4", np.repeat(picture[None], 5, axis=0))
    with av.open(str(write_rotation(path, degrees))) as container:
        assert next(container.decode(video=0)).rotation % 360 == degrees
    frame = decode(path, 5, 20).frames[0]
    expected = np.rot90(picture, degrees // 90)
    assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).mean() < 6


def test_pixel_aspect_is_applied(tmp_path):
    path = write_video(tmp_path / "wide.mkv", clock(np.arange(5) / 25), pixel_shape=2)
    media = decode(path, 8, 20)
    assert media.frames.shape[1:3] == (64, 192) and read_clock(media.frames)[0] == 0


def test_channels_are_averaged_at_their_level(tmp_path):
    left, right = voice(1.0), 0.5 * voice(1.0, seed=1)
    media = decode(write_wav(tmp_path / "stereo.wav", np.stack([left, right])), 8, 20)
    np.testing.assert_allclose(media.waveform, (left + right) / 2, atol=1 / 32768)
    same = decode(write_wav(tmp_path / "same.wav", np.stack([left, left])), 8, 20)
    assert abs(20 * np.log10(np.std(same.waveform) / np.std(left))) < 0.01  # not the 3 dB of a downmix


def test_resampling_keeps_level_and_duration():
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    out = resample(tone, 44100, 16000)
    assert len(out) == 16000 and abs(out[2000:14000].std() / tone.std() - 1) < 1e-3
    assert resample(np.zeros(0, np.float32), 0, 16000).shape == (0,)


@pytest.mark.parametrize(
    ("samples", "packed"),
    [
        (np.array([[0, 128], [255, 128]], np.uint8), False),
        (np.array([[-32768, 0], [32512, 0]], np.int16), False),
        (np.array([[-32768, 32512, 0, 0]], np.int16), True),
        (np.array([[-(2**31), 2130706432, 0, 0]], np.int32), True),
        (np.array([[-1.0, 0.9921875, 0, 0]], np.float64), True),
    ],
)
def test_sample_formats_are_scaled(samples, packed):
    np.testing.assert_allclose(to_channels(samples, packed, 2).mean(axis=0), [-1 / 256, 0], atol=1e-7)


def test_missing_modality_is_empty(tmp_path):
    picture = decode(write_video(tmp_path / "silent.mp4", clock(np.arange(25) / 25)), 8, 20)
    assert picture.frames.shape == (8, 64, 96, 3) and picture.waveform.shape == (0,) and picture.sample_rate == 0
    sound = decode(write_video(tmp_path / "sound.mp4", None, sound=voice(1.0)[None]), 8, 20)
    assert len(sound.frames) == len(sound.frame_times) == 0 and abs(len(sound.waveform) / 16000 - 1) < 0.1
    one = decode(write_video(tmp_path / "one.mp4", clock(np.zeros(1))), 8, 20)
    assert len(one.frames) == 1 and one.frame_times.tolist() == [0]
    short = decode(write_video(tmp_path / "short.mp4", clock(np.arange(2) / 25), sound=voice(0.064)[None]), 8, 20)
    assert len(short.frames) == 1 and len(short.waveform) > 0


def test_cover_picture_is_not_a_video(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("mp3", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(clock(np.zeros(1), 64, 64)[0], format="rgb24")))
        container.mux(cover.encode())
        block = av.AudioFrame.from_ndarray(voice(1.0)[None], format="fltp", layout="mono")
        block.sample_rate = 16000
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # the cover
    media = decode(path, 8, 20)
    assert len(media.frames) == 0 and len(media.waveform) > 15000
    assert media.absence_reasons == {"vision": "no moving pictures, only a cover"}


def test_long_file_is_cut_and_large_frames_are_scaled_down(tmp_path):
    times = np.arange(0, 6, 0.1)
    frames = clock(times, 128, 256)
    media = decode(write_video(tmp_path / "long.mp4", frames, times, sound=voice(6)[None]), 4, 2.0, max_side=64)
    assert media.frames.shape == (8, 32, 64, 3) and len(media.waveform) == 32000 and media.duration == 2.0


def test_undamaged_parts_of_damaged_files_are_decoded(tmp_path):
    times = np.arange(0, 4, 1 / 25)
    noise = np.random.default_rng(0).integers(0, 255, (len(times), 64, 96, 3)).astype(np.uint8)
    path = write_video(tmp_path / "a.mkv", noise, sound=voice(4)[None])
    whole = decode(path, 8, 20)
    data = bytearray(path.read_bytes())
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    half = decode(tmp_path / "half.mkv", 8, 20)
    assert 10 < len(half.frames) < 22 and 1.2 < len(half.waveform) / 16000 < 2.8
    np.testing.assert_array_equal(half.frames[:10], whole.frames[:10])
    np.testing.assert_array_equal(half.frame_times[:10], whole.frame_times[:10])

    rng = np.random.default_rng(1)
    for place in rng.integers(len(data) // 8, len(data), 300):
        data[place] ^= int(rng.integers(1, 255))
    (tmp_path / "flipped.mkv").write_bytes(data)
    flipped = decode(tmp_path / "flipped.mkv", 8, 20)
    assert flipped.damaged_packets > 0 and len(flipped.frames) > 4 and np.isfinite(flipped.waveform).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"hello world", "not a readable"), (bytes(5000), "not a readable"), (None, "no such file")],
)
def test_unreadable_file_has_a_reason_of_one_line(tmp_path, content, words):
    path = tmp_path / "-bad: file.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        decode(path, 8, 20)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_file_without_its_index_is_unreadable(tmp_path):
    path = write_video(tmp_path / "a.mp4", clock(np.arange(50) / 25))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError):
        decode(path, 8, 20)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("ten_bit.mp4", "libx264", "yuv420p10le"),
        ("full_color.mp4", "libx264", "yuv444p"),
        ("hevc.mp4", "libx265", "yuv420p"),
        ("hevc_ten_bit.mkv", "libx265", "yuv420p10le"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("av1.mp4", "libsvtav1", "yuv420p"),
        ("av1_ten_bit.webm", "libsvtav1", "yuv420p10le"),
        ("one.mpg", "mpeg1video", "yuv420p"),
        ("two.ts", "mpeg2video", "yuv420p"),
        ("four.avi", "mpeg4", "yuv420p"),
        ("motion.avi", "mjpeg", "yuvj420p"),
        ("prores.mov", "prores_ks", "yuv422p10le"),
    ],
)
def test_codecs_are_decoded(tmp_path, name, codec, pixels):
    path = write_video(tmp_path / name, clock(np.arange(20) / 25, 128, 192), codec=codec, pixels=pixels)
    media = decode(path, 5, 20)
    assert media.frames.shape == (4, 128, 192, 3) and media.damaged_packets == 0
    assert np.abs(read_clock(media.frames) - np.arange(4) / 5).max() <= 0.021
    gray = media.frames[0].astype(int)
    assert np.abs(gray - gray.mean(axis=-1, keepdims=True)).max() <= 12 and np.abs(gray - 40).mean() < 8


def test_claimed_frame_rate_is_ignored(tmp_path):
    """A fifth of the files of Hume-Vidmimic2 claim 1000 frames per second, the time base of WebM."""
    times = np.arange(0, 2, 1 / 25)
    path = write_video(tmp_path / "webm.mkv", clock(times), times, claims=1000)
    with av.open(str(path)) as container:
        assert container.streams.video[0].guessed_rate >= 500 or container.streams.video[0].average_rate >= 500
    media = decode(path, 8, 20)
    late = media.frame_times - read_clock(media.frames)
    assert len(media.frames) == 16 and late.min() >= -1e-6 and late.max() < 0.04


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000, 192000])
def test_sample_rates_are_kept(tmp_path, rate):
    tone = (0.5 * np.sin(2 * np.pi * 300 * np.arange(rate // 2) / rate)).astype(np.float32)
    media = decode(write_wav(tmp_path / "tone.wav", tone[None], rate), 8, 20)
    sound = resample(media.waveform, media.sample_rate, 16000)
    assert media.sample_rate == rate and abs(len(sound) - 8000) <= 1
    wanted = 0.5 * np.sin(2 * np.pi * 300 * np.arange(len(sound)) / 16000)
    assert np.abs(sound - wanted)[800:-800].max() < 0.01


def test_six_channels_are_averaged(tmp_path):
    tones = [0.3 * np.sin(2 * np.pi * (200 + 90 * k) * np.arange(24000) / 48000) for k in range(6)]
    path = write_video(tmp_path / "five_one.mkv", None, sound=np.stack(tones).astype(np.float32), rate=48000)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.nb_channels == 6
    sound = decode(path, 8, 20).waveform[4800:19200]
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    peaks = power[
        [round((200 + 90 * k) * len(sound) / 48000) for k in (0, 1, 2, 4, 5)]
    ]  # without the low-frequency channel
    assert peaks.max() / peaks.min() < 1.5  # equally loud
    assert sound.std() < 0.3 * np.sqrt(6 / 2) / 6 * 1.3  # a mean, not a sum


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_late_sound_starts_late(tmp_path, suffix):
    click = np.zeros((1, 24000), np.float32)
    click[0, 12000:12240] = 0.8 * np.sin(np.arange(240) * 0.3)  # half a second into the sound
    path = write_video(tmp_path / f"late{suffix}", clock(np.arange(50) / 25), sound=click, rate=24000, sound_from=0.7)
    media = decode(path, 8, 20)
    start = np.flatnonzero(np.abs(media.waveform) > 0.3)[0] / media.sample_rate
    assert abs(start - 1.2) < 0.01 and not media.waveform[: round(0.6 * 24000)].any()
    assert read_clock(media.frames)[0] == 0 and media.frame_times[0] == 0


def test_missing_modality_has_a_reason(tmp_path):
    silent = decode(write_video(tmp_path / "silent.mp4", clock(np.arange(5) / 25)), 8, 20)
    assert silent.absence_reasons == {"audio": "no audio track"}
    sound = decode(write_wav(tmp_path / "sound.wav", voice(1.0)[None]), 8, 20)
    assert sound.absence_reasons == {"vision": "no video track"}
    ends = write_video(tmp_path / "ends.mkv", clock(np.arange(25) / 25), sound=voice(3.0)[None], sound_from=1.5)
    why = [part.absence_reasons for part in decode_windows(ends, 8, 1.0)]
    assert why[0] == {} and why[2:4] == [{"vision": "the video track has ended"}] * 2
    assert decode(ends, 0, 20).absence_reasons == {"vision": "frames were not requested"}


@pytest.mark.parametrize("name", ["-rf.mp4", "two words: a.mp4", "Käse und 顔.mp4", "%d%03d.mp4", "a'b\"c#d?.mp4"])
def test_unusual_file_names_and_links_are_decoded(tmp_path, name):
    path = write_video(tmp_path / "plain.mp4", clock(np.arange(5) / 25)).rename(tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(path)
    for found in (path, tmp_path / "link.mp4"):
        assert len(decode(found, 8, 20).frames) == 2


def test_windows_add_up_to_the_whole_file(tmp_path):
    """For a file with irregular frame times, and sound that starts late and has a gap."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.3, 40))
    times -= times[0]
    path = write_video(tmp_path / "odd.mkv", clock(times), times, sound=voice(3.3)[None], sound_from=1.6)
    whole = decode(path, 10, 60)
    parts = list(decode_windows(path, 10, 1.0))
    assert [part.start for part in parts] == list(range(len(parts))) and len(parts) == int(whole.duration) + 1
    np.testing.assert_array_equal(np.concatenate([part.frames for part in parts if len(part.frames)]), whole.frames)
    placed = np.concatenate([part.frame_times + part.start for part in parts])
    np.testing.assert_allclose(placed, whole.frame_times, atol=1e-5)
    assert all((part.frame_times < 1).all() and part.duration <= 1 for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.waveform for part in parts]), whole.waveform)
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False] and not whole.more
    assert sum(part.duration for part in parts) == pytest.approx(whole.duration)


def test_recording_of_a_browser_without_a_duration_is_read_to_its_end(tmp_path):
    """MediaRecorder writes neither a duration nor an index."""
    film, sound = clock(np.arange(50) / 25), voice(2.0, 48000)[None]
    whole = write_video(tmp_path / "whole.webm", film, sound=sound, rate=48000, codec="libvpx")
    recording = tmp_path / "recording.webm"
    with av.open(str(whole)) as source, av.open(str(recording), "w", options={"live": "1"}) as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    with av.open(str(recording)) as container:
        assert container.duration is None and b"\x1cS\xbbk" not in recording.read_bytes()  # Cues
    expected, found = decode(whole, 8.0, 60), decode(recording, 8.0, 60)
    np.testing.assert_array_equal(found.frames, expected.frames)
    np.testing.assert_array_equal(found.waveform, expected.waveform)
    windows = list(decode_windows(recording, 8.0, 0.7))
    assert [window.start for window in windows] == pytest.approx([0, 0.7, 1.4])
    assert sum(len(window.frames) for window in windows) == len(expected.frames)


def test_far_timestamp_gives_no_empty_windows(tmp_path):
    times = np.r_[np.arange(30) / 25, 2e5 + np.arange(30) / 25]
    path = write_video(tmp_path / "years.mkv", clock(times % 2e5), times)
    starts = [part.start for part in decode_windows(path, 8, 20)]
    assert starts == [0, 200000]


def test_badly_interleaved_file_has_frames_and_sound_in_every_window(tmp_path):
    """All frames are stored first, then all sound."""
    together = write_video(tmp_path / "together.mkv", clock(np.arange(150) / 25), sound=voice(6)[None])
    path = tmp_path / "apart.mkv"
    options = {"max_interleave_delta": "1"}  # microseconds after which the muxer stops waiting for the other stream
    with av.open(str(together)) as source, av.open(str(path), "w", options=options) as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.stream.index):
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    with av.open(str(path)) as container:
        kinds = "".join(packet.stream.type[0] for packet in container.demux() if packet.size)
    assert kinds.index("a") >= 149, "the file is interleaved"
    parts = list(decode_windows(path, 8, 2.0))
    assert [len(part.frames) for part in parts] == [16, 16, 16] and all(not part.absence_reasons for part in parts)
    assert [round(len(part.waveform) / 16000, 1) for part in parts] == [2, 2, 2]


@pytest.mark.parametrize(
    "values, line",
    [
        ([np.nan, -np.inf], "200 samples of sound are NaN or infinite"),
        ([-16384.0, 1e30], "200 samples of sound are far beyond full scale"),
        ([-1.5, 4.1], None),  # decoders of compressed sound overshoot
    ],
)
def test_float_samples_that_are_no_sound_are_counted(tmp_path, values, line):
    sound = voice(1.0)
    sound[4000:4200] = np.repeat(np.float32(values), 100)
    data = sound.astype("<f4").tobytes()
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32) + b"data" + struct.pack("<I", len(data))
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(head + data)) + head + data)
    media = decode(tmp_path / "a.wav", 4, 10)
    assert np.isfinite(media.waveform).all() and np.abs(media.waveform).max() <= 16
    np.testing.assert_array_equal(media.waveform[:4000], sound[:4000].astype(np.float32))
    said = problem_lines(media.remarks)
    assert not said if line is None else [text.startswith(line) for text in said] == [True]
    if np.isnan(values[0]):
        assert not media.waveform[4000:4200].any()


def test_frames_are_copied_only_to_be_joined():
    frames, sound = np.ones((2, 4, 4, 3), np.uint8), np.zeros(8, np.float32)
    part = _Part(frames, np.array([0.0, 0.5]), sound, 8, True)
    rest = _Part(*no_frames(), sound[:1], 8, False)
    for joined in (part.followed_by(rest), rest.followed_by(part)):
        assert joined.frames is frames and len(joined.waveform) == 9 and joined.is_content
    twice = part.followed_by(part)
    assert twice.frames.shape == (4, 4, 4, 3) and twice.times.tolist() == [0, 0.5, 0, 0.5]
