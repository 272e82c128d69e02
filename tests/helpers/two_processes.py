"""Runs a function in two real processes of one process group."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_two_processes(function: Callable[[int, int], Any], folder: Path) -> list[Any]:
    """The results of function(rank, world) of both processes. It must be a function of a module: it is pickled."""
    mp.spawn(_work, (2, function, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _work(rank: int, world: int, function: Callable[[int, int], Any], folder: Path) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # Accelerate needs them; the store is a file
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.save(function(rank, world), folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads outlive their group, and sometimes abort while the interpreter shuts down
