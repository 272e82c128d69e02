"""Which items make up each global batch: a pure function of (seed, epoch, step).

Nothing here depends on the number of processes or on what was drawn before, so W processes see together exactly what
one would, and a run resumes at any step. Each epoch, every source is a sequence of positions 0, 1, 2, ...: a table's
positions run through one random order after the other, a stream's through its records as they come. A batch takes the
next positions of each source, as many as its share.

A stream is read by every process from the beginning of the epoch, and each keeps only the records of its slice of the
batch. That is exact at any number of processes and on resumption, and cheap, because a record is not decoded until it
is needed; it wants all shards within reach of every process.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from shared.errors import UserError
from shared.training.sampling import derive_seed, local_rows, steps_per_epoch
from stage1_align.data.sources.base import Source, Stream


class Address(NamedTuple):
    """An item and its place; what is random about a sample is a function of it."""

    epoch: int
    source: int
    """Number of the source."""
    position: int
    """In the source's sequence of this epoch."""
    item: Any
    """What the source decodes: an index, or a record of a stream."""


class Mixture:
    """Batches mixed from sources by weight."""

    def __init__(self, sources: list[Source], weights: list[float], batch_size: int, samples_per_epoch: int, seed: int):
        """weights: shares of a batch, relative to each other. samples_per_epoch: 0 for the length of all tables."""
        self.sources, self.batch_size, self.seed = sources, batch_size, seed
        streams = [source.name for source in sources if isinstance(source, Stream)]
        if streams and not samples_per_epoch:
            raise UserError(f"{streams[0]}: a stream has no length; set samples_per_epoch")
        if any(weight <= 0 for weight in weights):
            raise UserError(f"the weights of the sources are {weights}: each must be above 0")
        self.bounds = np.concatenate([[0], np.cumsum(weights) / np.sum(weights)])  # (K + 1,)
        count = samples_per_epoch or sum(len(source) for source in sources)
        self.steps_per_epoch = steps_per_epoch(count, batch_size)
        self._shares = lru_cache(2)(self._shares)
        self._order = lru_cache(len(sources) + 1)(self._order)

    def composition(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each row of a global batch, and its position in the source's sequence: int64 (B,), (B,)."""
        counts, before = self._shares(epoch)
        source = np.repeat(np.arange(len(self.sources)), counts[step])  # (B,)
        position = np.concatenate([start + np.arange(n) for start, n in zip(before[step], counts[step], strict=True)])
        if len(self.sources) > 1:  # so that each process gets some of every source
            mixed = np.random.default_rng(derive_seed("mix", self.seed, epoch, step)).permutation(self.batch_size)
            source, position = source[mixed], position[mixed]
        return source, position

    def addresses(
        self, epoch: int, first_step: int, rank: int, world: int, report: Callable[[int, str], None]
    ) -> Iterator[list[Address]]:
        """This process's addresses of each step from `first_step` to the end of the epoch. What streams cannot read
        goes to report(source, what)."""
        mine = local_rows(self.batch_size, rank, world)
        counts, before = self._shares(epoch)
        streams = {
            k: islice(self._stream(k, epoch, report), int(before[first_step, k]), None)
            for k, source in enumerate(self.sources)
            if isinstance(source, Stream) and first_step < self.steps_per_epoch
        }
        for step in range(first_step, self.steps_per_epoch):
            records = {k: list(islice(stream, int(counts[step, k]))) for k, stream in streams.items()}
            source, position = self.composition(epoch, step)
            yield [
                Address(epoch, k, p, records[k][p - int(before[step, k])] if k in records else self._index(k, epoch, p))
                for k, p in zip(source[mine].tolist(), position[mine].tolist(), strict=True)
            ]

    def _shares(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each source in each step, and rows of it in all steps before: int64 (steps, K) both. Systematic
        resampling (Kitagawa 1996, J. Comput. Graph. Stat. 5): a share is exact in the mean and never off by a whole
        row."""
        draw = np.random.default_rng(derive_seed("shares", self.seed, epoch)).random((self.steps_per_epoch, 1))
        edges = np.floor(self.bounds * self.batch_size + draw).astype(np.int64)  # (steps, K + 1)
        edges[:, 0], edges[:, -1] = 0, self.batch_size  # whatever rounding says
        counts = np.diff(edges)  # (steps, K)
        return counts, np.cumsum(counts, axis=0) - counts

    def _index(self, k: int, epoch: int, position: int) -> int:
        """The item of a table at a position of its sequence."""
        lap, place = divmod(position, len(self.sources[k]))
        return int(self._order(k, epoch, lap)[place])

    def _order(self, k: int, epoch: int, lap: int) -> np.ndarray:
        """int64 (N,): the items of a table in the order of one lap."""
        rng = np.random.default_rng(derive_seed("order", self.seed, epoch, k, lap))
        return rng.permutation(len(self.sources[k]))

    def _stream(self, k: int, epoch: int, report: Callable[[int, str], None]) -> Iterator[Any]:
        """The records of a stream, lap after lap."""
        lap = 0
        while True:
            rng = np.random.default_rng(derive_seed("stream", self.seed, epoch, k, lap))
            empty = True
            for record in self.sources[k].records(rng, lambda what: report(k, what)):
                empty = False
                yield record
            if empty:
                raise UserError(f"{self.sources[k].name}: no readable record is left")
            lap += 1
