"""What `encode` and `similarity` accept from people: files, arrays, tensors, images and texts of every usual form."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.media_files import face, voice, write_video, write_wav
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import TOWERS, encoders
from PIL import Image

from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media.decode import decode
from shared.media.faces import crop_faces, load_detector, smooth, track_face
from shared.media.waveform import resample
from stage1_align import AlignedEncoders, AudioTower, RawClip
from stage1_align.setup import text_notes
from stage1_align.towers.mel_cnn import MelCnn

RATE = 16000
AUDIO_TYPES = "float in \\[-1, 1\\], int16, int32 or uint8"


@pytest.fixture(scope="module")
def model() -> AlignedEncoders:
    return encoders(seed=1)


def same(a, b, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.sequence, b.sequence, rtol=0, atol=tolerance)
    assert torch.equal(a.mask, b.mask)


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- audio -----------------------------------------------------------------------------------------------------------


def test_sound_at_the_tower_rate_is_encoded_as_it_is(model):
    sound = voice(1.5)
    encoded = model.audio.encode(sound, rate=RATE)
    same(encoded, model.audio.encode_prepared([sound]))
    steps = encoded.mask.sum()
    torch.testing.assert_close(encoded.times[0, :steps], (torch.arange(steps) + 0.5) / encoded.rate)
    assert encoded.times.isnan().equal(~encoded.mask) and encoded.truncated.tolist() == [False]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_tone_at_another_rate_equals_the_tone_made_at_the_tower_rate(model, rate):
    expected, encoded = model.audio.encode(tone(RATE), rate=RATE), model.audio.encode(tone(rate), rate=rate)
    assert torch.nn.functional.cosine_similarity(encoded.pooled, expected.pooled) > 0.999
    unresampled = model.audio.encode(tone(rate), rate=RATE)
    assert unresampled.mask.shape != encoded.mask.shape or not torch.allclose(unresampled.pooled, encoded.pooled)


def test_channels_are_averaged_in_either_layout(model):
    stereo = np.stack([voice(1.0), voice(1.0, seed=1)[::-1]])  # (2, S)
    expected = model.audio.encode((stereo[0] + stereo[1]) / 2, rate=RATE)
    same(model.audio.encode(stereo, rate=RATE), expected)
    same(model.audio.encode(stereo.T, rate=RATE), expected)
    same(model.audio.encode(stereo[:1], rate=RATE), model.audio.encode(stereo[0], rate=RATE))
    same(model.audio.encode(stereo[1:].T, rate=RATE), model.audio.encode(stereo[1], rate=RATE))


def test_sound_in_one_channel_is_as_loud_as_alone_and_said(model, tmp_path):
    sound = voice(1.0)
    expected = model.audio.encode(sound, rate=RATE)
    with pytest.warns(UserWarning, match="audio.encode: .* only 2 has sound"):
        same(model.audio.encode(np.stack([0 * sound, sound]), rate=RATE), expected)
    write_wav(tmp_path / "one.wav", np.stack([0 * sound, sound]), RATE)
    with pytest.warns(UserWarning, match="one.wav: .* only 2 has sound"):
        same(model.audio.encode(tmp_path / "one.wav"), expected, 0.005)  # 16 bits; at half the level it is 0.1


@pytest.mark.parametrize("dtype, zero, scale", [("int16", 0, 2**15), ("int32", 0, 2**31), ("uint8", 128, 2**7)])
def test_integers_are_read_by_their_full_scale(model, dtype, zero, scale):
    samples = np.round(tone(RATE) * scale + zero).astype(dtype)
    expected = model.audio.encode(((samples.astype(np.float64) - zero) / scale).astype(np.float32), rate=RATE)
    same(model.audio.encode(samples, rate=RATE), expected, 1e-6)
    same(model.audio.encode(torch.from_numpy(samples), rate=RATE), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_float_type_are_read(model, dtype):
    sound = torch.from_numpy(tone(RATE)).to(dtype).requires_grad_()
    same(model.audio.encode(sound, rate=RATE), model.audio.encode(sound.detach().float().numpy(), rate=RATE))


def test_sound_and_video_files_know_their_rate(model, tmp_path):
    stereo = np.stack([tone(44100), tone(44100) / 2])  # (2, S)
    wav = write_wav(tmp_path / "a.wav", stereo, 44100)
    same(model.audio.encode(wav), model.audio.encode(np.round(stereo * 32768).astype(np.int16), rate=44100))
    same(model.audio.encode(str(wav)), model.audio.encode(wav))
    video = write_video(tmp_path / "a.mp4", pixels(25, 64, 64, 3), sound=voice(1.0)[None])
    media = decode(video, 0.0, 60.0)
    same(model.audio.encode(video), model.audio.encode(media.waveform, rate=media.sample_rate))


def test_list_of_sounds_gives_what_each_gives_alone(model, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(22050)[None], 22050)
    short = np.round(tone(44100, 0.3) * 32767).astype(np.int16)
    given = [voice(2.0), wav, None, short]
    batch = model.audio.encode(given, rate=[RATE, None, None, 44100])
    alone = [model.audio.encode(given[0], rate=RATE), model.audio.encode(wav), model.audio.encode(None)]
    alone.append(model.audio.encode(short, rate=44100))
    for row, single in enumerate(alone):
        steps = int(single.mask.sum())
        assert len(single.pooled) == 1 and int(batch.mask[row].sum()) == steps
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0, :steps])
    assert not batch.mask[2].any() and (batch.pooled[2] == 0).all()
    same(model.audio.encode([voice(1.0), wav], rate=RATE), model.audio.encode([voice(1.0), wav], rate=[RATE, None]))


def test_file_without_an_audio_track_is_an_absent_sound(model, tmp_path):
    silent = write_video(tmp_path / "silent.mp4", pixels(10, 64, 64, 3))
    encoded = model.audio.encode([silent, write_wav(tmp_path / "a.wav", tone(RATE)[None])])
    assert encoded.mask.any(1).tolist() == [False, True] and (encoded.pooled[0] == 0).all()


def test_long_file_is_cut_marked_and_warned_about(model, tmp_path):
    wav = write_wav(tmp_path / "a.wav", voice(3.0)[None])
    with pytest.warns(UserWarning, match="longer than max_seconds=2"):
        encoded = model.audio.encode(wav, max_seconds=2)
    assert encoded.truncated.tolist() == [True]
    same(encoded, model.audio.encode(np.round(voice(3.0)[: 2 * RATE] * 32768).astype(np.int16), rate=RATE))


@pytest.mark.parametrize(
    "sound, rate, message",
    [
        (tone(RATE), None, r"ndarray of shape \(16000,\), float32, values -0.4 to 0.4: .*give rate=SAMPLE_RATE in Hz"),
        (tone(RATE), 44.1, "rate is 44.1; give the sample rate in Hz"),
        (tone(RATE), True, "rate is True"),
        (tone(RATE), [RATE, RATE], "2 rates for 1 sounds"),
        (tone(RATE) * 32768, RATE, r"values -1.311e\+04 to 1.311e\+04: float samples lie in \[-1, 1\]"),
        (np.full(99, np.nan), RATE, "with NaN or infinite values: samples must be finite"),
        (torch.tensor([0.0, np.inf]), RATE, r"torch.Tensor of shape \(2,\), float32, with NaN or infinite"),
        (np.zeros(0, np.float32), RATE, r"shape \(0,\), float32: it has no samples; give None"),
        (np.zeros((3, 3)), RATE, r"shape \(3, 3\).* which axis holds the channels"),
        (np.zeros((99, 99)), RATE, r"shape \(99, 99\).* at most 8 channels"),
        (np.zeros((2, 2, 99)), RATE, r"shape \(2, 2, 99\).*give several as a list"),
        (np.zeros(99, bool), RATE, f"bool: samples are {AUDIO_TYPES}"),
        (np.zeros(99, complex), RATE, f"complex128: samples are {AUDIO_TYPES}"),
        (np.zeros(99, np.int64), RATE, f"int64, values 0 to 0: samples are {AUDIO_TYPES}"),
        (np.array(["a"]), RATE, "samples are"),
        ("hello", None, "got str 'hello': no such file"),
        (Path("nowhere.wav"), None, "'nowhere.wav': no such file"),
        (b"RIFF", RATE, "got bytes: a sound is a path, an array, a tensor or None"),
        ([0.1, 0.2], RATE, "got float: a sound is"),
        ([], RATE, "empty list"),
    ],
)
def test_wrong_sound_is_refused_in_one_line(model, sound, rate, message):
    with pytest.raises(UserError, match=f"audio.encode: .*{message}") as error:
        model.audio.encode(sound, rate=rate)
    assert "\n" not in str(error.value)


def test_wrong_sound_files_are_refused_in_one_line(model, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for path, message in ((tmp_path / "text.wav", "not a readable media file"), (tmp_path, "no such file")):
        with pytest.raises(UserError, match=message) as error:
            model.audio.encode(path)
        assert "\n" not in str(error.value)
    wav = write_wav(tmp_path / "a.wav", tone(RATE)[None])
    with pytest.raises(UserError, match="which know their own"):
        model.audio.encode(wav, rate=RATE)
    with pytest.raises(UserError, match="which knows its own"):
        model.audio.encode([wav, tone(RATE)], rate=[8000, RATE])


# --- vision ----------------------------------------------------------------------------------------------------------


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
    with pytest.warns(UserWarning, match="EXIF orientation is 6; unless it was turned, call PIL.ImageOps.exif_transp"):
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
        ([pixels(40, 40, 3), pixels(40, 40, 3)], "may be one clip or several; stack them"),
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


# --- text ------------------------------------------------------------------------------------------------------------


def test_one_text_gives_one_embedding(model):
    encoded = model.text.encode("that is so funny")
    assert encoded.pooled.shape == (1, 8) and encoded.pooled.norm() == pytest.approx(1)
    same(encoded, model.text.encode(["that is so funny"]))
    same(encoded, model.text.encode_prepared(["that is so funny"]))


@pytest.mark.parametrize("absent", [None, "", "  \n", "日本語", "Ω 日本"])
def test_text_without_a_known_character_is_absent(model, absent):
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        encoded = model.text.encode(["I am sad", absent, "so funny Ω"])
        assert not model.text.encode(absent).mask.any()
    assert encoded.mask.any(1).tolist() == [True, False, True] and (encoded.pooled[1] == 0).all()
    said = [str(note.message).partition(":")[0] for note in notes]
    assert said == (["1 of 3 texts count as absent", "the text counts as absent"] if (absent or "").strip() else [])


def test_list_of_texts_gives_what_each_gives_alone(model):
    given = ["that is so funny", None, "dog", "I am sad about the dog"]
    batch = model.text.encode(given)
    for row, text in enumerate(given):
        single = model.text.encode(text)
        steps = int(single.mask.sum())
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0, :steps])


def test_long_text_is_read_to_its_end(model):
    texts = ["dog", "the dog " * 20, "the dog " * 20 + "funny"]
    encoded = model.text.encode(texts)
    assert encoded.truncated.tolist() == [False, False, False]
    assert encoded.mask.sum(1).tolist() == [len(model.text.tokenizer(text)) for text in texts]
    assert (encoded.pooled[1] - encoded.pooled[2]).abs().max() > 1e-4
    report = model.text.coverage([*texts, "", "日本語", "so funny Ω"])
    assert (report.given, report.longer, report.unknown, report.partly) == (5, [1, 2], [4], [5])
    assert report.beyond == sum(len(model.text.tokenizer(text)) - 16 for text in texts[1:])


def test_training_says_which_texts_it_cuts_and_which_are_unknown(model):
    data = SimpleNamespace(corpus=lambda: ["dog", "the dog " * 20, "日本語"])
    unknown, longer = text_notes(model, data)
    assert unknown.startswith("1 of 3 texts count as missing, such as '日本語'")
    assert "1 of 3 texts are longer than context_length 16" in longer
    assert longer.endswith("training cuts them there; raise towers.text.options.context_length")


@pytest.mark.parametrize("wrong", [3, b"dog", ["dog", 3], [["dog"]], np.array(["dog"]), {"text": "dog"}, []])
def test_what_is_no_text_is_refused_in_one_line(model, wrong):
    with pytest.raises(UserError, match=r"text\.encode: got") as error:
        model.text.encode(wrong)
    assert "\n" not in str(error.value)


# --- similarity and the package --------------------------------------------------------------------------------------


def test_similarity_is_the_cosine_of_each_modality_and_their_mean(model, tmp_path):
    prompts = ["strong joy", "no emotion", "dog"]
    video = write_video(tmp_path / "a.mp4", np.stack([face()] * 20), sound=voice(0.8)[None])
    found = model.similarity(video, prompts)
    texts = model.text.encode(prompts).pooled  # (3, D)
    vision, audio = model.vision.encode(video).pooled[0], model.audio.encode(video).pooled[0]
    assert list(found) == ["vision", "audio", "mean"]
    torch.testing.assert_close(found["vision"], texts @ vision)
    torch.testing.assert_close(found["audio"], texts @ audio)
    torch.testing.assert_close(found["mean"], (texts @ vision + texts @ audio) / 2)
    frames, waveform = pixels(3, 40, 40, 3), voice(1.0)
    found = model.similarity(RawClip(frames, waveform, RATE, "strong joy"), prompts)
    torch.testing.assert_close(found["audio"], texts @ model.audio.encode(waveform, RATE).pooled[0])
    assert found["text"][0] == pytest.approx(1, abs=1e-5)
    assert set(model.similarity((frames, None, None, ""), "dog")) == {"vision", "mean"}
    sound = write_wav(tmp_path / "a.wav", voice(1.0)[None])
    assert set(model.similarity(sound, prompts)) == {"audio", "mean"}


def test_similarity_refuses_what_it_cannot_compare(model):
    for clip, prompts, message in [
        (RawClip(), ["dog"], "has none of the modalities"),
        (RawClip(text="dog"), ["dog", "日本"], "the prompt '日本' has no character"),
        (RawClip(text=["dog", "sad"]), ["dog"], "got 2 clips for text"),
        (3, ["dog"], "similarity: got int: a clip is"),
        ((1, 2, 3, 4, 5), ["dog"], "a clip is a path or the tuple"),
    ]:
        with pytest.raises(UserError, match=message):
            model.similarity(clip, prompts)
    without_text = AlignedEncoders(vision=model.vision, embed_dim=8)
    with pytest.raises(UserError, match="no text tower"):
        without_text.similarity(pixels(40, 40, 3), ["dog"])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, stage1_align; print('torch' in sys.modules, 'AlignedEncoders' in dir(stage1_align))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"], result.stderr
    with pytest.raises(ImportError):
        from stage1_align import Nothing  # noqa: F401


def test_a_script_without_a_main_guard_runs_and_prints_nothing_of_its_own(model, tmp_path):
    model.save_pretrained(tmp_path / "encoders")
    video = write_video(tmp_path / "a.mp4", np.stack([face()] * 20), sound=voice(0.8)[None])
    script = tmp_path / "script.py"
    script.write_text(f"""
