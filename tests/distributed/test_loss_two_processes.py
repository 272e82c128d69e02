"""Training on two real processes against one process that holds the whole batch: losses, gradients, parameters."""

import itertools

import pytest
import torch
import torch.distributed as dist
from helpers.two_processes import on_two_processes
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from stage1_align.loss import contrastive

B, D = 12, 6
VALID = {
    "some": [1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0],
    "none in the second process": [1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    "none": [0] * B,
}
CASES = list(itertools.product(("info_nce", "sigmoid"), VALID, (1, 4, 64)))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, D), nn.Linear(7, D)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, x, y):
        return normalize(self.a(x), dim=1), normalize(self.b(y), dim=1), self.log_scale.exp(), self.bias.clone()


def batch(valid):
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 0, 11])
    x, y = torch.randn(B, 5, generator=generator), torch.randn(B, 7, generator=generator)
    return x, y, ids, torch.tensor(VALID[valid]).bool()


def steps(model, rows, kind, valid, tile, count=3):
    """Losses, the first step's gradients, and the parameters after `count` SGD steps."""
    x, y, ids, valid = (value[rows] for value in batch(valid))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    losses, first = [], None
    for _ in range(count):
        optimizer.zero_grad()
        a, b, scale, bias = model(x, y)
        loss = contrastive(a, b, scale, ids, valid, kind=kind, bias=bias, tile=tile) + 0 * bias  # a softmax has none
        loss.backward()
        losses.append(loss.detach())
        first = first or [p.grad.clone() for p in model.parameters()]
        optimizer.step()
    return torch.stack(losses), first, [p.detach().clone() for p in model.parameters()]


def work(rank, world):
    rows = slice(rank * B // world, (rank + 1) * B // world)
    results = {}
    for case in CASES:
        losses, gradients, parameters = steps(DistributedDataParallel(Pair()), rows, *case)
        dist.all_reduce(losses)
        results[case] = losses / world, gradients, parameters
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return on_two_processes(work, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_equal_one(results, case):
    one = steps(Pair(), slice(None), *case)
    assert (one[0] > 0.1).all() or case[1] == "none"
    for rank in range(2):
        losses, gradients, parameters = results[rank][case]
        torch.testing.assert_close(losses, one[0], rtol=1e-5, atol=1e-6)
        for got, expected in zip(gradients, one[1], strict=True):  # encoders, temperature and bias alike
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        for got, expected in zip(parameters, one[2], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
