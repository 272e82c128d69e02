"""The contrastive losses, by hand and against the reference."""

import math

import pytest
import torch
from helpers.contrastive_reference import LOSSES, make_inputs, reference
from helpers.rounding import assert_same_up_to_rounding
from torch.nn.functional import normalize

from shared.errors import UserError
from stage1_align.config import LossConfig
from stage1_align.encoders import AlignedEncoders
from stage1_align.loss import contrastive
from stage1_align.model import ContrastiveModel

EYE = torch.eye(2)
BOTH = torch.tensor([True, True])


def test_info_nce_of_two_rows_by_hand():
    loss = contrastive(EYE, EYE, torch.tensor(2.0), torch.tensor([0, 1]), BOTH)
    assert loss.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 1)), abs=1e-6)


def test_sigmoid_of_two_rows_by_hand():
    bias = torch.tensor(-1.0, requires_grad=True)
    loss = contrastive(EYE, EYE, torch.tensor(3.0), torch.tensor([0, 1]), BOTH, kind="sigmoid", bias=bias)
    matching, other = math.log(1 + math.exp(-(3 - 1))), math.log(1 + math.exp(-1))  # one of each in a row
    assert loss.item() == pytest.approx(matching + other, abs=1e-6)
    loss.backward()
    assert bias.grad.item() == pytest.approx(-1 / (1 + math.exp(2)) + 1 / (1 + math.exp(1)), abs=1e-6)


def test_soft_targets_of_two_rows_by_hand():
    labels = torch.tensor([[0.0], [0.1]])  # one soft_width apart: k = exp(-1/2)
    kernel = math.exp(-0.5)
    shared = {"labels": labels, "soft": 0.4, "soft_width": 0.1}
    arguments = (EYE, EYE, torch.tensor(2.0), torch.tensor([0, 1]), BOTH)
    other = 0.4 * kernel / (1 + kernel)  # the target of the candidate that is not the query's own
    norm = math.log(math.e**2 + 1)
    assert contrastive(*arguments, **shared).item() == pytest.approx(norm - 2 * (1 - other), abs=1e-6)
    own, apart = 1.0, 0.4 * kernel  # T of the two candidates
    expected = math.log(1 + math.e**2) - 2 * own + math.log(2) - 0 * apart
    assert contrastive(*arguments, kind="sigmoid", **shared).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tile", [1, 3, 64])
@pytest.mark.parametrize("case", ["distinct", "equal texts", "items missing", "two texts"])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_equal_the_reference(name: str, case: str, tile: int, dtype: torch.dtype):
    x, y, scale, bias, ids, valid, labels = make_inputs(7)
    ids = torch.arange(7) if case == "distinct" else ids
    ids = torch.stack([ids, torch.tensor([5, 1, 5, 2, 2, 9, 1])], 1) if case == "two texts" else ids
    valid = valid if case == "items missing" else torch.ones(7).bool()
    options = {**LOSSES[name], "bias": bias, "labels": labels if "soft" in name else None}
    x, y = x.detach().to(dtype).requires_grad_(), y.detach().to(dtype).requires_grad_()
    inputs = (x, y, scale, bias) if "sigmoid" in name else (x, y, scale)
    slow = reference(x, y, scale, ids, valid, **options)
    loss = contrastive(x, y, scale, ids, valid, tile=tile, **options)
    rounding = 1e-5 if dtype == torch.float32 else 1e-9
    assert_same_up_to_rounding(loss.double(), slow, rounding)
    gradients = torch.autograd.grad(3 * loss, inputs)
    for g, e in zip(gradients, torch.autograd.grad(3 * slow, inputs), strict=True):
        assert_same_up_to_rounding(g, e, rounding if g.ndim else 1e-5)  # scale and bias are float32
    assert all(g.abs().max() > 1e-3 for g in gradients)
    assert (gradients[0][~valid] == 0).all()


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_clips_are_positives_when_either_text_is_equal_by_hand(kind):
    """Clips 0 and 1 share a transcript, 1 and 2 their labels, 0 and 2 nothing, so 2, 3 and 2 positives. info_nce, with
    logits s on the diagonal and 0 elsewhere, is log(e^s + 2) - s (1/2 + 1/3 + 1/2) / 3. sigmoid, where all second texts
    have the direction of the first clip: logits s of that clip, of which two are positives, and 0 elsewhere."""
    eye, s = torch.eye(3), 2.0
    encoders = AlignedEncoders(embed_dim=3)
    encoders.towers = lambda: {"text": None}
    model = ContrastiveModel(encoders, LossConfig(kind=kind, pairs={"text_text": 1.0}), ["transcript", "labels"])
    output = {
        "text": torch.stack([eye, eye if kind == "info_nce" else eye[[0, 0, 0]]]),
        "has_text": torch.ones(2, 3, dtype=torch.bool),
    }
    output |= {"scale_text_text": torch.tensor(s), "bias_text_text": torch.tensor(0.0)}
    text_id = torch.tensor([[7, 7, 8], [4, 5, 5]])
    loss = model.losses(output, text_id, None)["text_text"]
    by_hand = math.log(math.exp(s) + 2) - s * 4 / 9
    if kind == "sigmoid":
        by_hand = math.log(1 + math.exp(s)) - s * 2 / 3 + 2 * math.log(2)
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    positive, negative = (torch.tensor(ids) for ids in ([[7, 7, 7], [1, 2, 3]], [[1, 2, 3], [7, 7, 7]]))
    all_equal = math.log(math.exp(s) + 2) - s / 3  # one transcript for all, or one label for all: the same
    for ids in (positive, negative):
        if kind == "info_nce":
            assert model.losses(output, ids, None)["text_text"].item() == pytest.approx(all_equal, abs=1e-6)


