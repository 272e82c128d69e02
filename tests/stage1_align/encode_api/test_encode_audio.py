"""What `encode` of the audio tower accepts from people: sound of any rate, shape and type, files and videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoder_inputs import RATE, pixels, same, tone
from helpers.media_files import voice, write_video, write_wav
from helpers.rounding import assert_same_up_to_rounding
from helpers.stage1_tiny import TOWERS

from shared.errors import UserError
from shared.media.decode import decode
from shared.media.waveform import resample

AUDIO_TYPES = "float in \\[-1, 1\\], int16, int32 or uint8"


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


def test_resampling_is_soxr(model):
    sound = voice(1.0, rate=44100)
    same(model.audio.encode(sound, 44100), model.audio.encode_prepared([resample(sound, 44100, RATE)]))
    assert TOWERS["audio"]["name"] == "htsat"


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
