"""The base of the vision towers, and what their `encode` accepts."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.errors import UserError
from shared.media.arrays import check_number, reject, to_array, to_frames
from shared.text import one_line
from stage1_align.towers.base import Encoded, Tower
from stage1_align.towers.inputs import existing_file, is_path, to_list, warn_repaired, warn_truncated

if TYPE_CHECKING:
    from PIL import Image

    from shared.dataset.recipe import Recipe

    Frames = str | os.PathLike | np.ndarray | torch.Tensor | Image.Image | Sequence[Image.Image] | None

ENCODE = "vision.encode"
MAX_FRAME_RATE = 1000
ORIENTATION = 0x0112
"""The EXIF tag."""
PIL_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


@dataclass
class Clip:
    """frames: RGB uint8 (T, H, W, 3). times: seconds, (T,), or None. truncated: whether the end was cut off."""

    frames: np.ndarray
    times: np.ndarray | None = None
    truncated: bool = False


ABSENT = Clip(np.zeros((0, 1, 1, 3), np.uint8))


@dataclass
class FrameReader:
    """How `encode` reads a file. size: side of the face crops, pixels."""

    frame_rate: float
    crop_faces: bool
    detector: str
    max_seconds: float
    size: int

    def read_video(self, path: Path) -> Clip:
        """RGB frames of a video file. Without a video track: an absent clip."""
        from shared.media.decode import MediaError, decode
        from shared.media.headers import read_header

        header = read_header(path)
        if not header.reason and header.frame_rate is None:
            return ABSENT
        try:
            media = decode(path, self.frame_rate, self.max_seconds, _recipe().max_side)
        except MediaError as error:
            raise UserError(f"{path}: {error}") from None
        if not len(media.frames):
            raise UserError(f"{path}: {media.absence_reasons['vision']}")
        warn_repaired(path, media)
        return Clip(self.crop(media.frames), media.frame_times, media.more)

    def crop(self, frames: np.ndarray) -> np.ndarray:
        """Face crops (T, size, size, 3) as in `emit prepare`, or the unchanged frames without crop_faces."""
        if not self.crop_faces:
            return frames
        from shared.media.faces import crop_clip, load_detector

        return crop_clip(frames, _recipe().face_every, load_detector(self.detector), self.frame_rate, self.size)[0]


class VisionTower(Tower):
    """A tower for frames. `collate` takes RGB uint8 (T, H, W, 3) arrays; T = 0 is an absent clip."""

    def crop_line(self, frame_size: int) -> str | None:
        """A line about face crops of `frame_size` pixels that this tower enlarges; None if they are large enough."""
        size = getattr(self.options, "image_size", None) or 0
        if size <= 1.25 * frame_size:
            return None
        return (
            f"warning: the vision tower reads {size} pixels, but the face crops have {frame_size}: enlarged, they lack "
            f"detail; make them with `emit prepare --frame_size {size}`"
        )

    def encode(
        self,
        clips: "Frames | Sequence[Frames]",
        times: Any = None,
        *,
        crop_faces: bool = True,
        frame_rate: float = 8.0,
        max_seconds: float = 60.0,
        detector: str = "haar",
    ) -> Encoded:
        """Embed one clip or a list of clips: a list is one batch, a single clip a batch of one.

        clips: each one of
            a path of a video or image file;
            a NumPy array or tensor: a clip (T, H, W, C) or (T, C, H, W), or one image (H, W), (H, W, C) or (C, H, W).
            C is 3 (RGB), 1 (gray, repeated) or 4 (RGBA, alpha is dropped). uint8 in [0, 255] or float in [0, 1];
            a PIL image, or a list of PIL images: the frames of one clip (a list of lists: several clips). An
            image straight from Image.open is rotated according to its EXIF data;
            None: an absent clip. So is a file without a video track.
        times: seconds of the frames of an array or of PIL images, (T,), or a list with one (T,) or None for each clip.
            They are passed on to the result; files have their own.
        crop_faces: the towers of this project are trained on face crops. True crops the face in a file as
            `emit prepare` does: it follows the largest and most persistent face, or takes the largest square in the
            middle if there is none. False uses the frames of a file unchanged. Arrays and PIL images are never cropped.
            Frames that are not square are squeezed to a square.
        frame_rate: frames per second taken from a video.
        max_seconds: a video is read up to this time. A longer one is marked in `truncated`, with a warning.
        detector: the face detector, as in `emit prepare --detector`.

        Returns an Encoded: pooled float32 (B, D), of unit length; sequence float32 (B, T, C), one step per frame;
        mask bool (B, T); rate None; times float32 (B, T) in seconds, NaN where unknown, or None if all are; truncated
        bool (B,). An absent clip has a mask of all False and a pooled vector of zeros. No gradient.

        UserError, in one line, for a missing or unreadable file and for arrays that are empty, ambiguous in shape, NaN,
        or outside the range of their dtype.

        >>> encoders.vision.encode("talk.mp4").pooled.shape
        torch.Size([1, 64])
        >>> encoders.vision.encode([frames_a, frames_b]).mask.shape  # uint8 (8, 96, 96, 3) and (5, 96, 96, 3)
        torch.Size([2, 8])
        """
        check_number(ENCODE, "frame_rate", frame_rate, MAX_FRAME_RATE)
        check_number(ENCODE, "max_seconds", max_seconds)
        if not isinstance(detector, str):
            raise reject(ENCODE, detector, "detector is a name, such as haar")
        items, is_single = _clips(clips)
        size = max(_recipe().frame_size, getattr(self.options, "image_size", None) or 0)
        reader = FrameReader(frame_rate, crop_faces, detector, max_seconds, size)
        read = [_read(item, reader) for item in items]
        if times is not None:
            _set_times(read, items, [times] if is_single else times)
        encoded = self.encode_prepared([clip.frames for clip in read])
        truncated = [clip.truncated for clip in read]
        encoded.truncated = torch.tensor(truncated)  # (B,)
        encoded.times = _padded_times(read, encoded.mask)
        warn_truncated(truncated, f"max_seconds={max_seconds:g}")
        return encoded


def _recipe() -> "Recipe":
    """The defaults of `emit prepare`."""
    from shared.dataset.recipe import Recipe

    return Recipe()


def _is_pil(item: Any) -> bool:
    from PIL import Image

    return isinstance(item, Image.Image)


def _clips(clips: Any) -> tuple[list, bool]:
    """The clips of a batch, and whether a single one was given."""
    if not isinstance(clips, (list, tuple)):
        return [clips], True
    items = to_list(ENCODE, clips)
    if all(map(_is_pil, items)):
        return [items], True
    images = [item for item in items if (array := to_array(item)) is not None and array.ndim < 4]
    if images and len(items) > 1:
        both = "stack them to (T, H, W, C) for the frames of one clip, or give each as (1, H, W, C)"
        raise reject(ENCODE, images[0], f"a list of single images may be one or several clips; {both}")
    return items, False


def _read(item: Any, reader: FrameReader) -> Clip:
    if item is None:
        return ABSENT
    if is_path(item):
        path = existing_file(ENCODE, item)
        image = _read_image(path)  # (H, W, 3)
        return reader.read_video(path) if image is None else Clip(reader.crop(image[None]))
    if _is_pil(item):
        return Clip(_pil_frame(item)[None])
    if isinstance(item, (list, tuple)) and item and all(map(_is_pil, item)):
        frames = [_pil_frame(image) for image in item]
        if len({frame.shape for frame in frames}) > 1:
            raise UserError(f"{ENCODE}: the PIL images of one clip differ in size; resize or crop them first")
        return Clip(np.stack(frames))
    if to_array(item) is None:
        raise reject(ENCODE, item, "a clip is a path, an array, a tensor, PIL images or None")
    return Clip(to_frames(ENCODE, item))


def _read_image(path: Path) -> np.ndarray | None:
    """RGB uint8 (H, W, 3) of an image file, upright; None for anything else, including animations."""
    from PIL import Image

    from shared.media.stills import HEIC, decode_still, is_heic

    try:
        with Image.open(path) as image:
            # A phone's JPEG may contain a preview or a depth map after the picture.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                return None
    except Image.UnidentifiedImageError:
        if is_heic(path):
            raise UserError(f"{path}: {HEIC}") from None
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({one_line(error, 100)})") from None
    try:
        return decode_still(path)
    except ValueError as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def _pil_frame(image: "Image.Image") -> np.ndarray:
    """RGB uint8 (H, W, 3), upright if the image comes from Image.open."""

    if image.mode not in PIL_MODES:
        is_deep = image.mode[0] in "IF"  # Pillow clips these at 255 instead of scaling them
        how = "scale its values to [0, 255] and convert it to L" if is_deep else "convert it to RGB"
        raise UserError(f"{ENCODE}: got a PIL image of mode {image.mode}; {how}")
    if 0 in image.size:
        raise UserError(f"{ENCODE}: got a PIL image of size {image.size}; give None for an absent clip")
    try:
        return np.array(_turned(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads the file only now: it may be truncated
        raise UserError(f"{ENCODE}: got a PIL image that cannot be read ({one_line(error, 100)})") from None


def _turned(image: "Image.Image") -> "Image.Image":
    """An image from a file as viewers show it. A copy, such as from convert(), may have been rotated already, so it
    only gives a warning."""
    from PIL import ImageFile, ImageOps

    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation == 1 or isinstance(image, ImageFile.ImageFile):
        return ImageOps.exif_transpose(image)
    warnings.warn(
        f"{ENCODE}: a PIL image is used unchanged, but its EXIF orientation is {orientation}; unless it was rotated, "
        "call PIL.ImageOps.exif_transpose first",
        stacklevel=2,
    )
    return image


def _set_times(read: list[Clip], items: list, times: Any) -> None:
    """Set the given times of clips that are not files. UserError if they do not fit."""
    if not isinstance(times, (list, tuple)) or len(times) != len(read):
        raise reject(ENCODE, times, f"times must be a list of {len(read)}, (T,) or None for each clip")
    for index, (clip, item, given) in enumerate(zip(read, items, times, strict=True)):
        if given is None:
            continue
        if is_path(item):
            raise reject(ENCODE, item, "a file knows the times of its frames; leave `times` out")
        array = to_array(given)
        try:
            values = np.asarray(given if array is None else array, np.float32)
        except (TypeError, ValueError):
            raise reject(ENCODE, given, "times are numbers in seconds") from None
        fits = values.shape == (len(clip.frames),) and np.isfinite(values).all() and (np.diff(values) >= 0).all()
        if not fits:
            raise reject(ENCODE, values, f"times must be {len(clip.frames)} increasing numbers, one for each frame")
        read[index] = Clip(clip.frames, values)


def _padded_times(read: list[Clip], mask: torch.Tensor) -> torch.Tensor | None:
    """float32 (B, T), NaN where unknown; None if all are."""
    if all(clip.times is None for clip in read):
        return None
    times = torch.full(mask.shape, torch.nan)  # (B, T)
    for row, clip in enumerate(read):
        if clip.times is not None and int(mask[row].sum()) == len(clip.times):
            times[row, : len(clip.times)] = torch.from_numpy(clip.times)
    return times.to(mask.device)
