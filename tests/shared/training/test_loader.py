"""Workers of a loader: they outlive a SIGTERM, and do not hang on OpenCV's threads."""

import os
import signal
import subprocess
import sys

import pytest

from shared.training.loader import SigtermSafeDataLoader


def test_worker_survives_sigterm_at_any_moment(monkeypatch: pytest.MonkeyPatch):
    """Before and after torch sets its handlers, which would end the worker, and while it collates."""
    from torch.utils.data._utils import signal_handling

    handler = signal.getsignal(signal.SIGTERM)
    set_worker_signal_handlers = signal_handling._set_worker_signal_handlers

    def set_handlers():
        os.kill(os.getpid(), signal.SIGTERM)
        set_worker_signal_handlers()
        os.kill(os.getpid(), signal.SIGTERM)

    def collate(rows: list[int]) -> list[int]:
        os.kill(os.getpid(), signal.SIGTERM)
        return rows

    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", set_handlers)
    options = {"batch_size": 2, "num_workers": 2, "collate_fn": collate, "multiprocessing_context": "fork"}
    assert list(SigtermSafeDataLoader(range(4), **options)) == [[0, 1], [2, 3]]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGTERM) == handler


def test_workers_start_after_opencv_used_its_threads():
    """A forked worker does not have the parent's threads; waiting for them would never end."""
    program = """
import time, cv2, numpy as np
from shared.training.loader import SigtermSafeDataLoader
cv2.setNumThreads(2)
cv2.cvtColor(np.zeros((1080, 1920, 3), np.uint8), cv2.COLOR_BGR2GRAY)
time.sleep(1)  # until its threads sleep
options = {"batch_size": 2, "num_workers": 2, "collate_fn": list, "multiprocessing_context": "fork"}
print(list(SigtermSafeDataLoader(range(4), **options)))
print(cv2.getNumThreads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[:2] == ["[[0, 1], [2, 3]]", "2"], done.stderr
