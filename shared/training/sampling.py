"""Random state and the order of samples, both pure functions of (seed, epoch, step, rank).

Nothing here keeps state: a resumed run continues with the next sample, and W processes with B/W rows each together see
exactly the batch that one process would see.
"""

import hashlib
import os
import random

import numpy as np

from shared.errors import UserError
from shared.text import counted


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and strings; different parts give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seed the generators of Python, NumPy and PyTorch. Trainers call this at each step with (seed, epoch, step, rank),
    so that a checkpoint needs no generator state."""
    import torch  # here: commands that only derive seeds start without it

    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole global batches in an epoch of `count` samples. The remainder is dropped: different samples in each
    epoch."""
    if count < batch_size:
        fits = shrunken_batch(count, batch_size)
        repair = f"give --train.batch_size {fits}" if fits <= count else "give more clips"
        raise UserError(
            f"{counted(count, 'training clip', 'is', 'are')} fewer than one batch of {batch_size}: {repair}"
        )
    return count // batch_size


def shrunken_batch(count: int, batch_size: int) -> int:
    """The batch size; with fewer training clips (`count`), the largest number that all processes share equally."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return batch_size if count >= batch_size else count // processes * processes or batch_size


def shrink_note(count: int, batch_size: int) -> str:
    """The note about a smaller batch."""
    used = shrunken_batch(count, batch_size)
    return f"a batch holds {counted(used, 'clip')}, not --train.batch_size {batch_size}: there are {count} to train on"


def batch_indices(count: int, batch_size: int, seed: int, epoch: int, step: int, rank: int, world: int) -> np.ndarray:
    """Samples of this process in this step: int64 (batch_size / world,). `batch_size` counts all processes together."""
    order = np.random.default_rng(derive_seed("order", seed, epoch)).permutation(count)  # (count,)
    return order[step * batch_size : (step + 1) * batch_size][local_rows(batch_size, rank, world)]


def local_rows(batch_size: int, rank: int, world: int) -> slice:
    """The rows of a global batch that belong to this process: batch_size / world consecutive ones."""
    if batch_size % world:
        raise UserError(f"a batch of {batch_size} cannot be shared by {world} processes: make it a multiple of {world}")
    count = batch_size // world
    return slice(rank * count, (rank + 1) * count)
