"""The first line of a command: which slow library is being loaded, printed just before its import. Garbage collection
is off during the import."""

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
    """A module finder that announces a slow library when it is executed. Checking whether one is installed prints
    nothing."""

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
    """Disable garbage collection in this block: a library's objects stay alive, so the collector finds next to nothing
    and takes a tenth of the time of importing torch."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def announce_loading() -> None:
    """From now on, announce each slow library that this process loads. At exit, skip the garbage collection, which
    takes half a second after torch."""
    if not any(isinstance(finder, _Announcer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Announcer())
        atexit.register(gc.freeze)
