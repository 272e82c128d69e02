"""The contrastive losses on two real processes against one with the whole batch: losses, gradients, updates."""

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from helpers.rounding import assert_same_up_to_rounding
from helpers.two_processes import on_two_processes
from torch import Tensor, nn
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
Case = tuple[str, str, int]


class Result(NamedTuple):
    losses: Tensor
    """(steps,)."""
    gradients: list[Tensor]
    """Of all parameters, in the first step: encoders, temperature and bias."""
    parameters: list[Tensor]
    """After the last step."""


class TwoEncoders(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, D), nn.Linear(7, D)
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return normalize(self.a(x), dim=1), normalize(self.b(y), dim=1), self.log_scale.exp(), self.bias.clone()


def make_batch(valid: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 0, 11])
    x, y = torch.randn(B, 5, generator=generator), torch.randn(B, 7, generator=generator)
    return x, y, ids, torch.tensor(VALID[valid]).bool()


def train(model: nn.Module, rows: slice, kind: str, valid_name: str, tile: int, steps: int = 3) -> Result:
    """A few steps of SGD on these rows of the batch."""
    x, y, ids, valid = (value[rows] for value in make_batch(valid_name))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    losses, gradients = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        a, b, scale, bias = model(x, y)
        loss = contrastive(a, b, scale, ids, valid, kind=kind, bias=bias, tile=tile) + 0 * bias  # unused by info_nce
        loss.backward()
        losses.append(loss.detach())
        gradients = gradients or [p.grad.clone() for p in model.parameters()]
        optimizer.step()
    return Result(torch.stack(losses), gradients, [p.detach().clone() for p in model.parameters()])


def work(rank: int, world: int) -> dict[Case, Result]:
    rows = slice(rank * B // world, (rank + 1) * B // world)
    results = {}
    for case in CASES:
        result = train(DistributedDataParallel(TwoEncoders()), rows, *case)
        dist.all_reduce(result.losses)
        results[case] = result._replace(losses=result.losses / world)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Case, Result]]:
    return on_two_processes(work, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_equal_one_with_the_whole_batch(results: list[dict[Case, Result]], case: Case):
    one = train(TwoEncoders(), slice(None), *case)
    assert (one.losses > 0.1).all() or case[1] == "none"
    for rank in range(2):
        result = results[rank][case]
        torch.testing.assert_close(result.losses, one.losses, rtol=1e-5, atol=1e-5)
        for gradient, expected in zip(result.gradients, one.gradients, strict=True):
            assert_same_up_to_rounding(gradient, expected)
        torch.testing.assert_close(result.parameters, one.parameters, rtol=1e-4, atol=1e-5)
