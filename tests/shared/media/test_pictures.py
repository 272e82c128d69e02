"""Pictures: orientation, size, colors and light as players show them."""

import io
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from PIL import Image

from shared.media.decode import decode, decode_windows
from shared.media.orientation import EXIF
from shared.media.pictures import PictureConverter
from shared.media.remarks import Remarks, note_lines, problem_lines

CORNERS = np.zeros((64, 96, 3), np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:] = (220, 20, 20), (20, 200, 20)
CORNERS[32:, :48], CORNERS[32:, 48:] = (20, 20, 220), (235, 235, 235)
# Where players show CORNERS by the number in EXIF, and (a, b, c, d) of the display matrix: x' = ax + cy, y' = bx + dy.
SHOWN = {
    1: (CORNERS, (1, 0, 0, 1)),
    2: (np.fliplr(CORNERS), (-1, 0, 0, 1)),
    3: (np.rot90(CORNERS, 2), (-1, 0, 0, -1)),
    4: (np.flipud(CORNERS), (1, 0, 0, -1)),
    5: (CORNERS.transpose(1, 0, 2), (0, 1, 1, 0)),
    6: (np.rot90(CORNERS, -1), (0, 1, -1, 0)),
    7: (np.rot90(CORNERS, 2).transpose(1, 0, 2), (0, -1, -1, 0)),
    8: (np.rot90(CORNERS, 1), (0, -1, 1, 0)),
}


def write_oriented(path: Path, matrix: tuple[float, ...], codec: str = "libx264", aspect: int = 1) -> Path:
    """Five pictures of CORNERS with a display matrix (a, b, c, d)."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(CORNERS, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_pictures_are_converted_without_further_threads(tmp_path):
    with av.open(str(write_oriented(tmp_path / "clip.mp4", (1, 0, 0, 1)))) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frame = next(container.decode(stream))
        converter, threads = PictureConverter(stream, 480, Remarks()), len(os.listdir("/proc/self/task"))
        assert np.abs(converter.convert(frame).astype(int) - CORNERS).mean() < 4
        assert len(os.listdir("/proc/self/task")) == threads


def differ(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures, which must have one shape."""
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("number", SHOWN)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_all_eight_orientations_are_shown_as_players_do(tmp_path, suffix, number):
    shown, matrix = SHOWN[number]
    media = decode(write_oriented(tmp_path / f"q{suffix}", matrix), 5, 20)
    assert differ(media.frames[0], shown) < 6 and not media.remarks
    assert np.array_equal(EXIF[number].apply(CORNERS), shown)


def test_pixel_aspect_is_that_of_the_picture_before_it_is_turned(tmp_path):
    frames = decode(write_oriented(tmp_path / "q.mp4", SHOWN[6][1], aspect=2), 5, 20).frames
    assert differ(frames[0], np.rot90(CORNERS.repeat(2, axis=1), -1)) < 6


@pytest.mark.parametrize("angle, number", [(30, 1), (100, 6), (200, 3)])
def test_slanted_display_matrix_is_shown_upright_with_a_remark(tmp_path, angle, number):
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    media = decode(write_oriented(tmp_path / "q.mkv", (cosine, sine, -sine, cosine)), 5, 20)
    assert differ(media.frames[0], SHOWN[number][0]) < 6
    assert problem_lines(media.remarks) == [
        f"turned by {angle} degrees clockwise: shown in the nearest upright orientation"
    ]


@pytest.mark.parametrize(
    "tag, number, remarks", [("90", 6, 0), ("-90", 8, 0), ("180", 3, 0), ("80", 6, 1), ("up", 1, 1)]
)
def test_old_rotate_tag_is_followed(tmp_path, tag, number, remarks):
    with av.open(str(tmp_path / "q.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"q": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        stream.metadata["ROTATE"] = tag
        container.mux(stream.encode(av.VideoFrame.from_ndarray(CORNERS, format="rgb24")))
        container.mux(stream.encode())
    media = decode(tmp_path / "q.mkv", 5, 20)
    assert differ(media.frames[0], SHOWN[number][0]) < 8 and len(problem_lines(media.remarks)) == remarks


def write_pictures(path: Path, jpegs: list[bytes]) -> Path:
    """A stream of JPEG files, 25 per second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index, jpeg in enumerate(jpegs):
            packet = av.Packet(jpeg)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            container.mux(packet)
    return path


def jpeg_of(picture: np.ndarray, orientation: int = 0) -> bytes:
    """A JPEG file; orientation: a number for its EXIF header, 0 for none."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, subsampling=0, **({"exif": exif} if orientation else {}))
    return file.getvalue()


def test_orientation_in_exif_changes_with_each_picture(tmp_path):
    media = decode(write_pictures(tmp_path / "q.mkv", [jpeg_of(CORNERS, number) for number in SHOWN]), 25, 20)
    assert media.frames.shape == (8, 64, 96, 3)
    for number, frame in zip(SHOWN, media.frames, strict=True):
        upright = SHOWN[number][0]
        if upright.shape[0] == 96:  # fitted into the first: 96 rows become 64, 64 columns 43
            assert not frame[:, :26].any() and not frame[:, 70:].any()
            frame, upright = frame[:, 27:69], cv2.resize(upright, (43, 64))[:, :42]
        assert differ(frame, upright) < 12, number
    assert problem_lines(media.remarks) == ["4 pictures of another size than the first, 96 x 64, fitted into it"]


def disc(height: int, width: int) -> np.ndarray:
    """A white disc whose diameter is half of the shorter side. RGB uint8 (H, W, 3)."""
    picture = np.zeros((height, width, 3), np.uint8)
    return cv2.circle(picture, (width // 2, height // 2), min(height, width) // 4, (255, 255, 255), -1)


@pytest.mark.parametrize("size, diameter", [((160, 120), 45), ((60, 80), 60), ((240, 320), 60), ((121, 160), 60)])
def test_disc_stays_a_disc_when_the_picture_changes_its_size(tmp_path, size, diameter):
    jpegs = [jpeg_of(disc(120, 160))] * 10 + [jpeg_of(disc(*size))] * 15
    path = write_pictures(tmp_path / "sizes.mkv", jpegs)
    media = decode(path, 25, 20)
    assert media.frames.shape == (25, 120, 160, 3)
    for frame, expected in ((media.frames[0], 60), (media.frames[-1], diameter)):
        bright = frame.mean(axis=2) > 128
        wide, high = np.ptp(np.flatnonzero(bright.any(axis=0))) + 1, np.ptp(np.flatnonzero(bright.any(axis=1))) + 1
        assert abs(wide - expected) <= 2 and abs(high - expected) <= 2
    expected_line = "15 pictures of another size than the first, 160 x 120, fitted into it"
    assert problem_lines(media.remarks) == [expected_line]
    windows = list(decode_windows(path, 25, 0.2))
    assert np.array_equal(np.concatenate([window.frames for window in windows]), media.frames)


def test_orientation_in_a_codec_message_is_followed_when_it_changes(tmp_path):
    """H.264 carries it as a turn and flips; the container of the second half says nothing."""
    path = tmp_path / "sei.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "8", "g": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = []
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(CORNERS, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            packets += stream.encode(frame)
        packets += stream.encode()
        for index, packet in enumerate(packets):
            flip = ":flip=horizontal" if index >= 5 else ""
            options = "display_orientation=insert:rotate=180" + flip
            for filtered in BitStreamFilterContext(f"h264_metadata={options}", stream).filter(packet):
                container.mux(filtered)
    frames = decode(path, 25, 20).frames
    assert differ(frames[0], SHOWN[3][0]) < 6 and differ(frames[-1], SHOWN[4][0]) < 6


def test_pixel_aspect_of_the_codec_changes_with_its_first_picture(tmp_path):
    """Two encodings one after the other, with frames that are decoded ahead of their time."""
    path, count = tmp_path / "aspect.ts", 15
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for part, aspect in enumerate((1, 2)):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
            encoder.time_base, encoder.sample_aspect_ratio = Fraction(1, 25), Fraction(aspect)
            encoder.options = {"x264-params": "repeat-headers=1"}
            packets = []
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(CORNERS, format="rgb24")
                frame.pts, frame.time_base = part * count + index, Fraction(1, 25)
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                container.mux(packet)
    frames = decode(path, 25, 20).frames
    rows = [int((frame.sum(axis=2) > 90).any(axis=1).sum()) for frame in frames]
    assert rows == [64] * count + [32] * count


def test_container_comes_before_the_codec_message(tmp_path):
    source = write_oriented(tmp_path / "a.mp4", SHOWN[6][1])
    with av.open(str(source)) as container, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        stream = container.streams.video[0]
        written = copy.add_stream_from_template(stream)
        turn = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=180", stream)
        for packet in container.demux(stream):
            for filtered in turn.filter(packet) if packet.size else []:
                filtered.stream = written
                copy.mux(filtered)
    assert differ(decode(tmp_path / "b.mp4", 5, 20).frames[0], SHOWN[6][0]) < 6


def test_interlaced_pictures_are_noted(tmp_path):
    with av.open(str(tmp_path / "a.mpg"), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "top": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(CORNERS, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    media = decode(tmp_path / "a.mpg", 5, 20)
    assert note_lines(media.remarks) == ["pictures are interlaced: both fields are shown at once"]
