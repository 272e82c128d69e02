import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from stage1_align.loss import info_nce


def reference(x, y, scale, ids, valid):
    """The obvious way: both whole matrices, autograd, one soft target a row."""
    rows = valid.nonzero()[:, 0]
    x, y, ids = x[rows], y[rows], ids[rows]
    target = (ids[:, None] == ids[None]).float()
    target = target / target.sum(1, keepdim=True)
    logits = scale * x @ y.T
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def inputs(n, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = normalize(torch.randn(n, d, generator=generator), dim=1).requires_grad_()
    y = normalize(torch.randn(n, d, generator=generator), dim=1).requires_grad_()
    return x, y, torch.tensor(9.0, requires_grad=True)


def test_two_rows_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = info_nce(x, x, torch.tensor(2.0), torch.tensor([0, 1]), torch.tensor([True, True]))
    assert loss.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 1)), abs=1e-6)


@pytest.mark.parametrize("tile", [1, 3, 64])
@pytest.mark.parametrize(
    "ids, valid",
    [
        ([0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]),
        ([0, 1, 0, 3, 1, 0], [1, 1, 1, 1, 1, 1]),
        ([0, 1, 0, 3, 1, 0], [1, 0, 1, 1, 1, 0]),
    ],
    ids=["distinct", "equal texts", "equal texts, items missing"],
)
def test_value_and_gradients_equal_the_reference(tile, ids, valid):
    ids, valid = torch.tensor(ids), torch.tensor(valid).bool()
    x, y, scale = inputs(6)
    expected = torch.autograd.grad(reference(x, y, scale, ids, valid), (x, y, scale))
    loss = info_nce(x, y, scale, ids, valid, tile)
    got = torch.autograd.grad(3 * loss, (x, y, scale))
    assert loss.item() == pytest.approx(reference(x, y, scale, ids, valid).item(), rel=1e-6)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g / 3, e, rtol=1e-5, atol=1e-7)


def test_equal_texts_are_not_negatives():
    x, y, scale = inputs(4)
    valid = torch.ones(4).bool()
    y = y[:1].detach().expand(4, -1)  # one text, four clips: nothing to tell apart
    loss = info_nce(x, y, scale, torch.zeros(4, dtype=torch.long), valid)
    gradient = torch.autograd.grad(loss, x)[0]
    assert loss.item() == pytest.approx(
        (math.log(4) + -torch.log_softmax(scale * x @ y[0], 0).mean().item()) / 2, rel=1e-5
    )
    # Seen from the clips every text is right, so only the other direction pulls: towards equal similarity.
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_valid_row_gives_zero_and_finite_gradients(scale):
    x, y, _ = inputs(3)
    s = torch.tensor(scale, requires_grad=True)
    loss = info_nce(x, y, s, torch.arange(3), torch.zeros(3).bool())
    gradients = torch.autograd.grad(loss, (x, y, s))
    assert loss.item() == 0
    assert all((g == 0).all() for g in gradients)


def test_large_scale_does_not_overflow_with_an_invalid_row():
    x, y, _ = inputs(5)
    s = torch.tensor(100.0, requires_grad=True)
    valid = torch.tensor([True, True, False, True, True])
    loss = info_nce(x, y, s, torch.arange(5), valid)
    for g, e in zip(
        torch.autograd.grad(loss, (x, y, s)),
        torch.autograd.grad(reference(x, y, s, torch.arange(5), valid), (x, y, s)),
        strict=True,
    ):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-6)


def test_logits_stay_fp32_under_autocast():
    x, y, scale = inputs(16)
    ids, valid = torch.arange(16), torch.ones(16).bool()
    plain = info_nce(x, y, scale, ids, valid)
    with torch.autocast("cpu", torch.bfloat16):
        cast = info_nce(x, y, scale, ids, valid)
    assert plain.item() == cast.item()
