"""Lines that a command prints besides its result."""

import contextlib
import sys
from typing import TextIO

from shared.terminal import modes
from shared.terminal.processes import is_main_process
from shared.terminal.progress import paused


def say(line: str) -> None:
    """Print a log line to stdout, even while a progress line is shown. Silent with --quiet and in all but the first
    process of a distributed run."""
    if is_main_process() and not modes.modes().quiet:
        write_text(f"{line}\n", sys.stdout)


def note(line: str) -> None:
    """Print a note or a warning to stderr, even while a progress line is shown; silent as `say`."""
    if is_main_process() and not modes.modes().quiet:
        if sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):  # keep the order of the output
                sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):  # stderr is closed
            write_text(f"{line}\n", sys.stderr)


def write_text(text: str, stream: TextIO | None) -> None:
    """Write whole lines, even while a progress line is shown; drop them if the stream is closed (None)."""
    with paused():
        if stream is not None:
            stream.write(text)  # at once, so that lines of several processes do not mix
            stream.flush()
