"""The gradient of a step in chunks against that of the step in one piece, dropout and all."""

import pytest
import torch
from helpers import contrastive_cases as cases
from helpers import stage1_tiny

from shared.errors import UserError
from stage1_align.config import LossConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.gradient_cache import cached_backward, split_into_chunks
from stage1_align.model import ContrastiveModel


@pytest.fixture(scope="module")
def accelerator():
    from accelerate import Accelerator

    return Accelerator(cpu=True)


@pytest.mark.parametrize("name, tile, chunks", cases.CASES)
def test_one_process(accelerator, name, tile, chunks):
    got, wanted = cases.step(accelerator, name, tile, chunks), cases.expected(name, chunks, world=1)
    cases.check(got, wanted)
    assert got["after"] == wanted["after"]  # what follows the step draws the same numbers


@pytest.mark.parametrize("chunks, sizes", [(1, [12]), (3, [4, 4, 4]), (5, [3, 3, 2, 2, 2]), (99, [1] * 12)])
def test_split_keeps_clips_together(chunks, sizes):
    batch = cases.make_batch()
    parts = split_into_chunks(batch, chunks)
    assert [part.text_id.shape[1] for part in parts] == sizes
    first = 0
    for part, size in zip(parts, sizes, strict=True):
        assert torch.equal(part.text_id, batch.text_id[:, first : first + size])
        assert torch.equal(part.inputs["vision"]["x"], batch.inputs["vision"]["x"][first : first + size])
        texts = batch.inputs["text"]["x"]
        kinds = texts[first : first + size], texts[12 + first : 12 + first + size]
        assert torch.equal(part.inputs["text"]["x"], torch.cat(kinds))  # all of the first kind first
        first += size


def test_split_refuses_a_tensor_that_has_no_rows_for_clips():
    with pytest.raises(UserError, match=r"batch\.audio\.window has 5 rows"):
        split_into_chunks(PairBatch({"audio": {"window": torch.zeros(5)}}, torch.zeros(1, 3).long()), 2)


def test_real_towers_in_chunks(accelerator):
    """Vision, audio and text as training collates them, random depth and dropout active."""
    encoders = stage1_tiny.encoders()
    items = stage1_tiny.items()
    inputs = {name: getattr(encoders, name).collate(items[name] * 2) for name in ("vision", "audio")}
    inputs["text"] = encoders.text.collate(items["text"] * 4)  # two texts for each of eight clips
    batch = PairBatch(inputs, torch.arange(16).view(2, 8))
    model = ContrastiveModel(encoders, LossConfig(), ["transcript", "labels"]).train()
    chunks = split_into_chunks(batch, 3)

    def loss_fn(out):
        return model.total(model.losses(out, batch.text_id, None))

    torch.manual_seed(5)
    cached_backward(accelerator, model, chunks, loss_fn)
    got = cases.gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    outs = [model(chunk) for chunk in chunks]
    loss_fn({k: torch.cat([o[k] for o in outs], 1) if outs[0][k].ndim else outs[0][k] for k in outs[0]}).backward()
    torch.testing.assert_close(got, cases.gradients(model), rtol=1e-5, atol=1e-6)


def test_weights_cast_without_gradient_are_not_used_again(accelerator):
    """Autocast keeps casts until its outermost block ends; those of the first pass have no gradient."""
    name = "info_nce"
    batch, model = cases.make_batch(), cases.make_model(name).eval()

    def losses(out):
        return model.losses(out, batch.text_id, None)

    with torch.autocast("cpu", torch.bfloat16):
        cached_backward(accelerator, model, split_into_chunks(batch, 3), lambda out: model.total(losses(out)))
    got = cases.gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        model.total(losses(model(batch))).backward()
    wanted = cases.gradients(model)
    assert torch.nn.functional.cosine_similarity(got["encoder"], wanted["encoder"], dim=0) > 0.999


@pytest.mark.parametrize("beyond, wanted", [(9.0, 100.0), (-2.0, 1.0), (2.5, 12.182494)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_temperature_beyond_its_limits_is_held_and_only_led_back(beyond, wanted, sign):
    """As when a sharded optimiser writes its own, unclamped copy over the parameter."""
    model = cases.make_model("info_nce")
    for log_scale in model.log_scale.values():
        log_scale.data.fill_(beyond)
    scales = {name: value for name, value in model(cases.make_batch()).items() if name.startswith("scale_")}
    assert len(scales) == len(model.log_scale)
    for value in scales.values():
        assert value.item() == pytest.approx(wanted, rel=1e-5)
    (sign * sum(scales.values())).backward()
    back = {9.0: 1, -2.0: -1}.get(beyond, sign)  # the sign of a gradient whose step leads inwards
    expected = sign * wanted if sign == back else 0.0
    assert all(p.grad.item() == pytest.approx(expected, rel=1e-5) for p in model.log_scale.values())
    model.clamp_scale()
    assert all(0 <= p.item() <= 4.6052 for p in model.log_scale.values())
