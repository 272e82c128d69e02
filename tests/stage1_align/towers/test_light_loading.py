"""Saved towers are loaded without the libraries that only building and training need."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.stage1_tiny import TOWERS

from stage1_align.towers.slaney_mel import slaney_mel
from stage1_align.towers.small_bert import BertSizes, SmallBert
from stage1_align.towers.small_cnn import SmallCnn
from stage1_align.towers.text_transformer import TransformerText
from stage1_align.towers.vision_open_clip import OpenClipVision

SMALL = {"vision_cfg": {"timm_model_name": "emit_small_cnn", "timm_proj": "linear"}, "max_pool": True}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


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


@pytest.fixture(scope="module")
def texts():
    """A text tower of transformers and the same tower as it is restored."""
    options = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT}
    built = TransformerText.from_options(options, 8)
    saved = TransformerText.from_saved(built.config(), 8, "here")
    assert isinstance(saved.net, SmallBert) and not isinstance(built.net, SmallBert)
    assert saved.config() == built.config() and (saved.width, saved.embedding_rows) == (16, 40)
    assert [type(block) for block in saved.blocks()] and len(saved.blocks()) == len(built.blocks()) == 2
    saved.load_state_dict(built.state_dict())
    return built, saved


@pytest.mark.parametrize("lengths", [[12, 12], [12, 5], [7, 0, 1]], ids=["full", "padded", "absent"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_saved_text_tower_computes_what_transformers_built_to_the_bit(texts, lengths, training):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]  # (B, L)
    ids = torch.randint(1, 40, mask.shape) * mask  # (B, L)
    results = []
    for tower in texts:
        tower.train(training).zero_grad()
        torch.manual_seed(0)  # dropout
        pooled = tower(ids, mask).pooled
        (pooled * torch.arange(8)).sum().backward()
        results.append([pooled, *(parameter.grad for _, parameter in sorted(tower.named_parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "relu"}, {"is_decoder": True}], ids=lambda changes: next(iter(changes))
)
def test_saved_text_tower_with_another_field_is_that_of_transformers(changes):
    options = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT | changes}
    built = TransformerText.from_options(options, 8)
    assert type(TransformerText.from_saved(built.config(), 8, "here").net) is type(built.net)


def test_bert_sizes_have_the_defaults_of_transformers():
    from transformers import BertConfig

    published = BertConfig()
    assert dataclasses.asdict(BertSizes()) == {name: getattr(published, name) for name in BertSizes.__annotations__}


def test_saved_towers_of_the_demo_import_nothing_that_only_building_needs():
    text = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT}
    code = (
        "import sys\n"
        "from stage1_align.towers.vision_open_clip import OpenClipVision\n"
        "from stage1_align.towers.htsat import Htsat\n"
        "from stage1_align.towers.text_transformer import TransformerText\n"
        f"TransformerText.from_saved({text!r}, 8, 'here')\n"
        "options = {'vision_cfg': {'timm_model_name': 'emit_small_cnn', 'timm_proj': 'linear'}, 'image_size': 64,\n"
        "           'mean': [0.5] * 3, 'std': [0.25] * 3, 'interpolation': 'area'}\n"
        "OpenClipVision.from_saved(options, 8, 'here')\n"
        f"Htsat.from_options({TOWERS['audio']['options']!r}, 8)\n"
        "heavy = {'open_clip', 'timm', 'numba', 'scipy', 'transformers', 'torchvision', 'torch._dynamo', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
