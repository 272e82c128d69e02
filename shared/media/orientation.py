"""How a picture is rotated and mirrored to match what players show: one of eight orientations.

Sources, in this order: the display matrix of the frame, which FFmpeg fills from the track header of MP4 and MOV, the
projection of Matroska, the SEI messages of H.264 and HEVC, irot and imir of AVIF, and EXIF; otherwise the old tag
`rotate`.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame

MAX_SKEW = 0.03
"""Sine of the largest angle, about 2 degrees, that a display matrix may differ from the orientation without a
remark."""


class Orientation(NamedTuple):
    """Transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    """Left becomes right."""
    mirror_y: bool = False
    """Top becomes bottom."""

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Rotate and mirror a picture (H, W, C); returns a view."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        return picture[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def turn_size(self, width: float, height: float) -> tuple[float, float]:
        """Width and height after the rotation, or before it."""
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Orientation()
EXIF = {
    1: UPRIGHT,
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, mirror_x=True),
    7: Orientation(transpose=True, mirror_x=True, mirror_y=True),
    8: Orientation(transpose=True, mirror_y=True),
}
"""Orientations by their number in EXIF."""
CLOCKWISE = (EXIF[1], EXIF[6], EXIF[3], EXIF[8])
"""By quarter turns."""


def frame_orientation(frame: "VideoFrame", rotate_tag: str | None = None) -> tuple[Orientation, str]:
    """The orientation of a frame, and a remark if it is not exactly what the file specifies.

    rotate_tag: degrees clockwise from the stream's metadata; used if the frame has no display matrix.
    """
    from av.sidedata.sidedata import Type

    # The first one counts, as in av_frame_get_side_data.
    matrix = next((bytes(item) for item in side_data(frame) if item.type == Type.DISPLAYMATRIX), None)
    if matrix is not None:
        return matrix_orientation(np.frombuffer(matrix[:36], "=i4").reshape(3, 3))
    return tag_orientation(rotate_tag) if rotate_tag is not None else (UPRIGHT, "")


def side_data(frame: "VideoFrame") -> "list[SideData]":
    """The side data of a frame, in its order."""
    _accept_unknown_kinds()
    container: Any = frame.side_data  # typed as the mapping that it is too
    return list(container)


@functools.cache
def _accept_unknown_kinds() -> None:
    """PyAV raises for kinds that its FFmpeg knows but its enumeration lacks, such as EXIF: give them a name."""
    from av.sidedata.sidedata import Type

    def unknown(kinds: Any, value: int) -> Any:
        kind = object.__new__(kinds)
        kind._name_, kind._value_ = f"UNKNOWN_{value}", value
        return kind

    setattr(Type, "_missing_", classmethod(unknown))  # noqa: B010


def matrix_orientation(matrix: np.ndarray) -> tuple[Orientation, str]:
    """The nearest of the eight orientations, and a remark if it is not near. matrix: int32 (3, 3), as in libavutil:
    the pixel (x, y) is shown at x * matrix[0, :2] + y * matrix[1, :2], up to a shift."""
    (a, b), (c, d) = matrix[:2, :2].astype(np.float64) / 65536
    straight, turned = abs(a) + abs(d), abs(b) + abs(c)
    if straight == turned and not (a or b or c or d):
        return UPRIGHT, "a display matrix without meaning is ignored"
    if straight >= turned:
        orientation, kept, lost = Orientation(False, a < 0, d < 0), min(abs(a), abs(d)), max(abs(b), abs(c))
    else:
        orientation, kept, lost = Orientation(True, c < 0, b < 0), min(abs(b), abs(c)), max(abs(a), abs(d))
    if lost > MAX_SKEW * np.hypot(kept, lost):
        angle = np.degrees(np.arctan2(b, a)) % 360
        return orientation, f"turned by {angle:.0f} degrees clockwise: shown in the nearest upright orientation"
    return orientation, ""


def tag_orientation(tag: str) -> tuple[Orientation, str]:
    """The orientation of the old tag `rotate`: degrees clockwise."""
    try:
        angle = float(tag) % 360
    except (ValueError, OverflowError):
        angle = np.nan
    if not np.isfinite(angle):
        return UPRIGHT, f"the tag rotate is {tag[:20]!r}: ignored"
    turns = round(angle / 90)
    remark = "" if abs(angle - 90 * turns) < 2 else f"turned by {angle:.0f} degrees clockwise: shown in the nearest "
    return CLOCKWISE[turns % 4], remark and remark + "upright orientation"
