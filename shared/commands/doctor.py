"""`emit doctor`: what is installed, what is missing, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from shared import config as configuration
from shared.options.ranges import CheckedOptions
from shared.terminal.closing import closing
from shared.terminal.results import result
from shared.text import one_line

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "laion-clap",
    "accelerate",
    "datasets",
    "einops",
    "numpy",
    "sentencepiece",
    "pyarrow",
    "av",
    "opencv-python-headless",
    "silero-vad",
)
REPAIR = "pip install -c constraints.txt -e ."


@dataclass
class DoctorConfig(CheckedOptions):
    """Check versions, devices, and parts that could fail silently."""


class Check(NamedTuple):
    """The result of one check."""

    name: str
    passed: bool
    detail: str
    """The version or part that was found, or what is wrong."""
    repair: str
    """What to do when the check failed."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit doctor`; 1 when something is missing."""
    configuration.parse(DoctorConfig, argv, prog="emit doctor", example="emit doctor")
    results, lines = [], []
    for check in checks():
        results.append(check)
        repair = "" if check.passed else f"  ->  {check.repair}"
        lines.append(f"{'ok  ' if check.passed else 'MISS'}  {check.name:<24} {check.detail}{repair}")
    failed = sum(not check.passed for check in results)
    lines.append(f"{failed} thing(s) missing; each line says how to get it" if failed else "nothing is missing")
    result("\n".join(lines), {"missing": failed, "checks": results})
    closing(then=[] if failed else [("demo",)])
    return 1 if failed else 0


def checks() -> Iterator[Check]:
    """Run all checks."""
    supported = (3, 11) <= sys.version_info < (3, 13)
    hint = "use Python 3.11 or 3.12 (laion-clap needs numpy<2)"
    yield Check("python", supported, platform.python_version(), hint)
    for name in PACKAGES:
        yield _try(name, partial(importlib.metadata.version, name), REPAIR)
    yield _try("datasets can be imported", _import_datasets, 'pip install "pyarrow>=24,<26" "numpy<2"')
    yield _try("face cascade", _face_cascade, 'pip install "opencv-python-headless<4.12"')
    yield _try("audio tower of laion-clap", _audio_tower, REPAIR)
    yield _try("video codecs", _codecs, "pip install --force-reinstall av")
    yield _try("compute", _compute, REPAIR)
    free = shutil.disk_usage(os.getcwd()).free / 2**30
    yield Check("disk", free > 2, f"{free:.0f} GiB free here", "free some space: the demo needs 1 GiB")


def _try(name: str, probe: Callable[[], str], repair: str) -> Check:
    """A check that passes when `probe` returns the detail; its exception is the detail of a failure."""
    try:
        return Check(name, True, probe(), "")
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", repair)
    except Exception as error:  # a library may raise anything
        return Check(name, False, one_line(error, 120), repair)


def _import_datasets() -> str:
    import datasets

    return datasets.__version__


def _face_cascade() -> str:
    import cv2.data

    path = cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml"
    if cv2.CascadeClassifier(path).empty():
        raise RuntimeError("the cascade file is missing")
    return "haarcascade_frontalface_alt2"


def _audio_tower() -> str:
    if importlib.util.find_spec("laion_clap") is None:
        raise RuntimeError("laion_clap not found")
    return "HTS-AT found"


def _codecs() -> str:
    import av

    needed = ("h264", "hevc", "vp8", "vp9", "av1", "aac", "opus", "mp3")
    missing = [name for name in needed if name not in av.codecs_available]
    if missing:
        raise RuntimeError(f"no decoder for {', '.join(missing)}")
    return ", ".join(needed)


def _compute() -> str:
    import torch

    from shared.training.precision import Hardware

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    fast_from = Hardware.here().fast_from
    speed = "slow" if fast_from is None else f"fast from width {fast_from} on" if fast_from else "fast"
    return f"{', '.join(devices) or 'no GPU'}; {torch.get_num_threads()} CPU threads; bf16 {speed}"
