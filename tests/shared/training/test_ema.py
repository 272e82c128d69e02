import pytest
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