from stage1_align import AlignedEncoders
encoders = AlignedEncoders.from_pretrained({str(tmp_path / "encoders")!r})
shapes = [encoders.vision.encode({str(video)!r}), encoders.audio.encode({str(video)!r}), encoders.text.encode("dog")]
print([tuple(one.pooled.shape) for one in shapes])
""")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[(1, 8), (1, 8), (1, 8)]\n", "")


def test_encoding_and_building_leave_the_warning_filters_alone(model):
    before = list(warnings.filters)
    encoders()
    model.text.encode("dog")
    assert warnings.filters == before


@pytest.mark.parametrize(
    "modality, words",
    [
        ("vision", ("(T, H, W, C)", "(T, C, H, W)", "float in [0, 1]", "alpha", "crop_faces", "None")),
        ("audio", ("(S,)", "(S, channels)", "int16", "[-1, 1]", "rate=44100", "None")),
        ("text", ("None", "context_length", "truncated")),
    ],
)
def test_help_shows_shapes_ranges_and_an_example(model, modality, words):
    text = getattr(model, modality).encode.__doc__
    for word in (*words, "(B, D)", "(B, T, C)", "mask bool (B, T)", f">>> encoders.{modality}.encode(", "UserError"):
        assert word in text


class QuietTower(MelCnn):
    """A user's own tower: half as loud."""

    def collate(self, items):
        return super().collate([0.5 * item for item in items])


