"""Memory and time of the contrastive loss, forward and backward, against keeping the whole matrix.

    OMP_NUM_THREADS=1 python tests/benchmarks/loss_memory.py --sizes [4096,8192,16384]

ours        stage1_align.loss.contrastive
plain       logits = scale * x @ y.T; cross_entropy(logits) and cross_entropy(logits.T); autograd
open_clip   open_clip.loss.ClipLoss in one process: a product for each direction

Every measurement is a process of its own, taken in turns, so that a busy machine slows all alike. Extra memory is the
peak over what stood before the loss (program and inputs); the gradients of x and y, 2 N x D, are part of it.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from shared import config as configuration

PLAIN_MATRICES = {"plain": 5, "open_clip": 6}  # N x N fp32 held at the peak


@dataclass
class LossMemoryConfig:
    """Measure the contrastive loss on this machine's CPU."""

    sizes: list[int] = field(default_factory=lambda: [4096, 8192, 16384, 32768])
    """Batches N."""
    dim: int = 512
    """Width D of the embeddings."""
    tile: int = 1024
    """Side of a block of ours."""
    repeats: int = 3
    """Turns; the median and the range are shown."""
    only: str = ""
    """One measurement, as ours:4096, printed as JSON: what the script starts itself with."""


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/loss_memory.py --sizes [4096,8192]"
    config = configuration.parse(LossMemoryConfig, argv, prog="loss_memory.py", example=example)
    if config.only:
        print(json.dumps(measure(config, *config.only.split(":"))))
        return 0
    print(f"D = {config.dim}, tile {config.tile}, {config.repeats} turns: median (lowest to highest)\n", flush=True)
    print("| N | loss | extra MiB | seconds | seconds / ours | relative difference of loss, gradients |")
    print("|---|---|---|---|---|---|", flush=True)
    for size in config.sizes:
        names = ["ours", *(name for name in PLAIN_MATRICES if fits(name, size))]
        turns = [{name: start(config, name, size) for name in names} for _ in range(config.repeats)]
        for name in ("ours", *PLAIN_MATRICES):
            print(line(size, name, turns) if name in names else f"| {size} | {name} | does not fit in memory | | | |")
        sys.stdout.flush()
    return 0


def line(size: int, name: str, turns: list[dict]) -> str:
    def shown(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    ratio = shown([turn[name]["seconds"] / turn["ours"]["seconds"] for turn in turns])
    one, ours = turns[0][name]["values"], turns[0]["ours"]["values"]
    apart = ", ".join(f"{abs(a / b - 1):.0e}" for a, b in zip(one, ours, strict=True))
    memory = max(turn[name]["mib"] for turn in turns)
    seconds = shown([turn[name]["seconds"] for turn in turns])
    same = name == "ours"
    return f"| {size} | {name} | {memory:.0f} | {seconds} | {'1' if same else ratio} | {'' if same else apart} |"


def fits(name: str, size: int) -> bool:
    import psutil

    return PLAIN_MATRICES[name] * 4 * size**2 < 0.85 * psutil.virtual_memory().available


def start(config: LossMemoryConfig, name: str, size: int) -> dict:
    options = ["--dim", str(config.dim), "--tile", str(config.tile), "--only", f"{name}:{size}"]
    done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def measure(config: LossMemoryConfig, name: str, size: str) -> dict:
    """Seconds, extra MiB, and the loss with the norms of its gradients, of one forward and backward."""
    import resource
    import time

    import psutil
    import torch
    from torch.nn.functional import cross_entropy, normalize

    from stage1_align.loss import contrastive

    def plain(x, y, scale):
        logits, own = scale * x @ y.T, torch.arange(len(x))
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    def ours(x, y, scale):
        return contrastive(x, y, scale, torch.arange(len(x)), torch.ones(len(x)).bool(), tile=config.tile)

    losses = {"plain": plain, "ours": ours}
    if name == "open_clip":
        from open_clip.loss import ClipLoss

        losses["open_clip"] = ClipLoss()

    def step(n: int) -> tuple[float, float, list[float]]:
        torch.manual_seed(0)
        x, y = (normalize(torch.randn(n, config.dim), dim=1).requires_grad_() for _ in range(2))
        scale = torch.tensor(20.0, requires_grad=True)
        before, began = psutil.Process().memory_info().rss, time.perf_counter()
        loss = losses[name](x, y, scale)
        loss.backward()
        seconds = time.perf_counter() - began
        return seconds, before, [loss.item(), x.grad.norm().item(), y.grad.norm().item(), scale.grad.item()]

    step(64)  # libraries and threads are there before the clock starts
    seconds, before, values = step(int(size))
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20
    return {"seconds": seconds, "mib": mib, "values": values}


if __name__ == "__main__":
    sys.exit(main())
