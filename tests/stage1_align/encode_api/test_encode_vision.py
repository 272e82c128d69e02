"""What `encode` of the vision tower accepts from people: frames, images, tensors, files and videos."""

import numpy as np
import pytest
import torch
from helpers.encoder_inputs import RATE, pixels, same, tone
from helpers.media_files import face, voice, write_video, write_wav
from helpers.rounding import assert_same_up_to_rounding
from PIL import Image

from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media.decode import decode
from shared.media.faces import crop_faces, load_detector, smooth, track_face


def test_every_form_of_the_same_frames_gives_the_same_embedding(model):
    frames = pixels(3, 40, 48, 3)  # (T, H, W, C)
    expected = model.vision.encode_prepared([frames])
    channels_first = frames.transpose(0, 3, 1, 2)
    alpha = np.concatenate([frames, pixels(3, 40, 48, 1, seed=1)], axis=3)
    for form in (
        frames,
        channels_first,
        torch.from_numpy(frames),
        torch.from_numpy(channels_first.copy()),
        frames.astype(np.float32) / 255,
        torch.from_numpy(frames).double() / 255,
        alpha,
        alpha.transpose(0, 3, 1, 2),
        [Image.fromarray(frame) for frame in frames],
        [Image.fromarray(frame, "RGBA") for frame in alpha],
    ):
        encoded = model.vision.encode(form)
        same(encoded, expected)
        assert encoded.times is None and encoded.rate is None and encoded.truncated.tolist() == [False]


def test_gray_and_single_images_become_one_frame(model):
    gray = pixels(40, 48)
    expected = model.vision.encode_prepared([np.repeat(gray[None, ..., None], 3, axis=3)])
    for form in (gray, gray[..., None], gray[None], gray[None, ..., None], gray[None, None], Image.fromarray(gray)):
        same(model.vision.encode(form), expected)
    image = pixels(40, 48, 3)
    expected = model.vision.encode_prepared([image[None]])
    for form in (image, image.transpose(2, 0, 1), [image], Image.fromarray(image), [Image.fromarray(image)]):
        same(model.vision.encode(form), expected)


def test_list_of_clips_gives_what_each_gives_alone(model, tmp_path):
    Image.fromarray(pixels(50, 60, 3)).save(tmp_path / "a.png")
    given = [pixels(4, 40, 40, 3), None, tmp_path / "a.png", [Image.fromarray(frame) for frame in pixels(2, 40, 40, 3)]]
    batch = model.vision.encode(given)
    for row, item in enumerate(given):
        single = model.vision.encode(item)
        steps = int(single.mask.sum())
        assert len(single.pooled) == 1 and int(batch.mask[row].sum()) == steps == (4, 0, 1, 2)[row]
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0, :steps])


def test_video_file_is_cropped_to_the_face_as_prepare_does(model, tmp_path):
    frames = np.stack([face(x=100 + 2 * i) for i in range(30)])
    video = write_video(tmp_path / "a.mp4", frames, sound=voice(1.2)[None])
    media, recipe = decode(video, 8.0, 60.0, 480), Recipe()
    faces = track_face(media.frames, recipe.face_every, load_detector("haar"))
    assert faces.detected.all()
    crops = crop_faces(media.frames, smooth(faces.boxes, 8.0), recipe.frame_size)
    encoded = model.vision.encode(video)
    same(encoded, model.vision.encode_prepared([crops]))
    np.testing.assert_array_equal(encoded.times[0].numpy(), media.frame_times)
    whole = model.vision.encode(video, crop_faces=False, frame_rate=4.0)
    same(whole, model.vision.encode_prepared([decode(video, 4.0, 60.0, 480).frames]))
    with pytest.warns(UserWarning, match="longer than max_seconds=0.5"):
        assert model.vision.encode(video, max_seconds=0.5).truncated.tolist() == [True]


def test_image_file_is_cropped_to_the_face_and_turned_upright(model, tmp_path):
    picture = face(x=110)
    Image.fromarray(picture).save(tmp_path / "a.png")
    boxes = track_face(picture[None], 1, load_detector("haar")).boxes
    same(model.vision.encode(tmp_path / "a.png"), model.vision.encode_prepared([crop_faces(picture[None], boxes, 96)]))
    same(model.vision.encode(tmp_path / "a.png", crop_faces=False), model.vision.encode(picture))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(picture))).save(tmp_path / "b.png", exif=exif)
    same(model.vision.encode(tmp_path / "b.png"), model.vision.encode(tmp_path / "a.png"))
    opened = Image.open(tmp_path / "b.png")
    same(model.vision.encode(opened), model.vision.encode(picture))
    with pytest.warns(UserWarning, match="EXIF orientation is 6; unless it was rotated, call PIL.ImageOps.exif_transp"):
        same(model.vision.encode(opened.convert("RGB")), model.vision.encode(np.rot90(picture).copy()))


