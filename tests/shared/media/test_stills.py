"""Picture files: upright, opaque, eight bits, or a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from shared.media.precomputed_crops import read_crops
from shared.media.stills import decode_still

CORNERS = np.zeros((64, 96, 3), np.uint8)
CORNERS[:32, :48], CORNERS[:32, 48:] = (220, 20, 20), (20, 200, 20)
CORNERS[32:, :48], CORNERS[32:, 48:] = (20, 20, 220), (235, 235, 235)
SHOWN = {
    1: CORNERS,
    2: np.fliplr(CORNERS),
    3: np.rot90(CORNERS, 2),
    4: np.flipud(CORNERS),
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS, -1),
    7: np.rot90(CORNERS, 2).transpose(1, 0, 2),
    8: np.rot90(CORNERS, 1),
}


def file_of(image: Image.Image, kind: str, orientation: int = 1) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_pictures_stand_as_exif_says(kind, orientation):
    picture = decode_still(file_of(Image.fromarray(CORNERS), kind, orientation))
    assert picture.shape == SHOWN[orientation].shape
    assert np.abs(picture.astype(int) - SHOWN[orientation]).mean() < 4


def test_face_crops_stand_as_exif_says(tmp_path):
    square = Image.fromarray(CORNERS).resize((64, 64))
    (tmp_path / "0.jpg").write_bytes(file_of(square, "JPEG", 6))
    crops = read_crops(tmp_path, None, 0.0, 10.0, 2.0, 64)
    assert np.abs(crops.frames[0].astype(int) - np.rot90(np.array(square), -1)).mean() < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_black(mode):
    image = Image.fromarray(np.dstack([np.full((8, 8, 3), 200, np.uint8), np.full((8, 8), 255, np.uint8)]))
    image.putpixel((2, 3), (250, 250, 250, 0))
    picture = decode_still(file_of(image.convert(mode), "PNG"))
    assert picture[3, 2].tolist() == [0, 0, 0] and abs(int(picture[0, 0, 0]) - 200) <= 1


def test_sixteen_bits_become_eight():
    deep = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    assert np.array_equal(decode_still(file_of(deep, "PNG"))[..., 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("damage", [b"", b"text", "cut", "flipped"])
def test_picture_that_cannot_be_read_has_a_reason(damage):
    data = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "PNG")
    if damage == "cut":
        damage = data[: len(data) // 2]
    elif damage == "flipped":
        damage = data[:100] + bytes(255 - byte for byte in data[100:200]) + data[200:]
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        decode_still(damage)


def test_heic_picture_says_what_to_do(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400))
    with pytest.raises(ValueError, match="save it as JPEG"):
        decode_still(tmp_path / "a.heic")
