"""The towers of the demo equal those of the libraries that they stand for, and start without them."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.stage1_tiny import TOWERS

from shared.errors import UserError
from stage1_align.towers import small_cnn, text_transformer
from stage1_align.towers.slaney_mel import slaney_mel
from stage1_align.towers.small_bert import BertSizes, SmallBert
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


def both(build, light, monkeypatch):
    """What `build` gives by the library, with light(...) answering False, and without it; the generator's states."""
    towers, states = [], []
    for is_light in (False, True):
        with monkeypatch.context() as patched:
            if not is_light:
                patched.setattr(*light)
            torch.manual_seed(0)
            towers.append(build())
            states.append(torch.get_rng_state())
    assert torch.equal(*states)
    return towers


@pytest.mark.parametrize("projection", ["linear", "own"])
@pytest.mark.parametrize("vision_cfg", [{}, {"timm_drop": 0.1}], ids=["minimal", "another field"])
def test_small_cnn_equals_that_of_open_clip_to_the_bit(vision_cfg, projection, monkeypatch):
    options = {
        "vision_cfg": SMALL["vision_cfg"] | vision_cfg,
        "max_pool": projection == "linear",
        "projection": projection,
    }
    light = (small_cnn, "is_alone", lambda vision_cfg: False)
    built, here = both(lambda: OpenClipVision.from_options(options, 64).eval(), light, monkeypatch)
    saved = OpenClipVision.from_saved(here.config(), 64, "here").eval()
    saved.load_state_dict(built.state_dict())
    assert saved.config() == here.config()
    frames = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)  # (B, T, 3, S, S)
    mask = torch.tensor([[True] * 3, [True, False, False]])  # (B, T)
    expected = built(frames, mask).pooled
    assert torch.equal(here(frames, mask).pooled, expected) and torch.equal(saved(frames, mask).pooled, expected)


@pytest.mark.parametrize(
    "changes", [{"image_size": True}, {"image_size": "64"}, {"widht": 8}, {"quick_gelu": 1}], ids=str
)
def test_small_cnn_refuses_the_values_that_open_clip_refuses(changes):
    with pytest.raises(UserError):
        OpenClipVision.from_options({"vision_cfg": SMALL["vision_cfg"] | changes}, 8)


@pytest.fixture
def texts(monkeypatch):
    """A text tower of transformers, and the one that stands for it."""
    options = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT}
    light = (text_transformer, "BertSizes", type("None", (), {"__dataclass_fields__": {}}))
    built, here = both(lambda: TransformerText.from_options(options, 8), light, monkeypatch)
    assert isinstance(here.net, SmallBert) and not isinstance(built.net, SmallBert)
    assert here.config() == built.config() and (here.width, here.embedding_rows) == (built.width, built.embedding_rows)
    assert len(here.blocks()) == len(built.blocks()) == 2
    return built, here


@pytest.mark.parametrize("lengths", [[12, 12], [12, 5], [7, 0, 1]], ids=["full", "padded", "absent"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_small_bert_equals_that_of_transformers_to_the_bit(texts, lengths, training):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]  # (B, L)
    ids = torch.randint(1, 40, mask.shape) * mask  # (B, L)
    results = []
    for tower in texts:
        tower.train(training)
        torch.manual_seed(0)  # dropout
        pooled = tower(ids, mask).pooled
        (pooled * torch.arange(8)).sum().backward()
        results.append([pooled, *(parameter.grad for _, parameter in sorted(tower.named_parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "relu"}, {"is_decoder": True}], ids=lambda changes: next(iter(changes))
)
def test_bert_with_another_field_is_that_of_transformers(changes):
    options = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT | changes}
    assert type(TransformerText.from_options(options, 8).net).__name__ == "BertModel"


@pytest.mark.parametrize(
    "changes", [{"num_attention_heads": 3}, {"num_attention_heads": 0}, {"hidden_size": "x"}], ids=str
)
def test_bert_that_makes_no_sense_is_refused(changes):
    with pytest.raises(UserError, match=r"bert tower: model_cfg"):
        TransformerText.from_options({"model_cfg": BERT | changes}, 8)


def test_bert_sizes_have_the_defaults_of_transformers():
    from transformers import BertConfig

    published = BertConfig()
    assert dataclasses.asdict(BertSizes()) == {name: getattr(published, name) for name in BertSizes.__annotations__}


def test_towers_of_the_demo_need_no_other_library():
    text = {"vocab_size": 40, "context_length": 12, "model_cfg": BERT}
    code = (
        "import sys\n"
        "from stage1_align.towers.vision_open_clip import OpenClipVision\n"
        "from stage1_align.towers.htsat import Htsat\n"
        "from stage1_align.towers.text_transformer import TransformerText\n"
        f"TransformerText.from_options({text!r}, 8)\n"
        "options = {'vision_cfg': {'timm_model_name': 'emit_small_cnn', 'timm_proj': 'linear'}, 'image_size': 64,\n"
        "           'mean': [0.5] * 3, 'std': [0.25] * 3, 'interpolation': 'area'}\n"
        "OpenClipVision.from_options(options, 8)\n"
        f"Htsat.from_options({TOWERS['audio']['options']!r}, 8)\n"
        "heavy = {'open_clip', 'timm', 'numba', 'scipy', 'transformers', 'torchvision', 'torch._dynamo', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
