"""Starting an Accelerator, and the errors that a process did not cause itself."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from shared.cli import run_main
from shared.errors import UserError
from shared.training.distributed import peer_failure_guard, start_accelerator

RUN = Path("runs/a")


@pytest.mark.parametrize(
    "error, message",
    [
        (torch.distributed.DistBackendError("NCCL died"), "another process of this run was lost .NCCL died"),
        (RuntimeError("[gloo/transport] Connection closed\n by peer"), "was lost .*Connection closed by peer"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left.*; make room and run the same command"),
        (SafetensorError("I/O error: File too large (os error 27)"), "runs/a: .*File too large.*; make room"),
    ],
)
def test_lost_peer_and_full_disk_are_one_line(error: Exception, message: str):
    with pytest.raises(UserError, match=message) as caught, peer_failure_guard(RUN):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EACCES, "denied"), KeyError("x")])
def test_other_errors_pass_unchanged(error: Exception):
    with pytest.raises(type(error)) as caught, peer_failure_guard(RUN):
        raise error
    assert caught.value is error


def test_fp16_without_a_gpu_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="needs a GPU; use bf16, or no"):
        start_accelerator("fp16")


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """Accelerators share their state, and tests share a process."""
    yield
    AcceleratorState._reset_state()


def test_each_command_of_a_process_has_its_own_precision(fresh_state: None):
    for precision in ("bf16", "no", "bf16"):
        accelerator = start_accelerator(precision)
        assert accelerator.mixed_precision == precision
        with accelerator.autocast():
            product = torch.ones(2, 2, device=accelerator.device) @ torch.ones(2, 2, device=accelerator.device)
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_broken_pipe_is_an_error_unless_the_reader_of_stdout_left():
    def broken():
        raise BrokenPipeError

    with pytest.raises(SystemExit, match="70"):
        run_main(broken)
    command = (
        "import sys; from shared.cli import run_main; run_main(lambda: print('x' * 100_000) or print('y', flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()
