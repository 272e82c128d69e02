"""Loading pickles of weights without running code that they may carry."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import torch

from shared.text import one_line

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def weights_only(*classes: Any) -> Iterator[None]:
    """Every torch.load in this block is weights-only, even if another library requests otherwise. classes: plain
    classes that its files may contain besides tensors."""
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(list(classes)):
            yield
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


def refusal(error: Exception) -> str:
    """Why a weight file was not loaded, in a few words. torch's message recommends loading it unsafely."""
    message = one_line(error)
    foreign = re.search(r"(?:unsupported|Unsupported global:) GLOBAL ([\w.]+)", message)
    if foreign:
        return f"it holds more than weights: {foreign[1]}"
    if "TorchScript" in message:
        return "it holds more than weights: a TorchScript program"
    if "Weights only load failed" in message:
        return "it is damaged, or no file of weights"
    return one_line(error, 200)
