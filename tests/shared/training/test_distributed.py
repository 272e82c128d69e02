"""Signals and errors of a training process."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from shared.cli import run_main
from shared.errors import UserError
from shared.training.distributed import Loader, Stop, companions, start


def test_stop_notes_sigterm_and_gives_the_earlier_handler_back():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("earlier"))
    try:
        with Stop() as stop:
            assert not stop.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked and not heard
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["earlier"]
        with pytest.raises(ZeroDivisionError), Stop():
            raise ZeroDivisionError
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["earlier", "earlier"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_loaders_process_survives_a_sigterm_at_any_moment(monkeypatch):
    """Also before and after torch has set its handlers, which end a process, and while it reads."""
    from torch.utils.data._utils import signal_handling

    before = signal.getsignal(signal.SIGTERM)
    handlers = signal_handling._set_worker_signal_handlers

    def set_handlers():
        os.kill(os.getpid(), signal.SIGTERM)
        handlers()
        os.kill(os.getpid(), signal.SIGTERM)

    def collate(rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return rows

    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", set_handlers)
    loader = Loader(range(4), batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    assert list(loader) == [[0, 1], [2, 3]]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_loaders_processes_start_after_opencv_has_used_its_threads():
    """A fork that waits for threads it does not have never answers."""
    program = """
import time, cv2, numpy as np
from shared.training.distributed import Loader
cv2.setNumThreads(2)
cv2.cvtColor(np.zeros((1080, 1920, 3), np.uint8), cv2.COLOR_BGR2GRAY)
time.sleep(1)  # its threads sleep now
print(list(Loader(range(4), batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context="fork")))
print(cv2.getNumThreads())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.split("\n")[:2] == ["[[0, 1], [2, 3]]", "2"], done.stderr


@pytest.mark.parametrize(
    "error, told",
    [
        (torch.distributed.DistBackendError("NCCL died"), "another process of this run was lost .NCCL died"),
        (RuntimeError("[gloo/transport] Connection closed\n by peer"), "was lost .*Connection closed by peer"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left.*; make room and run the same command"),
        (SafetensorError("I/O error: File too large (os error 27)"), "runs/a: .*File too large.*; make room"),
    ],
)
def test_what_no_process_can_help_is_one_line(error, told):
    with pytest.raises(UserError, match=told) as caught, companions("runs/a"):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EACCES, "denied"), KeyError("x")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, companions("runs/a"):
        raise error
    assert caught.value is error


def test_fp16_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="needs a GPU; use bf16, or no"):
        start("fp16")


@pytest.fixture
def forgotten():
    """Accelerators share a state, and tests their process."""
    yield
    AcceleratorState._reset_state()


def test_each_command_of_one_process_has_a_precision_of_its_own(forgotten):
    for precision in ("bf16", "no", "bf16"):
        accelerator = start(precision)
        assert accelerator.mixed_precision == precision
        with accelerator.autocast():
            product = torch.ones(2, 2, device=accelerator.device) @ torch.ones(2, 2, device=accelerator.device)
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_a_lost_pipe_is_no_success_but_a_lost_reader_is():
    def broken():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_main(broken)
    command = (
        "import sys; from shared.cli import run_main; run_main(lambda: print('x' * 100_000) or print('y', flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()
