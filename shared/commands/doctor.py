"""`emit doctor`: what this machine has, what is missing, and how to get it."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from shared import config as configuration
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
class DoctorConfig:
    """Check versions, devices and the parts that fail silently elsewhere."""


def main(argv: list[str] | None = None) -> int:
    configuration.parse(DoctorConfig, argv, prog="emit doctor", example="emit doctor")
    broken = 0
    for name, good, detail, repair in checks():
        broken += not good
        print(f"{'ok  ' if good else 'MISS'}  {name:<24} {detail}" + ("" if good else f"  ->  {repair}"))
    print("everything needed is here" if not broken else f"{broken} thing(s) missing; each line says how to get it")
    return 1 if broken else 0


def checks() -> Iterator[tuple[str, bool, str, str]]:
    """(name, whether it is good, what was found, how to repair it)."""
    good = (3, 11) <= sys.version_info < (3, 13)
    yield "python", good, platform.python_version(), "use Python 3.11 or 3.12 (laion-clap needs numpy<2)"
    for name in PACKAGES:
        try:
            yield name, True, importlib.metadata.version(name), ""
        except importlib.metadata.PackageNotFoundError:
            yield name, False, "not installed", REPAIR
    yield _try("datasets can be imported", _import_datasets, 'pip install "pyarrow>=24,<26" "numpy<2"')
    yield _try("face cascade", _face_cascade, 'pip install "opencv-python-headless<4.12"')
    yield _try("audio tower of laion-clap", _audio_tower, REPAIR)
    yield _try("video codecs", _codecs, "pip install --force-reinstall av")
    yield _try("compute", _compute, REPAIR)
    free = shutil.disk_usage(os.getcwd()).free / 2**30
    yield "disk", free > 2, f"{free:.0f} GiB free here", "free some space: the demo needs 1 GiB"


def _try(name, probe, repair) -> tuple[str, bool, str, str]:
    try:
        return name, True, probe(), ""
    except Exception as error:  # a doctor names whatever is wrong
        return name, False, one_line(error, 120), repair


def _import_datasets() -> str:
    import datasets

    return datasets.__version__


def _face_cascade() -> str:
    import cv2

    path = cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml"
    if cv2.CascadeClassifier(path).empty():
        raise RuntimeError("the cascade file is missing")
    return "haarcascade_frontalface_alt2"


def _audio_tower() -> str:
    import importlib.util

    if importlib.util.find_spec("laion_clap") is None:
        raise RuntimeError("laion_clap not found")
    return "HTS-AT found"


def _codecs() -> str:
    import av

    wanted = ("h264", "hevc", "vp8", "vp9", "av1", "aac", "opus", "mp3")
    missing = [name for name in wanted if name not in av.codecs_available]
    if missing:
        raise RuntimeError(f"no decoder for {', '.join(missing)}")
    return ", ".join(wanted)


def _compute() -> str:
    import torch

    from shared.training.distributed import fast_bf16

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    speed = "fast" if fast_bf16() else "slow"
    return f"{', '.join(devices) or 'no GPU'}; {torch.get_num_threads()} CPU threads; bf16 {speed}"
