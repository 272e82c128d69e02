"""Quality signals: scales, and reactions to damage."""

import math

import cv2
import numpy as np
import pytest
from helpers.media_files import face, voice

from shared.media import speech
from shared.media.damage import damage_frames, damage_waveform
from shared.media.quality import (
    AUDIO_QUALITY,
    TEXT_QUALITY,
    VISION_QUALITY,
    audio_quality,
    frontal,
    text_quality,
    vision_quality,
)
from shared.media.waveform import resample

RATE = 16000


def vision(frames, found=True):
    values = vision_quality(frames, np.full(len(frames), found))
    return dict(zip(VISION_QUALITY, values.mean(axis=0), strict=True))


def audio(waveform, rate=RATE):
    values = audio_quality(waveform.astype(np.float32), rate)
    return dict(zip(AUDIO_QUALITY, values.T, strict=True))


def crops():
    return np.stack([face(96, 96, 48, 46, 62, mouth=m) for m in (0, 0.5, 1.0)])


def test_vision_signals_of_simple_images():
    gray = np.full((2, 96, 96, 3), 51, np.uint8)
    flat = vision_quality(gray, np.array([True, False]))
    np.testing.assert_allclose(flat, [[1, 0, 0.2, 0, 0], [0, 0, 0.2, 0, 0]], atol=1e-6)
    half = np.zeros((1, 96, 96, 3), np.uint8)
    half[:, :, 48:] = 80
    assert vision(half)["contrast"] == pytest.approx(40 / 80)
    assert vision(half)["brightness"] == pytest.approx(40 / 255)


def symmetry(crop):
    """A slow reference of `frontal`."""
    gray = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (48, 48), interpolation=cv2.INTER_AREA)
    both = [cv2.GaussianBlur(picture, (0, 0), 1) for picture in (gray, cv2.flip(gray, 1))]
    slopes, mirrored = (
        np.stack([cv2.Sobel(picture, cv2.CV_64F, *way) for way in ((1, 0), (0, 1))]) for picture in both
    )
    cosines = [0.0]
    for shift in range(-6, 7):
        a, b = slopes[..., 6:42].ravel(), mirrored[..., 6 + shift : 42 + shift].ravel()
        cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return max(cosines)


def turned(crop, degrees):
    """The crop, wrapped around a turned cylinder."""
    x, y = np.meshgrid(np.arange(96, dtype=np.float32), np.arange(96, dtype=np.float32))
    angle = np.arcsin(np.clip((x - 48) / 36, -1, 1)) - np.deg2rad(degrees)
    source = 48 + 36 * np.sin(np.clip(angle, -np.pi / 2, np.pi / 2))
    return cv2.remap(crop, np.where(np.abs(x - 48) < 36, source, x).astype(np.float32), y, cv2.INTER_LINEAR)


def test_frontal_is_the_similarity_to_the_mirror_image():
    crop = crops()[1]
    half = crop[:, :48]
    both = np.concatenate([half, half[:, ::-1]], axis=1)
    leans = [cv2.warpAffine(crop, cv2.getRotationMatrix2D((48, 48), a, 1), (96, 96), borderMode=1) for a in (8, 16)]
    turns = [turned(crop, degrees) for degrees in (-40, -20, 20, 40)]
    pictures = [both, np.roll(both, 4, axis=1), crop, *leans, *turns]
    values = [frontal(picture) for picture in pictures]
    np.testing.assert_allclose(values, [symmetry(picture) for picture in pictures], atol=1e-4)
    perfect, moved, straight, lean, more, *turns = values
    assert perfect > 0.999 and moved > 0.95 and straight > 0.8
    assert straight > lean + 0.1 > more + 0.2 and all(straight > value + 0.3 for value in turns)
    assert frontal(np.full((96, 96, 3), 51, np.uint8)) == 0


@pytest.mark.parametrize(
    ("kind", "signal"),
    [("blur", "sharpness"), ("darkness", "brightness"), ("darkness", "contrast"), ("occlusion", "texture"),
     ("no_face", "texture"), ("no_face", "sharpness")],
)  # fmt: skip
def test_vision_signal_decreases_with_damage(kind, signal):
    clean = vision(crops())[signal]
    mild, strong = (
        vision(damage_frames(crops(), kind, np.random.default_rng(0), severity))[signal] for severity in (0.4, 1.0)
    )
    assert strong < 0.6 * clean and mild < clean and strong <= mild + 1e-6


