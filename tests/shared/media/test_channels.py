"""Channels become one waveform that is as loud as a person hears them."""

from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import face, voice, write_video, write_wav

from shared.dataset.clip import Clip
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.media.arrays import to_waveform
from shared.media.channels import mix_of
from shared.media.decode import decode, decode_windows
from shared.media.remarks import note_lines

SPEECH = voice(2.0)
NOISE = np.random.default_rng(0).normal(0, 0.1, (6, 32000)).astype(np.float32)
NOTHING = np.zeros_like(SPEECH)
TURNS = np.stack([SPEECH * (np.arange(32000) < 16384), SPEECH * (np.arange(32000) >= 16384)])


def decibels(waveform: np.ndarray, reference: np.ndarray) -> float:
    return 20 * float(np.log10(np.sqrt(np.mean(np.square(waveform))) / np.sqrt(np.mean(np.square(reference)))))


@pytest.mark.parametrize(
    "channels",
    [
        [SPEECH, SPEECH],
        [SPEECH, 0.5 * SPEECH],
        [NOISE[0], NOISE[1]],  # 3 dB below one of them
        [SPEECH, SPEECH[::-1]],
        [SPEECH + 0.2 * NOISE[0], 0.8 * SPEECH + 0.2 * NOISE[1]],
        [NOTHING, NOTHING],
    ],
)
def test_ordinary_channels_are_averaged_to_the_bit(channels):
    channels = np.stack(channels)
    mix = mix_of(channels)
    assert not mix.weights and not mix.remark
    assert np.array_equal(mix.apply(channels), channels.mean(axis=0, dtype=np.float32))


@pytest.mark.parametrize(
    ("channels", "expected", "words", "is_problem"),
    [
        ([SPEECH, NOTHING], SPEECH, "loses 6.0 dB; of 2 channels only 1 has sound", False),
        ([1e-3 * NOISE[0], SPEECH], SPEECH, "of 2 channels only 2 has sound", False),
        ([NOTHING, SPEECH, NOTHING, NOTHING], SPEECH, "loses 12.0 dB; of 4 channels only 2 has sound", False),
        ([NOTHING, SPEECH, SPEECH, NOTHING], SPEECH, "loses 6.0 dB; of 4 channels only 2 and 3 have sound", False),
        (list(TURNS), SPEECH, "raised by 6.0 dB", False),  # one speaker on each channel
        ([SPEECH, -SPEECH], SPEECH, "loses 99.0 dB; out of phase, turned over: 2", True),
        ([-0.5 * SPEECH, SPEECH], 0.75 * SPEECH, "loses 12.0 dB; out of phase, turned over: 1", True),
        ([SPEECH, -SPEECH, SPEECH, SPEECH], SPEECH, "loses 6.0 dB; out of phase, turned over: 2", True),
        (
            [1.1 * NOISE[0], 0.85 * NOISE[1] - 0.48 * NOISE[0]],
            1.1 * NOISE[0],
            "channels cancel each other: 1 alone is used",
            True,
        ),
    ],
)
def test_sound_that_the_mean_would_lose_is_kept_with_a_remark(channels, expected, words, is_problem):
    channels = np.stack(channels)
    mix = mix_of(channels)
    np.testing.assert_allclose(mix.apply(channels), expected, atol=2e-4)
    assert mix.remark is not None and words in mix.remark.text and mix.remark.is_problem is is_problem


PINK = np.random.default_rng(1).normal(0, 0.1, 16384).astype(np.float32)


@pytest.mark.parametrize(
    ("levels", "weights", "words"),
    [
        (((1, 1), (1, 1), (1, -1)), (1, 0), "more than 5 dB in a part of the sound (33%): 1 alone is used"),
        (((1, 1), (0, 1), (1, 1)), (0, 1), "in a part of the sound (33%): 2 alone is used"),
        (((1, 0.5), (0.5, 1), (1, -1)), (), "(33%): channels cancel each other there; they are averaged all the same"),
    ],
)
def test_sound_that_the_mean_would_lose_for_a_part_of_the_time_is_said(levels, weights, words):
    """Levels of two channels in each third: the mean keeps enough on the whole."""
    mix = mix_of(np.concatenate([np.array(pair, np.float32)[:, None] * PINK for pair in levels], axis=1))
    assert mix.weights == weights and mix.remark is not None
    assert words in mix.remark.text and mix.remark.is_problem is not bool(weights)


