"""`emit predict` of one clip, from the start of the process to its end."""

import subprocess
import sys

from benchmarks.bench import material
from benchmarks.bench.row import Bench, Measured, Row, watch

from shared.cli import emit_command
from shared.errors import UserError

USUAL = (
    "import av, cv2, open_clip, scipy.signal, torch, transformers; transformers.AutoModel, transformers.AutoTokenizer"
)


def ours(bench: Bench) -> Measured:
    film, model = material.film(bench), material.model(bench)
    timing = timed(emit_command("predict", film, "--model", model, "--out", bench.folder / "predictions.csv"))
    return Measured(timing, timed([sys.executable, "-c", "import torch"]))


def baseline(bench: Bench) -> Measured:
    return Measured(timed([sys.executable, "-c", USUAL]))


def timed(command: list[str]):
    with watch() as clock:
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return clock.timing(1)


ROW = Row(
    "predict, cold",
    "s",
    ours,
    baseline,
    "a script that imports torch, transformers, open_clip, OpenCV and SciPy, and does nothing",
    "a script that imports torch",
    material.model,
)
