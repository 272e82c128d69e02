"""How much memory a long file takes.

    python tests/benchmarks/long_files.py
    python tests/benchmarks/long_files.py --model runs/demo/fuse/model      and memory of `emit predict`

Media are made on the spot: a drawn face that speaks, 640 x 480 at 25 frames a second, H.264 and AAC, whose packets are
repeated. Each run is a process of its own on one core; its seconds include the start of Python, its memory is the peak
of its largest process. Of a long file prepare reads the first 20 s (`--max_seconds`); `emit predict` reads all of it,
window after window.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from shared import config as configuration
from shared.cli import emit_command

SECONDS = 10.0


@dataclass
class LongFilesConfig:
    """Measure the memory of `emit prepare`, and of `emit predict`, on this machine."""

    minutes: tuple[int, int] = (6, 20)
    """Lengths of the two files whose memory is compared."""
    model: Path | None = None
    """Model folder of stage 2 to predict the files with as well."""
    only: Path | None = None
    """Prepare this folder (with --model: predict it) and print what it took, as JSON: what the script starts itself
    with."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        LongFilesConfig, argv, prog="long_files.py", example="python tests/benchmarks/long_files.py"
    )
    if config.only:
        print(json.dumps(measure(config.only, config.model)))
        return 0
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder `tests`, as for pytest
    from benchmarks.bench.material import draw, repeat

    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        draw(clip, SECONDS)
        for minutes in config.minutes:
            folder = Path(name) / f"long{minutes}"
            folder.mkdir()
            repeat(clip, folder / "long.mp4", round(minutes * 60 / SECONDS))
            long = start(folder)
            print(f"one file of {minutes} min: {long['seconds']:.1f} s, {long['mib']:.0f} MiB")
            if config.model:
                long = start(folder, "--model", str(config.model))
                print(f"  predicted: {long['seconds']:.1f} s, {long['mib']:.0f} MiB, {long['windows']} windows")
    return 0


def start(source: Path, *more: str) -> dict:
    command = [sys.executable, __file__, "--only", str(source), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def measure(source: Path, model: Path | None) -> dict:
    """Prepare or predict a folder on one core: seconds, MiB, and how many windows."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    out = source.with_name(source.name + ("_predictions.csv" if model else "_clips"))
    command = ["predict", source, "--model", model] if model else ["prepare", source, "--workers", "1"]
    began = time.perf_counter()
    done = subprocess.run(emit_command(*command, "--out", out), capture_output=True, text=True)
    took = {"seconds": time.perf_counter() - began}
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    took["mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if model:
        took["windows"] = len(out.with_name(f"{out.stem}_timeline.csv").read_text().splitlines()) - 1
    return took


if __name__ == "__main__":
    sys.exit(main())
