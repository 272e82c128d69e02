"""Batch and instance norms give the gradients of their formula, however tensors lie in memory."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from shared.training.batch_norm import repair_gradients

LAYERS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = [(4, 3), (1, 3, 4), (2, 3, 4), (2, 3, 1), (2, 3, 4, 2), (2, 3, 4, 1), (2, 3, 1, 4), (1, 3, 4, 2), (2, 1, 4, 1)]


def layouts(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(len(shape))))


def laid_out(shape: tuple[int, ...], order: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Random values whose dimensions lie in memory in this order."""
    values = torch.randn([shape[dimension] for dimension in order], dtype=dtype)
    return values.permute([order.index(dimension) for dimension in range(len(shape))])


def by_hand(norm: nn.Module, x: Tensor) -> Tensor:
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    over = [d for d in range(x.ndim) if d != 1 and not (isinstance(norm, nn.InstanceNorm2d) and d == 0)]
    if norm.training or norm.running_mean is None:
        mean, variance = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
    else:
        mean, variance = norm.running_mean.view(shape), norm.running_var.view(shape)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


def varied(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        if norm.running_mean is not None:
            norm.running_mean.normal_(-60)
            norm.running_var.uniform_(0.5, 2)
    return norm


def assert_gradients_of_the_formula(norm: nn.Module, x: Tensor, gradient: Tensor) -> None:
    results = []
    for forward in (norm, lambda x: by_hand(norm, x)):
        norm.zero_grad()
        leaf = x.detach().requires_grad_()
        output = forward(leaf)
        output.backward(gradient)
        results.append([output.detach(), leaf.grad, norm.weight.grad, norm.bias.grad])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_in_every_layout(shape: tuple[int, ...], training: bool):
    torch.manual_seed(0)
    norm = varied(LAYERS[len(shape)](shape[1]).double().train(training))
    repair_gradients(norm)
    for of_input, of_gradient in itertools.product(layouts(shape), layouts(shape)):
        assert_gradients_of_the_formula(norm, laid_out(shape, of_input), laid_out(shape, of_gradient))


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (2, 3, 4, 1), (1, 3, 4, 2)])
def test_instance_norm_in_every_layout(shape: tuple[int, ...]):
    torch.manual_seed(0)
    norm = varied(nn.InstanceNorm2d(shape[1], affine=True).double())
    repair_gradients(norm)
    for of_input, of_gradient in itertools.product(layouts(shape), layouts(shape)):
        assert_gradients_of_the_formula(norm, laid_out(shape, of_input), laid_out(shape, of_gradient))


def test_mel_bands_of_htsat():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64).eval()
    repair_gradients(norm)
    x = torch.randn(2, 1, 256, 64).transpose(1, 3)
    gradient = torch.randn(2, 64, 256, 1)
    norm(x).backward(gradient)
    torch.testing.assert_close(norm.weight.grad, (x * gradient).sum((0, 2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(norm.bias.grad, gradient.sum((0, 2, 3)), rtol=1e-4, atol=1e-3)


def test_repair_keeps_names_values_and_other_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), varied(nn.BatchNorm2d(4)), nn.ReLU(inplace=True), nn.GroupNorm(2, 4))
    original, x = copy.deepcopy(model), torch.randn(2, 3, 6, 6)
    for _ in range(2):  # repairing again changes nothing
        repair_gradients(model)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert [name for name, module in model.named_modules() if "forward" in module.__dict__] == ["1"]
    clone = copy.deepcopy(model)
    assert clone[1].forward.args[0] is clone[1]
    for mode in (True, False):
        original.train(mode)
        model.train(mode)
        torch.testing.assert_close(model(x), original(x))
        with torch.no_grad():
            assert torch.equal(model(x), original(x))
    assert torch.equal(model[1].running_mean, original[1].running_mean)
    assert model.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_norm_without_affine_or_statistics():
    torch.manual_seed(0)
    for options in ({"affine": False}, {"track_running_stats": False}, {"bias": False}):
        try:
            norm = nn.BatchNorm2d(3, **options).eval()
        except TypeError:  # `bias` is newer than torch 2.11
            continue
        plain = copy.deepcopy(norm)
        repair_gradients(norm)
        x = torch.randn(2, 3, 4, 5, requires_grad=True)
        torch.testing.assert_close(norm(x), plain(x))
        norm(x).square().sum().backward()
        assert torch.isfinite(x.grad).all()
