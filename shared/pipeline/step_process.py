"""A step in its own process; its lines are shown with the name of the step in front."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple, TextIO

from shared.cli import emit_command
from shared.pipeline.step_server import ForkedStep, StepServer
from shared.terminal.messages import write_text
from shared.terminal.modes import modes
from shared.terminal.results import STEP


class Ended(NamedTuple):
    """A step has ended, and its last line is printed."""

    number: int
    status: int
    """Exit status; 128 + the signal that ended it, as in a shell."""
    seconds: float
    error: str
    """The last error line, as shown; "" if it has none."""


Event = Ended | Exception
"""What a run waits for: the end of a step, or an error because stdout is closed."""
PATIENCE = 10.0
"""Seconds that a process gets to end by itself."""
CHUNK = 2**16
"""Bytes. A table that a step prints at once fits in one chunk, so that no lines of other steps come between."""


def start_process(
    words: Sequence[str], environment: dict[str, str], server: StepServer | None
) -> "ForkedStep | subprocess.Popen[bytes]":
    """`emit WORDS` in this environment and its own process group, with a pipe for stdout and stderr: a fork of the
    server, which has this environment, or a fresh process if there is no server."""
    forked = server.start(words) if server is not None else None
    return forked or subprocess.Popen(
        emit_command(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        process_group=0,
    )


def read_pipes(
    process: "ForkedStep | subprocess.Popen[bytes]",
    on_stdout: Callable[[bytes], object],
    on_stderr: Callable[[bytes], object],
) -> int:
    """Pass on what a process of `start_process` writes, b"" at the end of a stream, until it ends; returns its
    status."""
    assert process.stdout and process.stderr
    with selectors.DefaultSelector() as pipes, process.stdout as stdout, process.stderr as stderr:
        pipes.register(stdout, selectors.EVENT_READ, on_stdout)
        pipes.register(stderr, selectors.EVENT_READ, on_stderr)
        while pipes.get_map():
            ready = pipes.select(timeout=1.0)
            for key, _ in ready:
                chunk = os.read(key.fd, CHUNK)
                key.data(chunk)
                if not chunk:
                    pipes.unregister(key.fileobj)
            if not ready and process.poll() is not None:
                break  # a process that it started still runs and holds the pipe
    return process.wait()


def step_environment(threads: int) -> dict[str, str]:
    """The environment of a step with this many CPU threads, unless the user has set their number. The threads keep
    OpenMP's default wait policy: with the passive one, the small steps of stage 2 take twice as long."""
    shares = {"OMP_NUM_THREADS": str(threads)}
    given = {name: value for name, value in os.environ.items() if value or name not in shares}
    return {**shares, **given, STEP: "1"}


class StepProcess:
    """One running step, in its own process group: the parent process forwards Control-C to it."""

    def __init__(
        self,
        number: int,
        name: str,
        words: tuple[str, ...],
        environment: dict[str, str],
        server: StepServer | None,
        events: "SimpleQueue[Event]",
        translate: Callable[[str], str],
    ):
        """words: the words after `emit`. server: has this environment; None starts a fresh process. events: receives
        the end of the step. translate: rewrites an error message."""
        self._number, self._name, self._events, self._translate = number, name, events, translate
        self._began = time.perf_counter()
        self._error = ""
        words = (*words, *modes().words())
        self._process = start_process(words, environment, server)
        threading.Thread(target=self._follow, daemon=True, name=f"step {name}").start()

    def terminate(self) -> None:
        """Ask it to end; a training run saves its state first."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and kill it if it takes too long."""
        self.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def _follow(self) -> None:
        """Show its output until it ends."""
        stdout = _Lines(self._shown, sys.stdout, self._events.put)
        stderr = _Lines(self._shown, sys.stderr, lambda error: None)
        status = read_pipes(self._process, stdout.add, stderr.add)
        seconds = time.perf_counter() - self._began
        self._events.put(Ended(self._number, 128 - status if status < 0 else status, seconds, self._error))

    def _shown(self, line: str) -> str:
        """The line to show for a line of the step."""
        is_error = line.startswith(("error: ", "internal error: "))
        shown = f"[{self._name}] {self._translate(line) if is_error else line}".rstrip()
        if is_error:
            self._error = shown
        return shown


class _Lines:
    """Writes the lines of one pipe of a step as soon as they are complete."""

    def __init__(self, shown: Callable[[str], str], stream: TextIO | None, on_error: Callable[[Exception], None]):
        self._shown, self._stream, self._on_error = shown, stream, on_error
        self._rest = b""

    def add(self, chunk: bytes) -> None:
        """More of the output; b"" at its end."""
        whole, newline, self._rest = (self._rest + (chunk or b"\n" * bool(self._rest))).rpartition(b"\n")
        if not newline:
            return
        lines = whole.decode(errors="backslashreplace").split("\n")
        shown = [self._shown(line.rstrip("\r").rpartition("\r")[2]) for line in lines]  # a bar's last state
        try:
            write_text("\n".join([*shown, ""]), self._stream)
        except (OSError, ValueError) as error:  # closed: read and drop the rest, otherwise the step would block
            self._stream = None
            self._on_error(error)
