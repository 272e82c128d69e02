"""The first line of a command: which slow library is being loaded, printed just before the import, which is spared the
search for garbage."""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from shared.terminal.messages import note

SLOW = (
    "torch",
    "transformers",
    "datasets",
    "open_clip",
    "laion_clap",
    "matplotlib",
    "gradio",
    "onnx",
    "faster_whisper",
)
"""Libraries whose import takes a second or more."""


class _Announcer:
    """A finder of modules that says what is loaded when a slow library is executed. Looking whether one is installed
    says nothing."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in SLOW or os.getpid() != self.process:  # workers are silent
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def announce(module: ModuleType) -> None:
            note(f"loading {name} ...")
            with _without_garbage_collection():
                execute(module)

        spec.loader.exec_module = announce  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """What a library makes in this block stays: Python would look through it for garbage again and again, a tenth of
    the time that importing torch takes, and finds next to nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def announce_loading() -> None:
    """From now on, say it when this process loads a slow library. At its end nothing is searched for garbage, which
    takes half a second after torch."""
    if not any(isinstance(finder, _Announcer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Announcer())
        atexit.register(gc.freeze)