def test_many_independent_channels_are_averaged_with_a_remark():
    mix = mix_of(NOISE)
    np.testing.assert_allclose(mix.apply(NOISE), NOISE.mean(axis=0), atol=1e-6)  # 7.8 dB below one of them
    assert mix.remark is not None and "6 channels of similar level are averaged all the same" in mix.remark.text


def write_surround(path: Path, **sounds: np.ndarray) -> Path:
    """5.1 as FLAC in Matroska; sounds: of the named channels."""
    names = ("FL", "FR", "FC", "LFE", "BL", "BR")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16000, layout="5.1")
        samples = np.stack([sounds.get(name, NOTHING) for name in names])
        packed = np.round(samples.T.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="5.1")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_speech_in_the_center_of_surround_keeps_its_level(tmp_path):
    rumble = (0.3 * np.sin(2 * np.pi * 40 * np.arange(32000) / 16000)).astype(np.float32)
    media = decode(write_surround(tmp_path / "center.mkv", FC=SPEECH, LFE=rumble), 0, 20)
    np.testing.assert_allclose(media.waveform, SPEECH, atol=1e-4)
    assert note_lines(media.remarks) == [
        "the mean of the audio channels loses 14.0 dB; of 6 channels only FC has sound"
    ]
    music = {name: 0.15 * NOISE[index] for index, name in enumerate(("FL", "FR", "BL", "BR"))}
    level = decibels(decode(write_surround(tmp_path / "film.mkv", FC=SPEECH, **music), 0, 20).waveform, SPEECH)
    assert -0.1 < level < 3


def test_low_frequency_channel_is_left_out(tmp_path):
    five = {name: SPEECH for name in ("FL", "FR", "FC", "BL", "BR")}
    media = decode(write_surround(tmp_path / "a.mkv", **five, LFE=NOISE[0]), 0, 20)
    np.testing.assert_allclose(media.waveform, SPEECH, atol=1e-4)
    assert not media.remarks


@pytest.mark.parametrize("begins", [0.0, 1.0])
def test_windows_have_the_mix_of_the_whole(tmp_path, begins):
    """One channel is silent all the time, the other one at first."""
    sound = np.stack([SPEECH * (np.arange(32000) >= begins * 16000), NOTHING])
    path = write_wav(tmp_path / "late.wav", sound)
    whole = decode(path, 0, 20)
    parts = list(decode_windows(path, 0, 0.5))
    assert np.array_equal(np.concatenate([part.waveform for part in parts]), whole.waveform)
    assert decibels(whole.waveform, sound[0]) == pytest.approx(0, abs=0.01)
    assert all(part.remarks == whole.remarks for part in parts)
    tail = decode(path, 0, 0.5)  # the first half second alone
    assert np.array_equal(tail.waveform, whole.waveform[:8000])


def test_damaged_layouts_are_mixed_in_the_verdict_and_in_arrays(tmp_path):
    inverted = np.stack([SPEECH, -SPEECH])
    video = write_video(tmp_path / "v.mp4", np.stack([face()] * 5), sound=SPEECH[None])
    clip = Clip("a", video, audio=write_wav(tmp_path / "inverted.wav", inverted))
    verdict = prepare_clip(clip, Recipe())[1]
    assert verdict.verdict == "partial" and "out of phase, turned over: 2" in verdict.detail
    one = Clip("b", video, audio=write_wav(tmp_path / "one.wav", np.stack([NOTHING, SPEECH])))
    verdict = prepare_clip(one, Recipe())[1]
    assert verdict.verdict == "ok" and "of 2 channels only 2 has sound" in verdict.detail
    for array in (inverted, inverted.T, inverted.astype(np.float64)):
        with pytest.warns(UserWarning, match="waveform: .*out of phase, turned over: 2"):
            np.testing.assert_allclose(to_waveform("waveform", array), SPEECH, atol=1e-6)


def test_broken_samples_do_not_decide_the_mix():
    broken = np.stack([SPEECH, NOTHING])
    broken[1, 100] = np.nan
    broken[0, 200] = np.inf
    mix = mix_of(broken)
    assert mix.weights == (1.0, 0.0)
