"""SIGTERM: what a scheduler sends to a process before it kills it."""

import contextlib
import signal
from types import FrameType


class SigtermHandler:
    """Records that this process received SIGTERM, so that training stops after a step and saves its state.

    >>> with SigtermHandler() as sigterm:
    ...     for step in range(10):
    ...         if sigterm.requested:
    ...             break
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "SigtermHandler":
        with contextlib.suppress(ValueError):  # only the main thread may set a handler
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, getattr(self, "_previous", signal.SIG_DFL))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
