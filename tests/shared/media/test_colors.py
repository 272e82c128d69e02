"""Colors and light: drawn in the planes of each format, they come back as an SDR screen shows them."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from shared.media.decode import decode
from shared.media.pictures import PictureConverter
from shared.media.remarks import Remarks, note_lines, problem_lines

COLORS = np.array(
    [[255, 255, 255], [0, 0, 0], [220, 50, 50], [50, 200, 50], [50, 50, 220], [200, 140, 110], [118, 118, 118]], float
)
LUMA = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593), "240M": (0.212, 0.087)}
"""Weights of red and blue (H.273, table 4)."""
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""ITU-R BT.2087, linear light."""
SIDE = 32


def planes(rgb: np.ndarray, matrix: str, bits: int = 8, full: bool = False) -> list[np.ndarray]:
    """Y, Cb and Cr (N,) of signals (N, 3) in [0, 1], by the definitions of H.273."""
    red, blue = LUMA[matrix]
    y = rgb @ np.array([red, 1 - red - blue, blue])
    cb, cr = (rgb[:, 2] - y) / (2 - 2 * blue), (rgb[:, 0] - y) / (2 - 2 * red)
    scale = 1 << (bits - 8)
    if full:
        top = (1 << bits) - 1
        levels = [y * top, cb * top + 128 * scale, cr * top + 128 * scale]
        return [np.clip(np.round(level), 0, top) for level in levels]
    return [np.round((16 + 219 * y) * scale), np.round((128 + 224 * cb) * scale), np.round((128 + 224 * cr) * scale)]


