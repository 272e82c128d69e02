"""The cost of a step: time, waiting for data, memory."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class Meter:
    """Measures the steps of an epoch.

    >>> for batch in meter.iterate(loader):
    ...     train_step(batch)
    ...     run.log(step, **meter.measurements())
    """

    def __init__(self, batch_size: int, world: int, device: torch.device):
        self.batch_size, self.world, self.device = batch_size, world, device
        self.steps, self.started, self.data_wait = 0, time.perf_counter(), 0.0

    def iterate(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of `loader`; measures how long each step waits for its batch."""
        self.started, batches = time.perf_counter(), iter(loader)
        while True:
            requested = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.data_wait = time.perf_counter() - requested
            self.steps += 1
            yield batch

    @property
    def seconds(self) -> float:
        """Time since the epoch started."""
        return time.perf_counter() - self.started

    def measurements(self) -> dict[str, float]:
        """samples_per_second of all processes together and per process, over the epoch so far; data_wait_seconds of
        this step; memory_mib, the peak of this process so far (of its GPU, if it has one)."""
        rate = self.steps * self.batch_size / max(self.seconds, 1e-9)
        return {
            "samples_per_second": rate,
            "samples_per_second_per_process": rate / self.world,
            "data_wait_seconds": self.data_wait,
            "memory_mib": self._peak_memory() / 2**20,
        }

    def _peak_memory(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
