"""The contrastive loss, forward and backward. Memory is the peak beyond what stood before: program and inputs."""

from collections.abc import Callable

import torch
from benchmarks.bench import limits
from benchmarks.bench.row import Bench, Measured, Row, peak_mib, watch, with_limit
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from stage2_fusion.report.speed_file import Timing

WIDTH = 512
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(bench: Bench) -> Measured:
    from stage1_align.loss import contrastive

    def loss(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return contrastive(x, y, scale, torch.arange(len(x)), torch.ones(len(x)).bool(), tile=1024)

    timing, check = step(loss, bench.size.loss_batch)
    flops = 3 * 2 * bench.size.loss_batch**2 * WIDTH  # the logits, and the gradient of each side
    return with_limit(timing, limits.products(bench, flops, bench.size.loss_batch, bf16=False), check)


def baseline(bench: Bench) -> Measured:
    def loss(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        logits, own = scale * x @ y.T, torch.arange(len(x))  # (N, N), (N,)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    timing, check = step(loss, bench.size.loss_batch)
    return Measured(timing, check=check)


def step(loss: Loss, count: int) -> tuple[Timing, list[float]]:
    """One forward and backward of N rows; the loss and the norms of its gradients."""
    import psutil

    for n in (64, count):  # at first, so that libraries and threads are there before the clock starts
        torch.manual_seed(0)
        x, y = (normalize(torch.randn(n, WIDTH), dim=1).requires_grad_() for _ in range(2))  # (N, D)
        scale = torch.tensor(20.0, requires_grad=True)
        before = psutil.Process().memory_info().rss / 2**20
        with watch() as clock:
            value = loss(x, y, scale)
            value.backward()
    timing = clock.timing(count)
    timing.mib = max(0.0, peak_mib() - before)
    return timing, [value.item(), *(grad.norm().item() for grad in (x.grad, y.grad, scale.grad))]


ROW = Row(
    "contrastive loss",
    "rows/s",
    ours,
    baseline,
    "logits = scale * x @ y.T, cross_entropy of both directions",
    "its three products by torch.mm",
)
