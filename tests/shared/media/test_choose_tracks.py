"""Which of several tracks is used, and that a file opens no other file."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from helpers.media_files import clock, read_clock, write_video

from shared.dataset.check_report import format_report
from shared.dataset.check_source import check_source
from shared.dataset.clip import Clip
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.dataset.verdicts import summary
from shared.media.decode import MediaError, decode, decode_windows
from shared.media.remarks import note_lines, problem_lines

RATE = 16000
DEFAULT, COMMENT, DEAF = Disposition.default, Disposition.comment, Disposition.hearing_impaired
NONE = Disposition(0)
CASES: list[tuple] = [
    ([(0, 2, NONE), (0.3, 2, DEFAULT)], 1, "the default"),
    ([(0.3, 2, NONE), (0.3, 2, DEFAULT)], 1, "the default"),
    ([(0, 2, DEFAULT), (0.3, 2, NONE)], 1, "the default has no content"),
    ([(0.3, 2, NONE), (0.3, 3, NONE)], 1, "the one with most content"),
    ([(0.3, 2, NONE), (0.3, 2, NONE)], 0, "the one with most content"),
    ([(0.3, 1, DEFAULT), (0.3, 3, DEFAULT)], 1, "the default with most content"),
    ([(0.3, 3, COMMENT), (0.3, 2, NONE), (0.3, 3, DEAF)], 1, "the one with most content"),
    ([(0.3, 3, COMMENT | DEFAULT), (0.3, 2, NONE)], 1, "the one with most content"),
    ([(0, 2, NONE), (0, 2, NONE)], 0, "the one with most content"),
]
"""Sounds (level, seconds, disposition), the index of the one to use, and why."""


def write_tracks(path: Path, sounds=(), videos=()) -> Path:
    """sounds: (level, seconds, disposition), tones at 300, 600, ... Hz; videos: (frames, disposition) of 25 per second,
    which show the time from 0, 1, 2, ... s on."""
    with av.open(str(path), "w") as container:
        packets = []
        for number, (frames, disposition) in enumerate(videos):
            stream = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt, stream.disposition = 96, 64, "yuv420p", disposition
            for k, picture in enumerate(clock(number + np.arange(frames) / 25)):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                packets += stream.encode(frame)
            packets += stream.encode()
        for number, (level, seconds, disposition) in enumerate(sounds):
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            stream.disposition = disposition
            tone = level * np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * 300 * (number + 1) / RATE)
            frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            packets += [*stream.encode(frame), *stream.encode()]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("suffix", "sounds", "chosen", "why"),
    # MP4 flags the first track of a kind if none is flagged.
    [(".mkv", *case) for case in CASES] + [(".mp4", *case) for case in CASES if any(s[2] & DEFAULT for s in case[0])],
)
def test_sound_track_is_the_default_with_sound_or_the_longest(tmp_path, suffix, sounds, chosen, why):
    path = write_tracks(tmp_path / f"a{suffix}", sounds, [(25, DEFAULT)])
    media = decode(path, 8, 20)
    if sounds[chosen][0]:
        power = np.abs(np.fft.rfft(media.waveform[:RATE] * np.hanning(RATE)))
        assert round(power.argmax() / 300) == chosen + 1
    assert len(media.waveform) / RATE == pytest.approx(sounds[chosen][1], abs=0.1)
    assert note_lines(media.remarks) == [f"{len(sounds)} sound tracks: number {chosen + 1} is used, {why}"]
    windows = list(decode_windows(path, 8, 0.5))
    np.testing.assert_array_equal(np.concatenate([part.waveform for part in windows]), media.waveform)
    assert [len(part.remarks) for part in windows] == [1] + [0] * (len(windows) - 1)


def test_default_picture_that_fades_in_is_used(tmp_path, monkeypatch):
    """Its first second is black."""
    black = clock(np.arange(50) / 25) * (np.arange(50) >= 25)[:, None, None, None].astype(np.uint8)
    drawn = {0.0: black, 1.0: clock(1 + np.arange(50) / 25)}
    monkeypatch.setitem(write_tracks.__globals__, "clock", lambda times: drawn[float(times[0])])
    media = decode(write_tracks(tmp_path / "a.mkv", videos=[(50, DEFAULT), (50, NONE)]), 25, 20)
    assert media.frames[0].max() < 30 and read_clock(media.frames)[-1] == pytest.approx(49 / 25, abs=0.011)
    assert note_lines(media.remarks) == ["2 video tracks: number 1 is used, the default"]


def test_default_that_speaks_late_is_used(tmp_path):
    """Silent wherever a look at a few places falls."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        packets = []
        for number, begin in enumerate((58, 0)):
            stream = container.add_stream("pcm_s16le", rate=1000, layout="mono")
            stream.disposition = NONE if number else DEFAULT
            for second in range(60):
                level = (3000 + 3000 * number) * (second >= begin)
                frame = av.AudioFrame.from_ndarray(np.full((1, 1000), level, np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 1000, 1000 * second, Fraction(1, 1000)
                packets += stream.encode(frame)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    media = decode(path, 0, 100)
    assert not media.waveform[:58000].any() and media.waveform[-1] == np.float32(3000 / 32768)
    assert note_lines(media.remarks) == ["2 sound tracks: number 1 is used, the default"]


@pytest.mark.parametrize("default", [True, False])
def test_track_without_a_decoder_is_left_out_and_said(tmp_path, default):
    path = write_tracks(tmp_path / "a.mkv", [(0.3, 2, DEFAULT if default else NONE), (0.3, 2, NONE)])
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ", 1))
    media = decode(path, 8, 20)
    power = np.abs(np.fft.rfft(media.waveform[:RATE] * np.hanning(RATE)))
    assert round(power.argmax() / 300) == 2
    said = problem_lines(media.remarks) if default else note_lines(media.remarks)
    what = "the default, " if default else ""
    assert said == [f"sound track 1 of 2 ({what}no decoder) is left out: another one is used"]


@pytest.mark.parametrize(
    ("videos", "chosen"),
    [
        ([(1, NONE), (50, DEFAULT)], 1),
        ([(1, DEFAULT), (50, NONE)], 1),
        ([(2, DEFAULT), (75, NONE)], 1),
        ([(50, NONE), (25, DEFAULT)], 1),
        ([(50, DEFAULT), (1, DEFAULT)], 0),
        ([(50, COMMENT), (25, NONE)], 1),
    ],
)
def test_video_track_is_the_default_that_is_no_preview(tmp_path, videos, chosen):
    path = write_tracks(tmp_path / "a.mkv", videos=videos)
    media = decode(path, 25, 20)
    assert len(media.frames) == videos[chosen][0] and read_clock(media.frames)[0] == chosen
    assert f"2 video tracks: number {chosen + 1} is used" in note_lines(media.remarks)[0]


def test_choice_is_said_by_prepare_and_check(tmp_path):
    write_tracks(tmp_path / "a.mkv", [(0, 1, NONE), (0.3, 1, DEFAULT)], [(25, NONE)])
    _, verdict = prepare_clip(Clip("a", tmp_path / "a.mkv"), Recipe())
    assert "2 sound tracks: number 2 is used, the default" in verdict.detail
    assert "the media of 1 clip needed a repair or a choice" in summary(tmp_path, [verdict], "")
    report = format_report(check_source(tmp_path, "folder"))
    assert "1 with several: a.mkv: 2 sound tracks: number 2 is used, the default" in report


@pytest.mark.parametrize(
    "content",
    ["ffconcat version 1.0\nfile other.mkv\n", "#EXTM3U\n#EXTINF:1,\nother.mkv\n#EXT-X-ENDLIST\n", "v=0\ns=a\nt=0 0\n"],
)
def test_list_of_files_opens_none_of_them(tmp_path, content):
    write_video(tmp_path / "other.mkv", clock(np.arange(5) / 25))
    (tmp_path / "list.mp4").write_text(content)
    for source in (tmp_path / "list.mp4", content.encode()):
        with pytest.raises(MediaError, match="not a readable media file"):
            decode(source, 8, 20)


@pytest.mark.parametrize("name", ["concat:a.mkv|a.mkv", "http://127.0.0.1:9/a.mp4", "-", "pipe:0", "file:a.mkv"])
def test_name_is_a_local_file_and_no_protocol(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", clock(np.arange(5) / 25))
    with pytest.raises(MediaError, match="no such file"):
        decode(Path(name), 8, 20)


def test_name_with_a_pattern_is_one_picture(tmp_path):
    import cv2

    for number, name in enumerate(["a%03d.png", "a000.png", "a001.png"]):
        assert cv2.imwrite(str(tmp_path / name), clock(np.array([number]))[0])
    for name, number in (("a%03d.png", 0), ("a001.png", 2)):
        media = decode(tmp_path / name, 8, 20)
        assert len(media.frames) == 1 and read_clock(media.frames)[0] == number