def test_file_without_a_video_track_is_an_absent_clip(model, tmp_path):
    assert not model.vision.encode(write_wav(tmp_path / "a.wav", tone(RATE)[None])).mask.any()


def test_times_of_frames_are_passed_on(model):
    frames = pixels(3, 40, 40, 3)
    assert model.vision.encode(frames, times=[0.0, 0.5, 1.25]).times.tolist() == [[0.0, 0.5, 1.25]]
    batch = model.vision.encode([frames, frames[:2]], times=[None, torch.tensor([0.0, 0.5])]).times
    assert batch[0].isnan().all() and batch[1, :2].tolist() == [0.0, 0.5] and batch[1, 2].isnan()
    for times in ([0.0, 0.5], [0.0, 0.5, 0.25], [0.0, 0.5, np.nan], "now", 3):
        with pytest.raises(UserError, match="times"):
            model.vision.encode(frames, times=times)
    with pytest.raises(UserError, match="a list of 2"):
        model.vision.encode([frames, frames], times=[0.0, 0.5, 1.25])


def test_opened_image_and_its_path_are_turned_as_exif_says(model, tmp_path):
    picture = pixels(1, 40, 48, 3)[0]
    exif = Image.Exif()
    exif[0x0112] = 7  # mirrored and turned
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    expected = model.vision.encode(np.rot90(picture, 2).transpose(1, 0, 2).copy())
    same(model.vision.encode(Image.open(tmp_path / "a.png")), expected)
    same(model.vision.encode(tmp_path / "a.png", crop_faces=False), expected)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400))
    with pytest.raises(UserError, match="a HEIC picture"):
        model.vision.encode(tmp_path / "a.heic")


@pytest.mark.parametrize(
    "clip, message",
    [
        (pixels(3, 40, 3), r"shape \(3, 40, 3\).*more than one axis can be the channels"),
        (pixels(2, 3, 40, 4), "more than one axis can be the channels"),
        (pixels(8, 40, 40), r"shape \(8, 40, 40\).*no axis can be the channels"),
        (pixels(2, 40, 40, 5), "no axis can be the channels"),
        (pixels(9), r"shape \(9,\).*the shape must be \(T, H, W, C\)"),
        (pixels(2, 2, 40, 40, 3), "the shape must be"),
        (pixels(0, 40, 40, 3), "it has no pixels; give None"),
        (pixels(2, 40, 40, 3).astype(np.float32), r"values 0 to 255: float pixels lie in \[0, 1\]; convert \[0, 255\]"),
        (np.random.default_rng(0).normal(0, 1, (2, 40, 40, 3)), "leave normalization to the tower"),
        (np.full((2, 40, 40, 3), np.nan), "pixels must be finite"),
        (pixels(2, 40, 40, 3).astype(np.int64), r"int64, values 0 to 255: pixels are uint8"),
        (pixels(2, 40, 40, 3) > 9, "bool: pixels are uint8"),
        (pixels(2, 40, 40, 3) * 1j, "complex128: pixels are uint8"),
        ([pixels(40, 40, 3), pixels(40, 40, 3)], "may be one or several clips; stack them"),
        ("hello", "got str 'hello': no such file"),
        (b"png", "got bytes: a clip is"),
        (3, "got int: a clip is"),
        ([], "empty list"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "PIL image of mode F; scale its values"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))], "differ in size"),
    ],
)
def test_wrong_clip_is_refused_in_one_line(model, clip, message):
    with pytest.raises(UserError, match=f"vision.encode: .*{message}") as error:
        model.vision.encode(clip)
    assert "\n" not in str(error.value)


def test_wrong_picture_files_are_refused_in_one_line(model, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    Image.fromarray(pixels(90, 90, 3)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name, message in (("text.mp4", "not a readable media file"), ("cut.png", "not a readable image")):
        with pytest.raises(UserError, match=message) as error:
            model.vision.encode(tmp_path / name)
        assert "\n" not in str(error.value)


def test_frame_rate_beyond_any_camera_is_refused(model):
    with pytest.raises(UserError, match="at most 1000"):
        model.vision.encode("nowhere.mp4", frame_rate=1e6)


def test_pil_image_that_cannot_be_read_is_refused_in_one_line(model, tmp_path):
    Image.fromarray(pixels(90, 90, 3)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    closed = Image.open(tmp_path / "whole.png")
    closed.close()
    for image in (Image.open(tmp_path / "cut.png"), closed):
        with pytest.raises(UserError, match=r"vision\.encode: got a PIL image that cannot be read"):
            model.vision.encode(image)


def test_deep_gray_is_not_sent_to_a_conversion_that_cuts_it_off(model):
    deep = Image.fromarray(np.full((9, 9), 40000, np.uint16))
    with pytest.raises(UserError, match=r"of mode I;16; scale its values to \[0, 255\]"):
        model.vision.encode(deep)
    black_and_white = Image.fromarray(pixels(40, 40)).convert("1")
    same(model.vision.encode(black_and_white), model.vision.encode(black_and_white.convert("RGB")))
