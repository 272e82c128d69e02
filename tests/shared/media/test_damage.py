"""Artificial damage: effect, determinism, and unchanged inputs."""

import numpy as np
import pytest

from shared.media.damage import AUDIO_DAMAGE, VISION_DAMAGE, damage_frames, damage_waveform

RATE = 16000


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def frames():
    """A moving checkerboard, uint8 (6, 64, 80, 3)."""
    y, x = np.mgrid[:64, :80]
    return np.stack([np.repeat((((x + t) // 8 + y // 8) % 2 * 200 + 30)[..., None], 3, 2) for t in range(6)]).astype(
        np.uint8
    )


@pytest.fixture
def tone():
    """A tone of 220 Hz for half a second, then silence: float32 (16000,)."""
    t = np.arange(RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 220 * t) * (t < 0.5)).astype(np.float32)


def sharpness(frames):
    return np.abs(np.diff(frames.astype(float), axis=2)).mean()


@pytest.mark.parametrize("kind", VISION_DAMAGE)
def test_frame_damage_is_deterministic_and_keeps_shape_and_input(frames, kind):
    before = frames.copy()
    once, again = (damage_frames(frames, kind, rng(3), 0.9) for _ in range(2))
    assert once.shape == frames.shape and once.dtype == np.uint8
    assert np.array_equal(frames, before) and np.array_equal(once, again)
    assert np.abs(once.astype(int) - frames).mean() > 20
    assert not np.shares_memory(once, frames)


@pytest.mark.parametrize("kind", VISION_DAMAGE)
def test_clip_without_frames_stays_empty(kind):
    assert damage_frames(np.zeros((0, 8, 8, 3), np.uint8), kind, rng(), 1.0).shape == (0, 8, 8, 3)


def test_darkness_reduces_brightness(frames):
    assert damage_frames(frames, "darkness", rng(), 1.0).mean() < 8
    assert 8 < damage_frames(frames, "darkness", rng(), 0.4).mean() < frames.mean() / 2


def test_blur_reduces_sharpness_not_brightness(frames):
    mild, strong = (damage_frames(frames, "blur", rng(), severity) for severity in (0.4, 1.0))
    assert sharpness(strong) < sharpness(mild) < sharpness(frames) / 2
    assert sharpness(strong) < 0.03 * sharpness(frames)
    assert abs(strong.mean() - frames.mean()) < 10


def test_occlusion_covers_the_center_and_leaves_a_border(frames):
    out = damage_frames(frames, "occlusion", rng(), 1.0)
    same = (out == frames).all(axis=(0, 3))  # (H, W)
    assert not same[16:48, 20:60].any()
    assert 0.02 < same.mean() < 0.25
    half = damage_frames(frames, "occlusion", rng(), 0.2)
    assert (half == frames).all(axis=-1).mean() > 0.5


def test_no_face_does_not_depend_on_the_frames(frames):
    out = damage_frames(frames, "no_face", rng(), 0.5)
    other = damage_frames(255 - frames, "no_face", rng(), 0.5)
    assert np.array_equal(out, other) and np.array_equal(out[0], out[-1])


@pytest.mark.parametrize("kind", AUDIO_DAMAGE)
def test_sound_damage_is_deterministic_and_keeps_length_and_input(tone, kind):
    before = tone.copy()
    once, again = (damage_waveform(tone, RATE, kind, rng(3), 0.9) for _ in range(2))
    assert once.shape == tone.shape and once.dtype == np.float32 and np.abs(once).max() <= 1
    assert np.array_equal(tone, before) and np.array_equal(once, again)
    assert len(damage_waveform(tone[:0], RATE, kind, rng(), 0.9)) == 0


def test_noise_has_the_documented_ratio(tone):
    out = damage_waveform(tone * 0.01, RATE, "noise", rng(), 1.0).astype(float)
    signal = tone.astype(float) * 0.01
    ratio = 10 * np.log10(np.mean(signal**2) / np.mean((out - signal) ** 2))
    assert ratio == pytest.approx(-20, abs=0.1)


def test_clipping_removes_level_differences(tone):
    out = damage_waveform(tone, RATE, "clipping", rng(), 1.0)
    assert (np.abs(out) > 0.98).mean() > 0.8
    loud, pause = np.abs(out[1000:7000]).mean(), np.abs(out[9000:15000]).mean()
    assert pause > 0.7 * loud


def test_silence_is_all_zeros(tone):
    assert not damage_waveform(tone, RATE, "silence", rng(), 0.1).any()


def test_silent_waveform_can_be_damaged():
    for kind in AUDIO_DAMAGE:
        assert np.isfinite(damage_waveform(np.zeros(400, np.float32), RATE, kind, rng(), 1.0)).all()


@pytest.mark.parametrize(("kind", "severity"), [("fog", 0.5), ("blur", 0.0), ("blur", 1.5), ("noise", 0.5)])
def test_unknown_kind_or_severity_is_an_error(frames, kind, severity):
    with pytest.raises(ValueError, match=r"fog|severity|noise"):
        damage_frames(frames, kind, rng(), severity)
