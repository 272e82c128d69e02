"""The gradient of two real processes against one process that holds the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from stage1_align.loss import info_nce

B, D = 12, 6


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, D), nn.Linear(7, D)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, x, y):
        return normalize(self.a(x), dim=1), normalize(self.b(y), dim=1), self.log_scale.exp()


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 0, 11])
    valid = torch.tensor([1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0]).bool()
    return torch.randn(B, 5, generator=generator), torch.randn(B, 7, generator=generator), ids, valid


def steps(model, rows, tile, count=3):
    """Losses, the first step's gradients, and the parameters after `count` SGD steps."""
    x, y, ids, valid = (value[rows] for value in batch())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses, first = [], None
    for _ in range(count):
        optimizer.zero_grad()
        a, b, scale = model(x, y)
        loss = info_nce(a, b, scale, ids, valid, tile)
        loss.backward()
        losses.append(loss.detach())
        first = first or [p.grad.clone() for p in model.parameters()]
        optimizer.step()
    return torch.stack(losses), first, [p.detach().clone() for p in model.parameters()]


def work(rank, world, folder, tile):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    rows = slice(rank * B // world, (rank + 1) * B // world)
    losses, gradients, parameters = steps(DistributedDataParallel(Pair()), rows, tile)
    dist.all_reduce(losses)
    torch.save((losses / world, gradients, parameters), f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and the interpreter's clean-up now and then aborts on them


@pytest.mark.parametrize("tile", [1, 4, 64])
def test_two_processes_equal_one(tmp_path, tile):
    mp.spawn(work, (2, tmp_path, tile), nprocs=2)
    one = steps(Pair(), slice(None), tile)
    for rank in range(2):
        losses, gradients, parameters = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(losses, one[0], rtol=1e-6, atol=1e-6)
        for got, expected in zip(gradients, one[1], strict=True):  # encoders and temperature alike
            assert got.norm() / expected.norm() == pytest.approx(1, abs=1e-5)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
        for got, expected in zip(parameters, one[2], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
