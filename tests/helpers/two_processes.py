"""A function in two real processes of one group."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_two_processes(function: Callable[[int, int], Any], folder: Path) -> list[Any]:
    """What function(rank, world) gave in each; it stands at the top of its module, so that it can be pickled."""
    mp.spawn(_work, (2, function, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _work(rank: int, world: int, function: Callable, folder: Path) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # Accelerate asks for them; the store is a file
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(function(rank, world), folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and the interpreter's clean-up now and then aborts on them