@pytest.mark.parametrize(
    ("kind", "signal", "direction"),
    [("noise", "snr", -1), ("noise", "flatness", 1), ("clipping", "clipping", 1), ("clipping", "snr", -1),
     ("silence", "level", -1), ("silence", "speech", -1)],
)  # fmt: skip
def test_audio_signal_reacts_to_damage(kind, signal, direction):
    clean = audio(voice(3))[signal].mean()
    damaged = audio(damage_waveform(voice(3), RATE, kind, np.random.default_rng(0), 0.9))[signal].mean()
    assert direction * (damaged - clean) > 0.15 or (signal == "speech" and damaged < 0.05)


def test_level_is_in_decibels_of_full_scale():
    square = np.tile([0.1, -0.1], RATE)  # -20 dB
    values = audio(square)
    np.testing.assert_allclose(values["level"], 60 / 80, atol=1e-5)
    np.testing.assert_allclose(values["clipping"], 1)
    np.testing.assert_allclose(values["snr"], 0, atol=1e-5)
    assert (audio(np.zeros(RATE))["level"] == 0).all()


def test_snr_is_the_level_above_the_noise_floor():
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.standard_normal(4 * RATE)
    noise[RATE : 2 * RATE] += 0.0316 * np.sqrt(2) * np.sin(np.arange(RATE) * 0.3)  # 30 dB above it
    snr = audio(noise)["snr"]
    assert abs(snr[15] - 30 / 40) < 0.04 and snr[30] < 0.06


@pytest.mark.parametrize(("samples", "rate"), [(1, 16000), (1599, 16000), (1601, 16000), (22051, 22050), (37, 100)])
def test_number_of_audio_steps_covers_any_length(samples, rate):
    waveform = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    values = audio_quality(waveform, rate)
    assert values.shape == (math.ceil(samples * 10 / rate), len(AUDIO_QUALITY)) and values.dtype == np.float32
    assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1


def test_audio_signals_do_not_depend_on_the_sample_rate():
    slow = voice(3)
    fast = resample(slow, RATE, 48000)
    at_16, at_48 = audio_quality(slow, RATE), audio_quality(fast, 48000)
    np.testing.assert_allclose(at_48.mean(axis=0), at_16.mean(axis=0), atol=0.01)
    for column in (0, 1, 4):  # level, snr, flatness
        assert np.abs(at_48 - at_16)[:, column].mean() < 0.01


def test_missing_modality_has_no_steps():
    assert audio_quality(np.zeros(0, np.float32), RATE).shape == (0, len(AUDIO_QUALITY))
    empty = vision_quality(np.zeros((0, 96, 96, 3), np.uint8), np.zeros(0, bool))
    assert empty.shape == (0, len(VISION_QUALITY)) and empty.dtype == np.float32


def test_text_signals_count_words():
    assert text_quality("").tolist() == [0] * len(TEXT_QUALITY) and text_quality(" \n").tolist() == [0, 0]
    np.testing.assert_allclose(text_quality("so very funny"), [1, 2 / 6])
    assert text_quality("word " * 500).tolist() == [1, 1]


def test_speech_probability_equals_that_of_the_package(monkeypatch):
    """With the weights of the package's default model, which differ from those of its safetensors file."""
    import torch
    from silero_vad import load_silero_vad

    reference = load_silero_vad()
    names = {
        "_model.stft.forward_basis_buffer": "stft_conv.weight",
        "_model.decoder.rnn.": "lstm_cell.",
        "_model.decoder.decoder.2.": "final_conv.",
        **{f"_model.encoder.{i}.reparam_conv.": f"conv{i + 1}." for i in range(4)},
    }
    weights = {
        key.replace(old, new): value.numpy()
        for key, value in reference.state_dict().items()
        for old, new in names.items()
        if key.startswith(old)
    }
    assert len(weights) == 15
    sound = np.concatenate([voice(2), np.zeros(3000, np.float32), voice(1, seed=3) * 3])
    monkeypatch.setattr(speech, "_weights", lambda: speech.arrange(weights))
    ours = speech.speech_probability(sound, RATE)
    expected = reference.audio_forward(torch.from_numpy(sound)[None], RATE)[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert np.ptp(expected) > 0.3


def test_speech_probability_is_averaged_over_steps():
    probability = np.array([1, 0, 0, 1], np.float32)  # 32 ms each
    np.testing.assert_allclose(speech.at_steps(probability, 2, 1000 / 64), [0.5, 0.5])
    np.testing.assert_allclose(speech.at_steps(probability, 4, 1000 / 48), [2 / 3, 0, 1, 1], atol=1e-6)
    assert speech.at_steps(np.zeros(0, np.float32), 3, 10).tolist() == [0, 0, 0]
