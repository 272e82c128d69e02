"""Which samples go to which process at which step: a pure function of (seed, epoch, step, rank).

Nothing here has state, so a killed run continues with the sample it would have seen, and W processes holding B/W rows
each see together exactly the batch that one process would have seen.
"""

import hashlib

import numpy as np

from shared.errors import UserError


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any integers and strings; different parts give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole global batches in an epoch; the remainder is left out, another remainder each epoch."""
    if count < batch_size:
        raise UserError(f"{count} training clips are fewer than one batch of {batch_size}: lower the batch size")
    return count // batch_size


def batch_indices(count: int, batch_size: int, seed: int, epoch: int, step: int, rank: int, world: int) -> np.ndarray:
    """Rows of this process in this step: int64 (batch_size / world,). `batch_size` counts all processes together."""
    mine = own_share(batch_size, rank, world)
    order = np.random.default_rng(derive_seed("order", seed, epoch)).permutation(count)
    return order[step * batch_size : (step + 1) * batch_size][mine]


def own_share(batch_size: int, rank: int, world: int) -> slice:
    """The rows of a global batch that are this process's: batch_size / world in a row."""
    if batch_size % world:
        raise UserError(f"a batch of {batch_size} cannot be shared by {world} processes: make it a multiple of {world}")
    mine = batch_size // world
    return slice(rank * mine, (rank + 1) * mine)
