import json

import numpy as np
import pytest
import torch
from helpers.stage1_tiny import encoders, items
from safetensors.torch import load_file

from shared.errors import UserError
from stage1_align.data.captions import label_caption
from stage1_align.encoders import AlignedEncoders


def test_saved_and_loaded_encoders_give_the_same_and_are_frozen(tmp_path):
    trained = encoders(seed=3)
    trained.save_pretrained(tmp_path / "out", {"data": "made-up clips"})
    loaded = AlignedEncoders.from_pretrained(tmp_path / "out")
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(module.training for module in loaded.modules() if module is not loaded.audio.net.bn0)
    for modality, batch in items().items():
        a, b = (getattr(e, modality).encode_prepared(batch) for e in (trained, loaded))
        torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=1e-6)
        torch.testing.assert_close(a.sequence, b.sequence, rtol=0, atol=1e-6)
        assert a.rate == b.rate
    assert "made-up clips" in (tmp_path / "out" / "README.md").read_text()


def test_digest_changes_with_the_weights(tmp_path):
    first, second = encoders(seed=0), encoders(seed=0)
    first.save_pretrained(tmp_path / "a")
    second.save_pretrained(tmp_path / "b")
    with torch.no_grad():
        second.audio.project.bias[0] += 1e-3
    second.save_pretrained(tmp_path / "c")
    a, b, c = (AlignedEncoders.from_pretrained(tmp_path / name).digest for name in "abc")
    assert a == b != c


def test_damaged_or_missing_folders_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="emit export"):
        AlignedEncoders.from_pretrained(tmp_path)
    encoders().save_pretrained(tmp_path / "w")
    weights = tmp_path / "w" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    with pytest.raises(UserError, match="damaged"):
        AlignedEncoders.from_pretrained(tmp_path / "w")
    encoders().save_pretrained(tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    (tmp_path / "x" / "config.json").write_text(json.dumps({**config, "format": "other/9"}))
    with pytest.raises(UserError, match="other/9"):
        AlignedEncoders.from_pretrained(tmp_path / "x")


NAMES = ["Admiration", "Amusement", "Joy"]


@pytest.mark.parametrize(
    "labels, words",
    [
        ([0.0, 0.9, 0.1], {"strong amusement, a little joy", "intense amusement, slight joy"}),
        ([0.0, 0.0, 0.0], {"no emotion"}),
        ([np.nan, np.nan, 0.5], {"much joy", "clear joy"}),
        ([np.nan, np.nan, np.nan], {""}),
    ],
)
def test_label_captions_name_the_intensity(labels, words):
    captions = {label_caption(np.array(labels, np.float32), NAMES, np.random.default_rng(s)) for s in range(60)}
    assert words <= captions
    if len(words) == 1:
        assert captions == words


def test_tied_weights_are_saved_under_both_names(tmp_path):
    """A tower of one's own may use one matrix in two places; safetensors refuses tensors that share memory."""
    built = encoders()
    built.text.first, built.text.second = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)
    built.text.second.weight = built.text.first.weight
    built.save_pretrained(tmp_path / "out", {"data": "made-up clips"})
    state = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("first", "second"):
        torch.testing.assert_close(state[f"text.{name}.weight"], built.text.first.weight.detach(), rtol=0, atol=0)