def test_equal_texts_are_positives():
    x, y, scale, *_ = make_inputs(4)
    y = y[:1].detach().expand(4, -1)  # one text, four clips
    loss = contrastive(x, y, scale, torch.zeros(4, dtype=torch.long), torch.ones(4).bool())
    gradient = torch.autograd.grad(loss, x)[0]
    assert loss.item() == pytest.approx(
        (math.log(4) + -torch.log_softmax(scale * x @ y[0], 0).mean().item()) / 2, rel=1e-5
    )
    # Every text is a positive of every clip; only the direction from texts to clips has a gradient.
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_valid_row_gives_zero_loss_and_gradients(scale: float, name: str):
    x, y, _, bias, ids, _, labels = make_inputs(3)
    s = torch.tensor(scale, requires_grad=True)
    options = {**LOSSES[name], "bias": bias, "labels": labels}
    loss = contrastive(x, y, s, ids, torch.zeros(3).bool(), **options)
    gradients = torch.autograd.grad(loss, (x, y, s))
    assert loss.item() == 0
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("tile", [2, 64])
def test_largest_scale_does_not_overflow(tile: int):
    """Logits from -100 to 100, and a candidate so far below the maximum of its row that exp(z - max) underflows."""
    x = torch.eye(6, dtype=torch.float32)[:5].requires_grad_()
    y = torch.eye(6, dtype=torch.float32)[:5].clone()
    y[2], y[3] = -y[2], torch.eye(6)[5] * -1
    y.requires_grad_()
    scale = torch.tensor(100.0, requires_grad=True)
    ids, valid = torch.arange(5), torch.tensor([True, True, True, True, False])
    slow = reference(x, y, scale, ids, valid)
    loss = contrastive(x, y, scale, ids, valid, tile=tile)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)
    for g, e in zip(torch.autograd.grad(loss, (x, y, scale)), torch.autograd.grad(slow, (x, y, scale)), strict=True):
        assert_same_up_to_rounding(g, e)


def test_gradient_of_a_loss_near_zero_is_accurate():
    """For aligned rows, the gradient is a small difference of large terms."""
    x, _, _, _, _, _, _ = make_inputs(32, 16)
    y = normalize(x.detach() + 0.6 * make_inputs(32, 16, seed=1)[1].detach(), dim=1).requires_grad_()
    scale, ids, valid = torch.tensor(30.0, requires_grad=True), torch.arange(32), torch.ones(32).bool()
    slow = reference(x, y, scale, ids, valid)
    assert 1e-4 < slow < 0.02, slow
    got = torch.autograd.grad(contrastive(x, y, scale, ids, valid, tile=8), (x, y, scale))
    for g, e in zip(got, torch.autograd.grad(slow, (x, y, scale)), strict=True):
        assert ((g - e).norm() / e.norm()) < 1e-4


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_logits_stay_fp32_under_autocast_and_for_bf16_features(kind: str):
    x, y, scale, bias, ids, valid, _ = make_inputs(16)
    plain = contrastive(x, y, scale, ids, valid, kind=kind, bias=bias)
    with torch.autocast("cpu", torch.bfloat16):
        cast = contrastive(x, y, scale, ids, valid, kind=kind, bias=bias)
    assert plain.item() == cast.item()
    low = [value.detach().bfloat16().requires_grad_() for value in (x, y)]
    loss = contrastive(*low, scale, ids, valid, kind=kind, bias=bias)
    assert loss.item() == pytest.approx(reference(*low, scale, ids, valid, kind=kind, bias=bias).item(), rel=1e-5)
    assert torch.autograd.grad(loss, low)[0].dtype == torch.bfloat16


def test_mistakes_are_one_line():
    x, y, scale, _, ids, valid, _ = make_inputs(3)
    with pytest.raises(UserError, match="did you mean 'sigmoid'"):
        contrastive(x, y, scale, ids, valid, kind="sigmiod")
    with pytest.raises(UserError, match="pass labels"):
        contrastive(x, y, scale, ids, valid, soft=0.5)
