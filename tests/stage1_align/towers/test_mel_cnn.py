"""The small tower for voices: its norm, filter bank and augmentation."""

import numpy as np
import pytest
import torch
from helpers.audio_tiny import KINDS, build, sounds
from torch import nn

from shared.errors import UserError
from stage1_align.towers.mel_cnn import ClipNorm, mel_bank


def test_clip_norm_is_group_norm_over_the_frames_of_the_clip():
    torch.manual_seed(0)
    clip_norm, group_norm = ClipNorm(2, 6), nn.GroupNorm(2, 6)
    nn.init.normal_(clip_norm.weight)
    nn.init.normal_(clip_norm.bias)
    group_norm.load_state_dict(clip_norm.state_dict())
    x = torch.randn(2, 6, 5, 4) * 3 + 1
    out = clip_norm(x, torch.tensor([5, 3]))
    torch.testing.assert_close(out[0], group_norm(x[:1])[0])
    torch.testing.assert_close(out[1, :, :3], group_norm(x[1:, :, :3])[0])
    assert (out[1, :, 3:] == 0).all()


def test_tone_is_in_its_mel_band():
    bank = mel_bank(16000, 512, 40)
    assert bank.shape == (257, 40) and (bank >= 0).all() and bank.max() <= 1
    edges = 2595 * np.log10(1 + np.array([50, 8000]) / 700)
    for hz in (300.0, 1000.0, 3000.0):
        mel = 2595 * np.log10(1 + hz / 700)
        expected = (mel - edges[0]) / (edges[1] - edges[0]) * 41 - 1  # bands peak at steps 1 .. 40 of 41
        assert abs(int(bank[round(hz * 512 / 16000)].argmax()) - expected) <= 1


def test_augmentation_depends_on_the_seed_and_is_off_in_evaluation():
    tower, waveforms = build(*KINDS["mel_cnn"]), sounds(20000, 16000)
    batch = tower.collate(waveforms)
    assert torch.equal(tower(**batch).pooled, tower(**batch).pooled)
    tower.train()
    for module in tower.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.eval()
    torch.manual_seed(1)
    first, second = tower(**batch).pooled, tower(**batch).pooled
    torch.manual_seed(1)
    assert torch.equal(tower(**batch).pooled, first) and not torch.equal(first, second)
    tower.options.tempo = tower.options.formants = tower.options.tilt_db = tower.options.masks = 0
    torch.testing.assert_close(tower(**batch).pooled, tower.eval()(**batch).pooled, atol=1e-4, rtol=0)


def test_level_matters_only_without_centering():
    waveforms = sounds(16000)
    for center in (True, False):
        tower = build("mel_cnn", {**KINDS["mel_cnn"][1], "center": center})
        loud, soft = tower.encode_prepared(waveforms).pooled, tower.encode_prepared([0.25 * waveforms[0]]).pooled
        assert ((loud - soft).abs().max() < 1e-4) == center


def test_bands_and_channels_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="mel_bins 18 must be a multiple of 8"):
        build("mel_cnn", {**KINDS["mel_cnn"][1], "mel_bins": 18})
    with pytest.raises(UserError, match=r"channels 28: .* a multiple of 8"):
        build("mel_cnn", {**KINDS["mel_cnn"][1], "channels": [4, 28]})
