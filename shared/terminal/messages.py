"""Lines that a command prints beside its result."""

import contextlib
import sys
from typing import TextIO

from shared.terminal import modes
from shared.terminal.processes import is_main_process
from shared.terminal.progress import paused


def say(line: str) -> None:
    """Print a line of the log to stdout, also while a progress line stands. Silent with --quiet and in the other
    processes of a distributed run."""
    if is_main_process() and not modes.modes().quiet:
        _write(line, sys.stdout)


def note(line: str) -> None:
    """Print a note or a warning to stderr, also while a progress line stands; silent as `say`."""
    if is_main_process() and not modes.modes().quiet:
        if sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):  # what was printed before comes before
                sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):  # stderr is closed
            _write(line, sys.stderr)


def _write(line: str, stream: TextIO | None) -> None:
    with paused():
        if stream is not None:
            stream.write(f"{line}\n")  # at once, so that lines of several processes do not mix
            stream.flush()
