"""A picture file to RGB: upright according to EXIF, transparent parts on black, 16 bits scaled to 8."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image


HEIC = "a HEIC picture, which cannot be read; save it as JPEG or PNG"


def decode_still(data: bytes | Path) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a picture file (JPEG, PNG, WebP, AVIF, TIFF, ...) or its bytes; the first picture of
    several. ValueError, in one line, if it cannot be read or is truncated."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            return upright_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(one_line(error, 100)) from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, OverflowError) as error:
        if not isinstance(error, Image.UnidentifiedImageError):
            raise ValueError(one_line(error, 100)) from None
        raise ValueError(HEIC if is_heic(data) else "not a readable picture") from None


def is_heic(data: bytes | Path) -> bool:
    """Whether a file is a HEIC picture, which Pillow cannot read; FFmpeg reads only one tile of it."""
    if isinstance(data, bytes):
        head = data[:12]
    else:
        with open(data, "rb") as file:
            head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def upright_rgb(image: "Image") -> np.ndarray:
    """RGB uint8 (H, W, 3) of an image opened from a file. OSError or ValueError if it cannot be read."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow would clip these at 255
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)  # (H, W)
        return np.repeat(((deep * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("a picture of float values has no known white")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))
