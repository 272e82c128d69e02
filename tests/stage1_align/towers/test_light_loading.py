"""Saved towers are loaded without the libraries that only building and training need."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.stage1_tiny import TOWERS

from stage1_align.towers.slaney_mel import slaney_mel
from stage1_align.towers.small_cnn import SmallCnn
from stage1_align.towers.vision_open_clip import OpenClipVision

SMALL = {"vision_cfg": {"timm_model_name": "emit_small_cnn", "timm_proj": "linear"}, "max_pool": True}


@pytest.mark.parametrize(
    ("sr", "n_fft", "bands", "fmin", "fmax"),
    [
        (16000, 512, 64, 50, 8000),
        (48000, 1024, 64, 50, 14000),
        (22050, 2048, 128, 0, 11025),
        (44100, 400, 9, 1200.5, 2e4),
    ],
)
def test_mel_filters_are_those_of_librosa_to_the_bit(sr, n_fft, bands, fmin, fmax):
    import librosa

    expected = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=bands, fmin=fmin, fmax=fmax)
    filters = slaney_mel(sr, n_fft, bands, fmin, fmax)
    assert filters.dtype == expected.dtype and np.array_equal(filters, expected)


@pytest.mark.parametrize("vision_cfg", [{}, {"timm_drop": 0.1}], ids=["minimal", "another field"])
def test_saved_small_cnn_computes_what_open_clip_built(vision_cfg):
    built = OpenClipVision.from_options({**SMALL, "vision_cfg": SMALL["vision_cfg"] | vision_cfg}, 8).eval()
    saved = OpenClipVision.from_saved(built.config(), 8, "here").eval()
    assert isinstance(saved.trunk, SmallCnn) and saved.config() == built.config()
    saved.load_state_dict(built.state_dict())
    frames = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)  # (B, T, 3, S, S)
    mask = torch.tensor([[True] * 3, [True, False, False]])  # (B, T)
    assert torch.equal(built(frames, mask).pooled, saved(frames, mask).pooled)


def test_small_cnn_with_the_model_s_own_projection_keeps_it():
    built = OpenClipVision.from_options({**SMALL, "max_pool": False, "projection": "own"}, 64).eval()
    saved = OpenClipVision.from_saved(built.config(), 64, "here").eval()
    saved.load_state_dict(built.state_dict())
    assert saved.config() == built.config()


def test_saved_towers_of_the_demo_import_neither_open_clip_nor_numba():
    code = (
        "import sys\n"
        "from stage1_align.towers.vision_open_clip import OpenClipVision\n"
        "from stage1_align.towers.htsat import Htsat\n"
        "options = {'vision_cfg': {'timm_model_name': 'emit_small_cnn', 'timm_proj': 'linear'}, 'image_size': 64,\n"
        "           'mean': [0.5] * 3, 'std': [0.25] * 3, 'interpolation': 'area'}\n"
        "OpenClipVision.from_saved(options, 8, 'here')\n"
        f"Htsat.from_options({TOWERS['audio']['options']!r}, 8)\n"
        "heavy = {'open_clip', 'timm', 'numba', 'scipy.signal'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