def frame_of(levels: list[np.ndarray], pixels: str, height: int = SIDE) -> av.VideoFrame:
    """A frame of vertical bars, SIDE pixels wide, with these levels in each plane."""
    frame = av.VideoFrame(SIDE * len(levels[0]), height, pixels)
    dtype = "<u2" if "le" in pixels else "u1"
    for plane, level in zip(frame.planes, levels, strict=False):
        row = np.repeat(level, plane.width // len(level)).astype(dtype).view(np.uint8)
        data = np.zeros((plane.height, plane.line_size), np.uint8)
        data[:, : len(row)] = row
        plane.update(data.tobytes())
    return frame


def write_frame(path: Path, frame: av.VideoFrame, **tags: int) -> Path:
    """A lossless video of one frame. tags: colorspace, color_range, color_trc, color_primaries."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def bars(frames: np.ndarray) -> np.ndarray:
    """The color in the middle of each bar, (N, 3)."""
    height, width = frames.shape[1:3]
    middles = (np.arange(len(COLORS)) * 2 + 1) * width // (2 * len(COLORS))
    return frames[0, height // 2, middles].astype(float)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p10le", "yuv444p", "yuv444p12le"])
@pytest.mark.parametrize("matrix, number", [("BT.601", 5), ("BT.601", 6), ("BT.709", 1), ("BT.2020", 9), ("240M", 7)])
@pytest.mark.parametrize("full", [False, True])
def test_colors_come_back_by_the_matrix_and_range_that_the_file_names(tmp_path, pixels, matrix, number, full):
    bits = 10 if "10" in pixels else 12 if "12" in pixels else 8
    frame = frame_of(planes(COLORS / 255, matrix, bits, full), pixels)
    path = write_frame(tmp_path / "a.mkv", frame, colorspace=number, color_range=2 if full else 1)
    for side in (480, 112):  # as it is, and scaled down
        media = decode(path, 5, 20, side)
        assert np.abs(bars(media.frames) - COLORS).max() <= 3 and not media.remarks


@pytest.mark.parametrize("height, matrix", [(240, "BT.601"), (576, "BT.601"), (720, "BT.709")])
def test_matrix_that_no_one_names_goes_by_the_size(tmp_path, height, matrix):
    path = write_frame(tmp_path / "a.mkv", frame_of(planes(COLORS / 255, matrix), "yuv444p", height))
    assert np.abs(bars(decode(path, 5, 20).frames) - COLORS).max() <= 3


@pytest.mark.parametrize("number", [3, 8, 10, 13, 14])
def test_matrix_that_is_not_supported_is_said(number):
    frame = frame_of(planes(COLORS / 255, "BT.2020" if number == 10 else "BT.601"), "yuv444p")
    frame.colorspace = number
    remarks = Remarks()
    picture = converter(remarks).convert(frame)
    assert picture is not None and np.abs(bars(picture[None]) - COLORS).max() <= 3
    (line,) = problem_lines(remarks)
    assert line.startswith(f"color matrix {number} (of H.273) is not supported")


def converter(remarks: Remarks) -> PictureConverter:
    stream = SimpleNamespace(
        codec_context=SimpleNamespace(sample_aspect_ratio=None), sample_aspect_ratio=None, metadata={}
    )
    return PictureConverter(stream, 480, remarks)  # type: ignore[arg-type]


def pq(light: np.ndarray) -> np.ndarray:
    """Signal of light in cd/m2 (SMPTE ST 2084, equation 5.2)."""
    power = (np.asarray(light) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """Signal of light in cd/m2 (N, 3) on a display of 1000 cd/m2 (BT.2100: inverse OOTF with a gamma of 1.2, OETF)."""
    display = np.asarray(light) / 1000
    luminance = np.maximum(display @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)
    scene = display * (luminance ** ((1 - 1.2) / 1.2))[:, None]
    above = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * np.maximum(scene, 0)), above)


def assert_equal_light(shown: np.ndarray, expected: np.ndarray) -> None:
    """Ten bits leave steps of some levels where it is dark beside a bright primary."""
    assert np.abs(shown - expected)[expected > 60].max() <= 3 and np.abs(shown - expected).max() <= 9


@pytest.mark.parametrize("name, transfer, encode", [("PQ", 16, pq), ("HLG", 18, hlg)])
def test_hdr_looks_like_sdr_and_diffuse_white_is_near_white(tmp_path, name, transfer, encode):
    """BT.2408: the white of SDR is at 203 cd/m2."""
    light = 203 * (COLORS / 255) ** 2.4 @ BT709_TO_BT2020.T  # (N, 3)
    frame = frame_of(planes(encode(light), "BT.2020", 10), "yuv444p10le")
    tags = {"colorspace": 9, "color_range": 1, "color_trc": transfer, "color_primaries": 9}
    media = decode(write_frame(tmp_path / "a.mkv", frame, **tags), 5, 20)
    shown = bars(media.frames)
    assert (shown[0] >= 240).all() and np.ptp(shown[0]) <= 1  # highlights need the rest
    assert_equal_light(shown[1:], COLORS[1:])
    assert note_lines(media.remarks) == [f"HDR ({name}) is tone mapped to SDR"] and not problem_lines(media.remarks)


def test_brighter_hdr_is_never_darker(tmp_path):
    light = np.repeat(np.array([100, 203, 400, 1000, 2000, 4000, 10000.0])[:, None], 3, axis=1)
    frame = frame_of(planes(pq(light), "BT.2020", 10), "yuv444p10le")
    tags = {"colorspace": 9, "color_range": 1, "color_trc": 16, "color_primaries": 9}
    shown = bars(decode(write_frame(tmp_path / "a.mkv", frame, **tags), 5, 20).frames)
    assert (np.diff(shown, axis=0) >= 0).all() and shown[-1].min() == 255


def test_wide_gamut_without_hdr_is_converted(tmp_path):
    wide = np.clip((COLORS / 255) ** 2.4 @ BT709_TO_BT2020.T, 0, 1) ** (1 / 2.4)
    frame = frame_of(planes(wide, "BT.2020", 10), "yuv444p10le")
    tags = {"colorspace": 9, "color_range": 1, "color_trc": 14, "color_primaries": 9}
    media = decode(write_frame(tmp_path / "a.mkv", frame, **tags), 5, 20)
    assert_equal_light(bars(media.frames), COLORS)
    assert not media.remarks


def test_unknown_transfer_is_shown_as_sdr(tmp_path):
    frame = frame_of(planes(COLORS / 255, "BT.709"), "yuv444p")
    path = write_frame(tmp_path / "a.mkv", frame, colorspace=1, color_range=1, color_trc=9, color_primaries=2)
    assert np.abs(bars(decode(path, 5, 20).frames) - COLORS).max() <= 3


def test_dolby_vision_without_a_standard_picture_is_gray_and_said():
    """Profile 5: its first plane is the intensity, in PQ."""
    levels = [np.round(pq(203 * (COLORS[:, 1] / 255) ** 2.4) * 1023), np.full(7, 300), np.full(7, 700)]
    frame = frame_of(levels, "yuv444p10le")
    frame.colorspace, frame.color_range = 15, 2
    remarks = Remarks()
    picture = converter(remarks).convert(frame)
    assert picture is not None and np.abs(bars(picture[None])[1:, 1] - COLORS[1:, 1]).max() <= 3
    assert problem_lines(remarks) == ["Dolby Vision without a standard picture below it: shown in gray"]


def test_transparent_parts_are_black_and_said(tmp_path):
    picture = np.zeros((SIDE, 7 * SIDE, 4), np.uint8)
    picture[..., :3] = np.repeat(COLORS, SIDE, axis=0)[None]
    picture[..., 3] = np.repeat([255, 255, 255, 128, 0, 255, 0], SIDE)[None]
    frame = av.VideoFrame.from_ndarray(picture, format="rgba")
    media = decode(write_frame(tmp_path / "a.mkv", frame.reformat(format="bgra")), 5, 20)
    expected = COLORS * np.array([1, 1, 1, 128 / 255, 0, 1, 0])[:, None]
    assert np.abs(bars(media.frames) - expected).max() <= 2
    assert note_lines(media.remarks) == ["transparent parts are shown black"]


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "gbrp10le"])
def test_gray_and_rgb_planes_are_shown_as_they_are(tmp_path, pixels):
    gray = COLORS.mean(axis=1)
    levels = {"gray": [gray], "gray10le": [gray * 1023 / 255], "gbrp10le": list(COLORS[:, [1, 2, 0]].T * 1023 / 255)}[
        pixels
    ]
    media = decode(write_frame(tmp_path / "a.mkv", frame_of([np.round(level) for level in levels], pixels)), 5, 20)
    expected = COLORS if pixels == "gbrp10le" else np.repeat(gray[:, None], 3, axis=1)
    assert np.abs(bars(media.frames) - expected).max() <= 1 and not media.remarks


def test_frame_that_cannot_be_converted_is_left_out_and_counted():
    remarks = Remarks()
    frame = frame_of(planes(COLORS / 255, "BT.601"), "yuv444p")

    class Refuses:
        def reformat(self, *args: object, **options: object) -> None:
            raise av.error.PatchWelcomeError(1, "not yet")

    pictures = converter(remarks)
    pictures.reformatter = Refuses()  # type: ignore[assignment]
    assert pictures.convert(frame) is None and pictures.convert(frame) is None
    assert problem_lines(remarks) == ["2 pictures left out: format yuv444p cannot be converted"]
