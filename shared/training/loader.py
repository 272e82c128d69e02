"""Loading batches in worker processes, and moving them to a device."""

import atexit
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from typing import Any

import torch

PR_SET_PDEATHSIG = 1


class SigtermSafeDataLoader(torch.utils.data.DataLoader):
    """A DataLoader with workers that ignore SIGTERM. A scheduler sends it to every process of a job, but only the
    trainer may react: a worker that ends would lose the batch that the trainer waits for."""

    def __init__(self, dataset: torch.utils.data.Dataset, **options: Any):
        super().__init__(dataset, worker_init_fn=_initialize_worker, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if not self.num_workers:
            return super().__iter__()
        import cv2

        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # inherited, until workers ignore it
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # ends OpenCV's threads: a fork lacks them and would wait for them forever
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _initialize_worker(worker: int) -> None:
    if sys.platform == "linux":  # after its trainer is killed, a worker would wait forever for a reader
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    import cv2

    cv2.setNumThreads(1)  # more threads would compete with the other workers for the cores
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the trainer ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


@atexit.register  # after torch is imported, so before multiprocessing waits for workers that ignore its SIGTERM
def _kill_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report their end as a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch, a nested dictionary, with every tensor on `device`. Copies from pinned memory to a GPU are
    asynchronous."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return batch.to(device, non_blocking=batch.is_pinned()) if isinstance(batch, torch.Tensor) else batch