def test_a_user_tower_is_named_by_import_path_and_comes_back(tmp_path):
    path = f"{__name__}:QuietTower"
    options = {"n_fft": 512, "mel_bins": 16, "channels": [8, 8], "width": 8, "center": False}
    built = AlignedEncoders.build({"audio": {"name": path, "options": options}}, 8).eval()
    assert isinstance(built.audio, AudioTower)
    built.save_pretrained(tmp_path / "encoders")
    loaded = AlignedEncoders.from_pretrained(tmp_path / "encoders")
    same(loaded.audio.encode(tone(RATE), RATE), built.audio.encode(tone(RATE), RATE))
    plain = AlignedEncoders.build({"audio": {"name": "mel_cnn", "options": options}}, 8).eval()
    plain.load_state_dict(built.state_dict())
    same(plain.audio.encode(tone(RATE) / 2, RATE), built.audio.encode(tone(RATE), RATE))
    for name, message in (
        ("os:system", "it must be a subclass of stage1_align.AudioTower"),
        ("stage1_align.towers.vision_open_clip:OpenClipVision", "must be a subclass of stage1_align.AudioTower"),
        ("no_such_package:Tower", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=message):
            AlignedEncoders.build({"audio": {"name": name}}, 8)


def test_only_takes_one_name_too(model, tmp_path):
    model.save_pretrained(tmp_path / "encoders")
    assert list(AlignedEncoders.from_pretrained(tmp_path / "encoders", only="audio").towers()) == ["audio"]


def test_resampling_is_soxr(model):
    sound = voice(1.0, rate=44100)
    same(model.audio.encode(sound, 44100), model.audio.encode_prepared([resample(sound, 44100, RATE)]))
    assert TOWERS["audio"]["name"] == "htsat"


# --- inputs found by trying to break the interface -------------------------------------------------------------------


@pytest.mark.parametrize("name, values", [("audio", ("max_seconds",)), ("vision", ("max_seconds", "frame_rate"))])
@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "8", None, True])
def test_limits_without_meaning_are_refused_before_a_file_is_read(model, name, values, wrong):
    for value in values:
        with pytest.raises(UserError, match=rf"{name}\.encode: {value} is {wrong!r}; give a finite number above 0"):
            getattr(model, name).encode("nowhere.mp4", **{value: wrong})


