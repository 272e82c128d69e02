"""Load Gradio for the server: quietly, and in two thirds of the time."""

import contextlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def load_gradio(folder: Path) -> None:
    """Import Gradio without its usage statistics. folder: for its temporary files."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    with _without_type_stubs():
        import gradio  # noqa: F401


@contextlib.contextmanager
def _without_type_stubs() -> Iterator[None]:
    """On each import, Gradio parses the source of all its components to rewrite their type stubs. It skips components
    without a source file."""
    getfile = inspect.getfile

    def getfile_outside_gradio(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not needed")
        return getfile(thing)

    inspect.getfile = getfile_outside_gradio  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile
