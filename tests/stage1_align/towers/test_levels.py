"""Levels beside the frames of an audio tower: right values, and no part in what is aligned."""

import numpy as np
import pytest
import torch
from helpers.audio_tiny import CLAP, CLAP_FEATURES, HTSAT, build, sounds

from shared.errors import UserError
from stage1_align.towers.levels import band_levels

TOWERS = {"htsat": HTSAT | {"window_samples": None}, "clap": {"model_cfg": CLAP, "feature_cfg": CLAP_FEATURES}}


def slow_levels(mel, count, steps, bands):
    """Part by part, in float64: (F, M) dB of which the first `count` frames are inside."""
    frames, mels = mel.shape[0] // (4 * steps), mel.shape[1] // bands
    out = np.zeros((steps, 2, bands))
    for step in range(steps):
        for band in range(bands):
            parts = []
            for first in range(4 * step * frames, 4 * (step + 1) * frames, frames):
                rows = mel[first : min(first + frames, count), band * mels : (band + 1) * mels]
                if rows.size:
                    parts.append(np.log10(max(1e-6, np.mean(10 ** (rows.astype(np.float64) / 10)))))
            if parts:
                out[step, :, band] = np.mean(parts), np.std(parts)
    return out.reshape(steps, 2 * bands)


@pytest.mark.parametrize("count", [48, 31, 20, 0])
def test_levels_are_means_and_deviations_of_log_power_over_own_frames(count):
    mel = np.random.default_rng(0).uniform(-70, 30, (48, 6)).astype(np.float32)
    expected = slow_levels(mel, count, 3, 2)
    padded = mel.copy()
    padded[count:] = 90.0  # what follows the clip does not count
    inside = torch.arange(48)[None] < count
    levels = band_levels(torch.from_numpy(padded)[None], inside, 3, 2)[0]
    np.testing.assert_allclose(levels.numpy(), expected, atol=2e-5)
    steady = band_levels(torch.full((1, 48, 6), 20.0), torch.ones(1, 48, dtype=torch.bool), 3, 2)
    np.testing.assert_allclose(steady[0].numpy(), [[2, 2, 0, 0]] * 3, atol=1e-5)  # 20 dB are two bels


@pytest.mark.parametrize("kind", TOWERS)
def test_levels_double_the_steps_and_leave_frames_and_embedding_alone(kind):
    plain, with_levels = (build(kind, TOWERS[kind] | {"level_bands": bands}) for bands in (0, 4))
    waveforms = [sounds(plain.window)[0], sounds(2 * plain.window)[0]]  # whole windows: no step is cut
    a, b = plain.encode_prepared(waveforms), with_levels.encode_prepared(waveforms)
    assert b.rate == with_levels.rate == 2 * plain.rate and with_levels.width == plain.width + 8
    torch.testing.assert_close(b.pooled, a.pooled)
    torch.testing.assert_close(b.sequence[..., : plain.width], a.sequence.repeat_interleave(2, dim=1))
    assert torch.equal(b.mask, a.mask.repeat_interleave(2, dim=1))
    alone = build(kind, TOWERS[kind] | {"level_bands": 4, "levels_alone": True})
    c = alone.encode_prepared(waveforms)
    assert alone.width == 8 and torch.equal(c.sequence, b.sequence[..., plain.width :])
    torch.testing.assert_close(c.pooled, b.pooled)
    with pytest.raises(UserError, match="level_bands"):
        build(kind, TOWERS[kind] | {"levels_alone": True})


@pytest.mark.parametrize("kind", TOWERS)
def test_a_burst_is_loud_in_its_own_steps(kind):
    tower = build(kind, TOWERS[kind] | {"level_bands": 1})
    rate, noise = tower.sample_rate, np.random.default_rng(1).normal(0, 1, 3 * tower.window).astype(np.float32)
    steps = len(noise) / rate * tower.rate
    burst = (np.arange(len(noise)) / len(noise) * steps).astype(int) == 5
    level, deviation = (
        tower.encode_prepared([np.where(burst, 0.3, 0.003).astype(np.float32) * noise]).sequence[0, :, -2:].T
    )
    elsewhere = [i for i in range(len(level)) if abs(i - 5) > 1]
    assert float(level[5] - level[elsewhere].max()) > 1.5  # 40 dB are four bels; its edges are shared with neighbors
    assert level[elsewhere].std() < 0.3 and deviation[elsewhere].max() < deviation[[4, 6]].max()