def test_frame_rate_beyond_any_camera_is_refused(model):
    with pytest.raises(UserError, match="at most 1000"):
        model.vision.encode("nowhere.mp4", frame_rate=1e6)


def test_tensors_and_arrays_that_numpy_cannot_hold_are_refused_in_one_line(model):
    sound = torch.from_numpy(tone(RATE))
    masked = np.ma.masked_array(tone(RATE), mask=np.arange(RATE) > 9)
    forms = (sound.to_sparse(), sound.to("meta"), sound.to(torch.float8_e5m2), masked)
    for form in forms:
        with pytest.raises(UserError, match=r"without a NumPy form|masked values") as error:
            model.audio.encode(form, rate=RATE)
        assert "\n" not in str(error.value)


def test_other_byte_order_and_matrix_are_read(model):
    samples = np.round(tone(RATE) * 32767).astype(np.int16)
    same(model.audio.encode(samples.astype(">i2"), rate=RATE), model.audio.encode(samples, rate=RATE))
    same(model.audio.encode(np.asmatrix(tone(RATE)), rate=RATE), model.audio.encode(tone(RATE), rate=RATE))


def test_sound_of_which_no_sample_is_left_is_not_taken_for_an_absent_one(model):
    with pytest.raises(UserError, match="no sample is left at the tower's 16000 Hz"):
        model.audio.encode(np.ones(1, np.float32), rate=44100)


