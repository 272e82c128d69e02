"""A process that has imported what steps need and starts each step as a fork of itself.

A step in a fresh process first spends seconds on importing torch, its compiler, Accelerate and datasets: `emit
evaluate` takes 7 seconds, in a fork 2. The server imports modules and computes nothing, so that no thread pool of
torch, OpenMP or Arrow exists when it forks. OpenBLAS and jemalloc start threads on import, but handle forks themselves.
A forked step then does everything that a fresh process does, including its exit, with bitwise identical results.
"""

import contextlib
import gc
import importlib
import os
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing import Pipe, connection, reduction
from typing import BinaryIO, NoReturn

from shared import cli

PRELOAD = {
    "shared.dataset.clip_dataset": ("prepare", "split"),
    "stage2_fusion.predictor": ("align", "export", "encode", "evaluate", "predict", "robustness", "report"),
    "stage2_fusion.trainer": ("fuse",),
    "torch._dynamo": ("align", "fuse"),
    "datasets": (
        "prepare",
        "split",
        "align",
        "encode",
        "fuse",
        "evaluate",
        "baseline",
        "predict",
        "robustness",
        "report",
    ),
}
"""{module: commands that import it}."""
SERVER = "shared.pipeline.step_server"
NUMBER = struct.Struct("=i")


def can_fork() -> bool:
    """Whether steps can be forked: on macOS, system libraries break in a fork."""
    return sys.platform == "linux"


class ForkedStep:
    """A step in a fork of the server, with the parts of the subprocess.Popen interface that are used."""

    def __init__(self, status: socket.socket, stdout: BinaryIO, stderr: BinaryIO):
        """status: socket that delivers its process id and, at its end, its exit status."""
        self._status, self.stdout, self.stderr = status, stdout, stderr
        self.pid = _receive_number(status)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """As Popen.poll. Several threads may call it, and a signal handler while it runs."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                content = self._status.recv(NUMBER.size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                # No number: the server was killed and the status is unknown.
                self.returncode = NUMBER.unpack(content)[0] if content else -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen.wait."""
        connection.wait([self._status], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status

    def terminate(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)


class StepServer:
    """Starts steps as forks. The server starts with the first step and ends with the block; running steps continue."""

    def __init__(self, commands: Iterable[str], environment: dict[str, str]):
        """commands: the commands that the steps call. environment: the environment of the steps."""
        used = set(commands)
        self._modules = [module for module, users in PRELOAD.items() if used & set(users)]
        self._environment = environment
        self._requests: connection.Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "StepServer":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.kill()
            self._process.wait()

    def start(self, words: Sequence[str]) -> ForkedStep | None:
        """Start `emit WORDS` when the server is ready; None if there is no server, for instance because an import
        failed: a step in a fresh process then says why."""
        requests, process = self._running()
        status, their_status = socket.socketpair()
        pipes = [os.pipe(), os.pipe()]
        handed_over = [their_status.detach(), *(writer for _, writer in pipes)]
        stdout, stderr = (os.fdopen(reader, "rb", buffering=0) for reader, _ in pipes)
        try:
            try:
                requests.send(list(words))
                for descriptor in handed_over:
                    reduction.send_handle(requests, descriptor, process.pid)
            finally:  # before waiting: only if nobody else holds them does the server's end show
                for descriptor in handed_over:
                    os.close(descriptor)
            return ForkedStep(status, stdout, stderr)
        except (EOFError, OSError):
            for stream in (status, stdout, stderr):
                stream.close()
            return None

    def _running(self) -> "tuple[connection.Connection, subprocess.Popen[bytes]]":
        if self._requests is None or self._process is None:
            self._requests, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", SERVER, str(theirs.fileno()), *self._modules],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,  # as in its forks: Python sets up its streams accordingly
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                    process_group=0,  # the parent process forwards Control-C to the steps
                )
            assert self._process.stdout
            self._process.stdout.close()  # the server itself prints nothing
        return self._requests, self._process


def _receive_number(status: socket.socket) -> int:
    """EOFError when the other end is closed."""
    content = status.recv(NUMBER.size)
    if not content:
        raise EOFError
    return NUMBER.unpack(content)[0]


def _serve(requests: connection.Connection) -> list[str] | None:
    """Fork for each request. Returns the words of the step in the fork, and None when the other end is closed."""
    running: dict[int, int] = {}  # {process id: where its status goes}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready = connection.wait([requests, woken])
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(running)
        if requests in ready:
            try:
                words = requests.recv()
                status, stdout, stderr = (reduction.recv_handle(requests) for _ in range(3))
            except (EOFError, OSError):
                return None
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                requests.close()
                os.dup2(stdout, 1)
                os.dup2(stderr, 2)
                for descriptor in (woken, wake, status, stdout, stderr, *running.values()):
                    os.close(descriptor)
                os.setpgid(0, 0)
                return words
            with contextlib.suppress(OSError):  # here too, so that the group exists when its number is known
                os.setpgid(pid, pid)
            os.close(stdout)
            os.close(stderr)
            running[pid] = status
            _send_number(status, pid)


def _report_ended(running: dict[int, int]) -> None:
    for pid, status in list(running.items()):
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended:
            _send_number(status, os.waitstatus_to_exitcode(how))
            os.close(running.pop(pid))


def _send_number(descriptor: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the run has ended
        os.write(descriptor, NUMBER.pack(number))


def main() -> NoReturn:
    """The server: `python -m shared.pipeline.step_server DESCRIPTOR MODULE...`."""
    requests = connection.Connection(int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # forks share the memory of the imported modules
    # Python warns about the threads of OpenBLAS and jemalloc, see above.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    words = _serve(requests)
    if words is None:
        sys.exit(0)
    sys.argv = [cli.__file__, *words]
    cli.main()
    raise AssertionError("unreachable: `main` exits")


if __name__ == "__main__":
    main()
