"""The gradient of a step in chunks equals that of the whole batch, dropout included."""

import pytest
import torch
from accelerate import Accelerator
from helpers import contrastive_cases as cases
from helpers import stage1_tiny
from torch import Tensor

from shared.errors import UserError
from stage1_align.config import LossConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.gradient_cache import cached_backward, split_into_chunks
from stage1_align.model import ContrastiveModel


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.mark.parametrize("name, tile, chunks", cases.CASES)
def test_step_equals_autograd_through_reference_losses(accelerator: Accelerator, name: str, tile: int, chunks: int):
    result, wanted = cases.step(accelerator, name, tile, chunks), cases.expected(name, chunks, world=1)
    cases.check(result, wanted)
    assert result.next_random == wanted.next_random  # the step leaves the random state where one pass would


@pytest.mark.parametrize("count, sizes", [(1, [12]), (3, [4, 4, 4]), (5, [3, 3, 2, 2, 2]), (99, [1] * 12)])
def test_chunks_keep_the_parts_of_a_clip_together(count: int, sizes: list[int]):
    batch = cases.make_batch()
    chunks = split_into_chunks(batch, count)
    assert [chunk.text_id.shape[1] for chunk in chunks] == sizes
    first = 0
    for chunk, size in zip(chunks, sizes, strict=True):
        clips = slice(first, first + size)
        assert torch.equal(chunk.text_id, batch.text_id[:, clips])
        assert torch.equal(chunk.inputs["vision"]["x"], batch.inputs["vision"]["x"][clips])
        texts = batch.inputs["text"]["x"].unflatten(0, (2, 12))  # all of the first kind first
        assert torch.equal(chunk.inputs["text"]["x"], texts[:, clips].flatten(0, 1))
        first += size


def test_input_without_rows_for_clips_cannot_be_split():
    with pytest.raises(UserError, match=r"batch\.audio\.window has 5 rows"):
        split_into_chunks(PairBatch({"audio": {"window": torch.zeros(5)}}, torch.zeros(1, 3).long()), 2)


def test_real_towers_in_chunks(accelerator: Accelerator):
    """Vision, audio and text as training collates them, with dropout and stochastic depth."""
    encoders = stage1_tiny.encoders()
    items = stage1_tiny.items()
    inputs = {name: getattr(encoders, name).collate(items[name] * 2) for name in ("vision", "audio")}
    inputs["text"] = encoders.text.collate(items["text"] * 4)  # two texts for each of eight clips
    batch = PairBatch(inputs, torch.arange(16).view(2, 8))
    model = ContrastiveModel(encoders, LossConfig(), ["transcript", "labels"]).train()
    chunks = split_into_chunks(batch, 3)

    def loss_fn(output: dict[str, Tensor]) -> Tensor:
        return model.total(model.losses(output, batch.text_id, None))

    torch.manual_seed(5)
    cached_backward(accelerator, model, chunks, loss_fn)
    result = cases.gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    loss_fn(cases.concatenate([model(chunk) for chunk in chunks])).backward()
    torch.testing.assert_close(result, cases.gradients(model), rtol=1e-5, atol=1e-6)


def test_backward_pass_does_not_reuse_weights_cast_without_gradient(accelerator: Accelerator):
    """Autocast caches casts until its outermost block ends; those of the first pass have no gradient."""
    batch, model = cases.make_batch(), cases.make_model("info_nce").eval()

    def loss_fn(output: dict[str, Tensor]) -> Tensor:
        return model.total(model.losses(output, batch.text_id, None))

    with torch.autocast("cpu", torch.bfloat16):
        cached_backward(accelerator, model, split_into_chunks(batch, 3), loss_fn)
    result, _ = cases.gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss_fn(model(batch)).backward()
    wanted, _ = cases.gradients(model)
    assert torch.nn.functional.cosine_similarity(result, wanted, dim=0) > 0.999


@pytest.mark.parametrize("log_scale, scale", [(9.0, 100.0), (-2.0, 1.0), (2.5, 12.182494)])
@pytest.mark.parametrize("sign", [1, -1])
def test_temperature_outside_its_limits_is_clamped_and_can_return(log_scale: float, scale: float, sign: int):
    """As when a sharded optimizer overwrites the parameter with its own copy, which is not clamped."""
    model = cases.make_model("info_nce")
    for parameter in model.log_scale.values():
        parameter.data.fill_(log_scale)
    scales = {name: value for name, value in model(cases.make_batch()).items() if name.startswith("scale_")}
    assert len(scales) == len(model.log_scale)
    for value in scales.values():
        assert value.item() == pytest.approx(scale, rel=1e-5)
    (sign * sum(scales.values())).backward()
    inward = {9.0: 1, -2.0: -1}.get(log_scale, sign)  # sign of a gradient whose step leads back inside
    expected = sign * scale if sign == inward else 0.0
    assert all(p.grad.item() == pytest.approx(expected, rel=1e-5) for p in model.log_scale.values())
    model.clamp_scale()
    assert all(0 <= p.item() <= 4.6052 for p in model.log_scale.values())