class BytesPath:
    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> bytes:
        return bytes(self.path)


def test_path_object_of_bytes_is_a_path(model, tmp_path):
    wav = write_wav(tmp_path / "a.wav", tone(RATE)[None])
    same(model.audio.encode(BytesPath(wav)), model.audio.encode(wav))


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


def test_half_a_character_is_refused_in_one_line(model):
    for wrong in ("\ud800", ["dog", "so funny \ud83d"]):
        with pytest.raises(UserError, match=r"text\.encode: got str .*not valid Unicode"):
            model.text.encode(wrong)


@pytest.mark.parametrize("prompts", [None, 3, b"dog"])
def test_prompts_that_are_no_texts_are_refused(model, prompts):
    with pytest.raises(UserError, match=r"similarity: got .*: prompts are a text or a list of texts"):
        model.similarity(RawClip(text="dog"), prompts)


@pytest.mark.parametrize("source", [None, 3, b"encoders", ["encoders"], "a\0b"])
def test_source_that_is_no_folder_is_refused(source):
    with pytest.raises(UserError, match=r"give a folder|no exported encoders here"):
        AlignedEncoders.from_pretrained(source)


@pytest.mark.parametrize("content", ["null", "[1]", '{"format": "emit-encoders/2", "towers": [1]'])
def test_damaged_config_is_named(model, tmp_path, content):
    model.save_pretrained(tmp_path / "encoders")
    (tmp_path / "encoders" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        AlignedEncoders.from_pretrained(tmp_path / "encoders")


def test_saving_deletes_nothing_but_what_was_saved(model, tmp_path):
    mine, file = tmp_path / "mine", tmp_path / "notes.txt"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    file.write_text("notes")
    for folder, words in ((mine, "holds other files"), (file, "is a file"), ("", "give the name"), (None, "give the")):
        with pytest.raises(UserError, match=words):
            model.save_pretrained(folder)
    assert (mine / "thesis.txt").read_text() == "years of work" and file.read_text() == "notes"
    for _ in range(2):
        model.save_pretrained(tmp_path / "encoders")
