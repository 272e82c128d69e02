"""The contract of all audio towers."""

import json

import numpy as np
import pytest
import torch
from helpers import stage1_tiny
from helpers.audio_tiny import KINDS, build, randomize, sounds
from helpers.rounding import assert_same_up_to_rounding

from stage1_align.encoders import AlignedEncoders

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_batch_equals_single_and_absent_sound_is_masked(kind):
    tower = build(*KINDS[kind])
    waveforms = sounds(16000, 0, 100, 47001)
    batch = tower.encode_prepared(waveforms)
    for row, item in enumerate(waveforms):
        single = tower.encode_prepared([item])
        steps = single.sequence.shape[1]
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0])
        assert torch.equal(batch.mask[row, :steps], single.mask[0]) and not batch.mask[row, steps:].any()
    assert not batch.mask[1].any() and (batch.sequence[1] == 0).all() and (batch.pooled[1] == 0).all()
    assert batch.mask[2].any()  # 100 samples are enough
    assert torch.isfinite(batch.sequence).all() and torch.isfinite(batch.pooled).all()
    present = batch.pooled[[0, 2, 3]]
    torch.testing.assert_close(present.norm(dim=1), torch.ones(3))
    assert batch.sequence.shape[-1] == tower.width and (present[0] - present[2]).abs().max() > 1e-3


@every_kind
def test_frames_have_the_stated_rate_and_the_place_of_the_sound(kind):
    tower = build(*KINDS[kind])
    sound = sounds(48000)[0]
    before = tower.encode_prepared([sound])
    steps = int(before.mask.sum())
    if kind in ("htsat", "htsat with levels", "clap", "mel_cnn") or kind.startswith("whisper"):
        assert steps == np.ceil(round(3 * before.rate, 6))
    else:
        assert before.rate == 50 and tower.min_samples == 400 and steps == (48000 - 400) // 320 + 1
    assert tower.encode_prepared([sound[:8000]]).rate == before.rate == tower.rate  # whatever the clip's length
    for begin in (6400, 30400):  # 0.2 s of other noise
        other = sound.copy()
        other[begin : begin + 3200] = sound[:3200]
        change = (tower.encode_prepared([other]).sequence - before.sequence)[0, :steps].abs().sum(-1)  # (T,)
        changed = (float(change.argmax()) + 0.5) / before.rate  # s
        assert begin / 16000 - 1 / before.rate <= changed <= (begin + 3200) / 16000 + 1 / before.rate


@every_kind
def test_exported_tower_loads_without_its_checkpoint(kind, tmp_path):
    encoders = stage1_tiny.encoders()
    tower = encoders.audio = randomize(build(*KINDS[kind]))
    encoders.names["audio"] = KINDS[kind][0]
    encoders.save_pretrained(tmp_path / "encoders")
    spec = json.loads((tmp_path / "encoders" / "config.json").read_text())["towers"]["audio"]
    assert spec["options"].get("pretrained") is None and spec["rate"] == tower.rate and spec["width"] == tower.width
    again = AlignedEncoders.from_pretrained(tmp_path / "encoders").audio
    assert json.loads(json.dumps(again.config())) == spec["options"]
    waveforms = sounds(9000, 21000)
    a, b = tower.encode_prepared(waveforms), again.encode_prepared(waveforms)
    assert_same_up_to_rounding(a.pooled, b.pooled)  # WavLM's attention rounds differently when frozen
    assert_same_up_to_rounding(a.sequence, b.sequence)


@every_kind
def test_every_trained_parameter_gets_a_gradient(kind):
    """DistributedDataParallel fails on a parameter without a gradient, also on a process whose clips all lack sound."""
    for lengths in ((9000, 0, 25000), (0,)):
        tower = build(*KINDS[kind]).train()
        encoded = tower(**tower.collate(sounds(*lengths)))
        encoded.pooled.square().sum().add(encoded.sequence.sum()).backward()
        assert [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in tower.parameters() if p.grad is not None)
    frozen = [p for name, p in tower.named_parameters() if "feature_extractor" in name]
    assert all(p.requires_grad == KINDS[kind][1].get("train_features", False) for p in frozen)


@every_kind
def test_blocks_run_in_order_and_can_be_checkpointed(kind):
    tower = build(*KINDS[kind])
    blocks = tower.blocks()
    assert len(blocks) == (2 if kind == "wavlm layer" else 3)  # `layer` drops one
    batch = tower.collate(sounds(20000, 9000))
    called = []
    hooks = [block.register_forward_hook(lambda module, *_: called.append(module)) for block in blocks]
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.forward = checkpointing(block.forward)
        tower.zero_grad()
        tower(**batch).sequence.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None})
    assert called == blocks
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        assert_same_up_to_rounding(gradients[1][name], gradient)


def checkpointing(forward):
    def again(*args, **kwargs):
        return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again
