"""A decoded frame to RGB as players show it: upright, with square pixels, in SDR."""

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.media.hdr import HLG, PQ, needs_conversion, to_sdr
from shared.media.orientation import frame_orientation, side_data
from shared.media.remarks import Remark, Remarks

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

ASPECTS = (0.25, 4.0)
"""Plausible pixel aspect ratios (width over height); others are header errors."""
MATRICES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
"""{AVColorSpace: name} of the matrices that swscale supports."""
RGB, UNSPECIFIED, DOLBY_IPT = 0, 2, 15
ITU709, ITU601, BT2020 = 1, 6, 9


class PictureConverter:
    """Converts the frames of one stream to pictures of one size."""

    def __init__(self, stream: "VideoStream", max_side: int, remarks: Remarks):
        """remarks: counts the decisions."""
        from av.video.reformatter import VideoReformatter

        self.max_side = max_side
        self.rotate_tag = next((value for name, value in stream.metadata.items() if name.lower() == "rotate"), None)
        self.codec = stream.codec_context
        self.stream_aspect = float(stream.sample_aspect_ratio or 0)
        self.codec_aspects = [(-math.inf, float(self.codec.sample_aspect_ratio or 0))]
        """Pixel aspects of the codec and the timestamps from which they apply."""
        self.follows_codec = self.stream_aspect == self.codec_aspects[0][1]
        """Whether the pixel aspect is from the codec, where it may change, and not from the container, which has
        priority."""
        self.size: tuple[int, int] | None = None
        """Width and height of all pictures: the displayed size of the first one."""
        self.first_size: tuple[int, int] | None = None
        """Size of the first frame before scaling."""
        self.remarks = remarks
        self.reformatter = VideoReformatter()  # a frame's own reformatter would be initialized for each frame

    def convert(self, frame: "VideoFrame") -> np.ndarray | None:
        """RGB uint8 (H, W, 3), no side longer than max_side; None, with a remark, if FFmpeg cannot convert it.

        All pictures have the size of the first one. A picture of another shape is fitted into it with black borders.
        """
        orientation, remark = frame_orientation(frame, self.rotate_tag)
        if remark:
            self.remarks[Remark(remark, is_problem=True)] = 1
        if frame.interlaced_frame:
            self.remarks[Remark("pictures are interlaced: both fields are shown at once")] = 1
        shown = orientation.turn_size(frame.width * self._pixel_aspect(frame.pts), frame.height)
        width, height = self._fit(*shown)
        from av.error import FFmpegError

        try:
            pixels = self._to_rgb(frame, *map(int, orientation.turn_size(width, height)))  # (h, w, 3)
        except (FFmpegError, OSError, ValueError):
            text = f"{{}} picture(s) left out: format {frame.format.name} cannot be converted"
            self.remarks[Remark(text, is_problem=True)] += 1
            return None
        upright = orientation.apply(pixels)
        if (width, height) == self.size:
            return np.ascontiguousarray(upright)
        assert self.size is not None
        picture = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        left, top = (self.size[0] - width) // 2, (self.size[1] - height) // 2
        picture[top : top + height, left : left + width] = upright
        return picture

    def _fit(self, width: float, height: float) -> tuple[int, int]:
        """Width and height at which a picture of this displayed size is drawn."""
        if self.size is None:
            scale = min(1.0, self.max_side / max(width, height))
            self.size = max(2, round(width * scale)), max(2, round(height * scale))
            self.first_size = round(width), round(height)
            return self.size
        if (round(width), round(height)) != self.first_size:
            first = "{} x {}".format(*self.first_size or ())
            text = f"{{}} picture(s) of another size than the first, {first}, fitted into it"
            self.remarks[Remark(text, is_problem=True)] += 1
        scale = min(self.size[0] / width, self.size[1] / height)
        # A border of less than a pixel is rounding.
        return tuple(
            side if abs(length * scale - side) < 1 else max(1, round(length * scale))
            for length, side in zip((width, height), self.size, strict=True)
        )  # type: ignore[return-value]

    def note_aspect(self, pts: int | None) -> None:
        """Remember the codec's pixel aspect after it has read the packet with this timestamp."""
        aspect = float(self.codec.sample_aspect_ratio or 0)
        if aspect != self.codec_aspects[-1][1]:
            # Frames still to come need only this aspect and the newest one before it.
            self.codec_aspects = [self.codec_aspects[-1], (-math.inf if pts is None else pts, aspect)]

    def _pixel_aspect(self, pts: int | None) -> float:
        aspect = self.stream_aspect
        if self.follows_codec:
            aspect = next(
                (value for since, value in reversed(self.codec_aspects) if pts is None or pts >= since),
                self.codec_aspects[0][1],
            )
        if aspect <= 0:
            return 1.0
        if not ASPECTS[0] <= aspect <= ASPECTS[1]:
            text = f"pixels {aspect:g} times as wide as high are implausible: taken as square"
            self.remarks[Remark(text, is_problem=True)] = 1
            return 1.0
        return aspect

    def _to_rgb(self, frame: "VideoFrame", width: int, height: int) -> np.ndarray:
        """RGB uint8 (height, width, 3), neither turned nor mirrored."""
        import cv2

        # One thread: by default each picture is sliced for several threads, which other processes delay.
        scaling: dict[str, Any] = {"threads": 1}
        if (width, height) != (frame.width, frame.height):
            scaling |= {"width": width, "height": height, "interpolation": "AREA"}
        transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
        is_dolby_ipt = _is_dolby_ipt(frame, transfer)
        self._set_matrix(frame, transfer)
        if is_dolby_ipt:
            text = "Dolby Vision without a standard picture below it: shown in gray"
            self.remarks[Remark(text, is_problem=True)] = 1
            gray = self.reformatter.reformat(frame, format="gray16le", **scaling).to_ndarray()  # (H, W)
            return to_sdr(np.repeat(gray[..., None], 3, axis=2), PQ, BT2020)
        if needs_conversion(transfer, primaries):
            if transfer in (PQ, HLG):
                self.remarks[Remark(f"HDR ({'PQ' if transfer == PQ else 'HLG'}) is tone mapped to SDR")] = 1
            deep = self.reformatter.reformat(frame, format="rgb48le", **scaling).to_ndarray()  # (H, W, 3)
            return to_sdr(deep, transfer, primaries)
        if _has_alpha(frame.format.name):
            return self._on_black(self.reformatter.reformat(frame, format="rgba", **scaling).to_ndarray())
        # To BGR first, then to RGB with OpenCV: FFmpeg's conversion to RGB takes twice as long.
        image = self.reformatter.reformat(frame, format="bgr24", **scaling).to_ndarray()  # (H, W, 3)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _set_matrix(self, frame: "VideoFrame", transfer: int) -> None:
        """Set the matrix of a frame that has none, or one that swscale does not support."""
        matrix = int(frame.colorspace)
        if matrix in MATRICES or frame.format.is_rgb or len(frame.format.components) < 3:
            return
        is_hd = frame.width >= 1280 or frame.height > 576  # what players assume
        frame.colorspace = BT2020 if transfer in (PQ, HLG) or matrix == 10 else ITU709 if is_hd else ITU601
        if matrix not in (UNSPECIFIED, RGB, DOLBY_IPT):
            name = MATRICES[int(frame.colorspace)]
            text = f"color matrix {matrix} (of H.273) is not supported: {name} is taken"
            self.remarks[Remark(text, is_problem=True)] = 1

    def _on_black(self, image: np.ndarray) -> np.ndarray:
        """RGBA (H, W, 4) to RGB (H, W, 3) on black, as players show it."""
        alpha = image[..., 3:].astype(np.uint16)  # (H, W, 1)
        if alpha.min() == 255:
            return image[..., :3]
        self.remarks[Remark("transparent parts are shown black")] = 1
        return ((image[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _is_dolby_ipt(frame: "VideoFrame", transfer: int) -> bool:
    """Whether a frame is in the color space of Dolby Vision profile 5: its other profiles name a standard transfer."""
    from av.sidedata.sidedata import Type

    if int(frame.colorspace) == DOLBY_IPT:
        return True
    types = {item.type for item in side_data(frame)}
    return transfer == UNSPECIFIED and bool(types & {Type.DOVI_METADATA, Type.DOVI_RPU_BUFFER})


@functools.cache
def _has_alpha(pixel_format: str) -> bool:
    from av.video.format import VideoFormat

    return pixel_format == "pal8" or any(component.is_alpha for component in VideoFormat(pixel_format).components)
