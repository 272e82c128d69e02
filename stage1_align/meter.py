"""What a step cost: time, waiting for data, memory."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class Meter:
    """Times the steps of an epoch.

    >>> for batch in meter.watch(loader):
    ...     figures = meter.figures()
    """

    def __init__(self, batch_size: int, world: int, device: torch.device):
        self.batch_size, self.world, self.device = batch_size, world, device
        self.steps, self.began, self.waited = 0, time.perf_counter(), 0.0

    def watch(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches, timing how long each was waited for."""
        self.began, batches = time.perf_counter(), iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited = time.perf_counter() - asked
            self.steps += 1
            yield batch

    @property
    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self.began

    def figures(self) -> dict[str, float]:
        """samples_per_second of all processes and of one, over the epoch so far; data_wait_seconds of this step;
        memory_mib, the highest so far of this process (of its GPU, where it has one)."""
        rate = self.steps * self.batch_size / max(self.seconds, 1e-9)
        return {
            "samples_per_second": rate,
            "samples_per_second_per_process": rate / self.world,
            "data_wait_seconds": self.waited,
            "memory_mib": self._memory() / 2**20,
        }

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
