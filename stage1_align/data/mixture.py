"""Which items make up each global batch: a pure function of (seed, epoch, step).

Nothing here depends on the number of processes or on earlier draws. W processes together see exactly what one process
would see, and a run can resume at any step. In each epoch, every source is a sequence of positions 0, 1, 2, ...: for a
table, the positions run through one random order after another; for a stream, through its records as they arrive. A
batch takes the next positions of each source, according to its share.

Every process reads each stream from the start of the epoch and keeps only the records of its slice of the batch. This
is exact for any number of processes and on resumption. It is cheap, because only used records are decoded, but every
process needs access to all shards.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from shared.errors import UserError
from shared.training.sampling import derive_seed, local_rows, shrunken_batch, steps_per_epoch
from stage1_align.data.sources.base import PairSource, StreamSource, TableSource


class SampleIndex(NamedTuple):
    """An item and its position, which determines the random choices of a sample."""

    epoch: int
    source: int
    """Number of the source."""
    position: int
    """Position in the source's sequence of this epoch."""
    item: Any
    """What the source decodes: an index or a stream record."""


class Mixture:
    """Batches mixed from sources by weight."""

    def __init__(
        self,
        sources: list[PairSource],
        weights: list[float],
        batch_size: int,
        samples_per_epoch: int,
        seed: int,
        shrink: bool = False,
        batch_by: str = "",
    ):
        """weights: relative shares of a batch. samples_per_epoch: 0 for the length of all tables. shrink: limit the
        batch to the size of an epoch. batch_by: group by which items follow one another, "" for none; tables without it
        are shuffled."""
        self.sources, self.batch_size, self.seed = sources, batch_size, seed
        self._streams = {k: source for k, source in enumerate(sources) if isinstance(source, StreamSource)}
        self._lengths = {k: len(source) for k, source in enumerate(sources) if isinstance(source, TableSource)}
        if self._streams and not samples_per_epoch:
            name = next(iter(self._streams.values())).name
            raise UserError(f"{name}: a stream has no length; set samples_per_epoch")
        if any(weight <= 0 for weight in weights):
            raise UserError(f"the weights of the sources are {weights}: each must be above 0")
        self._groups = {
            k: group_numbers(values)
            for k, source in enumerate(sources)
            if batch_by and isinstance(source, TableSource) and (values := source.groups(batch_by)) is not None
        }
        self.bounds = np.concatenate([[0], np.cumsum(weights) / np.sum(weights)])  # (K + 1,)
        self.count = samples_per_epoch or sum(self._lengths.values())
        if shrink:
            self.batch_size = shrunken_batch(self.count, batch_size)
        self.steps_per_epoch = steps_per_epoch(self.count, self.batch_size)
        self._row_counts = lru_cache(2)(self._draw_row_counts)
        self._order = lru_cache(len(sources) + 1)(self._draw_order)

    def composition(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The source of each row of a global batch, and its position in the source's sequence: int64 (B,), (B,)."""
        counts, offsets = self._row_counts(epoch)
        source = np.repeat(np.arange(len(self.sources)), counts[step])  # (B,)
        position = np.concatenate([start + np.arange(n) for start, n in zip(offsets[step], counts[step], strict=True)])
        if len(self.sources) > 1:  # each process gets rows of every source
            shuffled = np.random.default_rng(derive_seed("mix", self.seed, epoch, step)).permutation(self.batch_size)
            source, position = source[shuffled], position[shuffled]
        return source, position

    def sample_indices(
        self, epoch: int, first_step: int, rank: int, world: int, report: Callable[[int, str], None]
    ) -> Iterator[list[SampleIndex]]:
        """The samples of this process in each step, from `first_step` to the end of the epoch. report(source, reason)
        is called for records that a stream cannot read."""
        local = local_rows(self.batch_size, rank, world)
        counts, offsets = self._row_counts(epoch)
        streams = {
            k: islice(self._records(k, epoch, report), int(offsets[first_step, k]), None)
            for k in self._streams
            if first_step < self.steps_per_epoch
        }
        for step in range(first_step, self.steps_per_epoch):
            records = {k: list(islice(stream, int(counts[step, k]))) for k, stream in streams.items()}
            start = offsets[step].tolist()
            sources, positions = (values[local].tolist() for values in self.composition(epoch, step))
            yield [
                SampleIndex(epoch, k, p, records[k][p - start[k]] if k in records else self._table_row(k, epoch, p))
                for k, p in zip(sources, positions, strict=True)
            ]

    def _draw_row_counts(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each source in each step, and in all steps before it: int64 (steps, K) both. Systematic resampling
        (Kitagawa 1996, J. Comput. Graph. Stat. 5): a share is exact on average and never off by a whole row."""
        draw = np.random.default_rng(derive_seed("shares", self.seed, epoch)).random((self.steps_per_epoch, 1))
        edges = np.floor(self.bounds * self.batch_size + draw).astype(np.int64)  # (steps, K + 1)
        edges[:, 0], edges[:, -1] = 0, self.batch_size  # rounding must not move the ends
        counts = np.diff(edges)  # (steps, K)
        return counts, np.cumsum(counts, axis=0) - counts

    def _table_row(self, k: int, epoch: int, position: int) -> int:
        """The row of a table at a position of its sequence."""
        lap, place = divmod(position, self._lengths[k])
        return int(self._order(k, epoch, lap)[place])

    def _draw_order(self, k: int, epoch: int, lap: int) -> np.ndarray:
        """int64 (N,): the rows of a table in the order of one lap."""
        rng = np.random.default_rng(derive_seed("order", self.seed, epoch, k, lap))
        order = rng.permutation(self._lengths[k])  # (N,)
        if k in self._groups:
            groups = self._groups[k]  # (N,)
            place = rng.permutation(groups.max(initial=-1) + 1)  # (G,)
            order = order[np.argsort(place[groups[order]], kind="stable")]  # (N,)
        return order

    def _records(self, k: int, epoch: int, report: Callable[[int, str], None]) -> Iterator[Any]:
        """The records of a stream, lap after lap."""
        lap = 0
        while True:
            rng = np.random.default_rng(derive_seed("stream", self.seed, epoch, k, lap))
            empty = True
            for record in self._streams[k].records(rng, lambda reason: report(k, reason)):
                empty = False
                yield record
            if empty:
                raise UserError(f"{self._streams[k].name}: no readable record is left")
            lap += 1


def group_numbers(values: list[str]) -> np.ndarray:
    """int64 (N,): equal numbers for equal values, from 0 on; each item with the value "" gets its own number."""
    names = [value or f"\0{row}" for row, value in enumerate(values)]
    return np.unique(names, return_inverse=True)[1] if names else np.zeros(0, np.int64)
