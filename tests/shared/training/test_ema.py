import pytest
import torch
from torch import nn

from shared.training.ema import Ema


def test_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, 0.9)
    nn.init.constant_(model.weight, 2.0)
    ema.update(model, 0)  # decay min(0.9, 1 / 10): 0.1 * 1 + 0.9 * 2
    assert ema.state_dict()["weight"].item() == pytest.approx(1.9)
    ema.update(model, 10**6)  # decay 0.9: 0.9 * 1.9 + 0.1 * 2
    assert ema.state_dict()["weight"].item() == pytest.approx(1.91)
    with ema.applied_to(model):
        assert model.weight.item() == pytest.approx(1.91)
    assert model.weight.item() == 2
    other = Ema(nn.Linear(1, 1, bias=False), 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.averages["weight"].item() == pytest.approx(1.91)


def test_frozen_parameters_are_not_averaged():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].requires_grad_(False)
    nn.init.constant_(model[1].weight, 1.0)
    frozen, ema = model[0].weight.item(), Ema(model, 0.5)
    assert list(ema.state_dict()) == ["1.weight"]
    nn.init.constant_(model[1].weight, 3.0)
    ema.update(model, 100)
    with ema.applied_to(model):
        assert (model[0].weight.item(), model[1].weight.item()) == (frozen, 2.0)
    assert (model[0].weight.item(), model[1].weight.item()) == (frozen, 3.0)


def test_small_changes_of_weights_in_half_precision_are_not_rounded_away():
    model = torch.nn.Linear(2, 2, bias=False).to(torch.bfloat16)
    torch.nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, 0.999)
    torch.nn.init.constant_(model.weight, 1.5)
    for step in range(10**6, 10**6 + 700):
        ema.update(model, step)
    expected = 1.5 - 0.5 * 0.999**700  # 1.2518
    torch.testing.assert_close(ema.averages["weight"], torch.full((2, 2), expected), atol=1e-4, rtol=0)
    with ema.applied_to(model):
        assert model.weight.dtype == torch.bfloat16 and abs(model.weight[0, 0].item() - expected) < 0.01
    assert (model.weight == 1.5).all()
