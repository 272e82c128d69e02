"""What the hardware can do, measured with as little around it as possible."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench.row import Bench, watch

from stage2_fusion.report.speed_file import Timing

SECONDS = 0.5
"""How long products of matrices are computed to find their rate."""


def products(bench: Bench, flops: float, amount: float, bf16: bool) -> Timing:
    """What products of large matrices take that are together as many operations (`flops`) as `amount` units of work."""
    rate, threads_cpu = product_rate(bench.size.matrix, bf16)
    seconds = flops / rate
    return Timing(amount, seconds, seconds * threads_cpu, note=f"{rate / 1e9:,.0f} GFLOP/s")


def product_rate(side: int, bf16: bool) -> tuple[float, float]:
    """Floating-point operations a second of torch.mm on square matrices: the best of the repetitions, as a limit should
    be; and CPU seconds for each second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    out = torch.empty_like(a)
    best, share, began = 0.0, 1.0, time.perf_counter()
    while not best or time.perf_counter() - began < SECONDS:
        with watch() as clock:
            for _ in range(4):
                torch.mm(a, b, out=out)
        rate = 4 * 2 * side**3 / clock.wall
        if rate > best:
            best, share = rate, clock.cpu / clock.wall
    return best, share


def count_flops(work: Callable[[], Any]) -> float:
    """Floating-point operations of the products, convolutions and attention in a piece of work, backward included. What
    is compiled runs as if it were not: the counter does not see into it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def decode_alone(path: Path, amount: float, threads: int) -> Timing:
    """Reading and decoding all of a file by PyAV, without using it."""
    import av

    with watch() as clock, av.open(str(path)) as container:
        for stream in container.streams.video:
            stream.codec_context.thread_count = threads
            stream.thread_type = "AUTO"
        for _ in container.decode():
            pass
    return clock.timing(amount)
