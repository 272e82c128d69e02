"""How time and memory of the commands grow with the number of clips.

    python tests/benchmarks/growth.py --out runs/growth

`check`, `prepare`, `align` (one epoch) and `encode` read folders of half a second a clip, in which a few drawn clips
repeat under new names; `split`, `baseline`, `fuse` (one epoch), `evaluate` and `predict` read random features. Each
command is a process of its own on one core. Seconds include the start of Python; memory is the peak of its largest
process. A command that fails, or needs more than `--memory_gib`, has its error in place of figures. The table is in
OUT/growth.md; figures that OUT/growth.json has are not measured again.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.cli import emit_command
from shared.files import write_csv, write_json, write_text

LABELS = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
DRAWN, SECONDS = 40, 0.5
WIDTHS = {"vision": 128, "audio": 96, "text": 96, "embed": 64}
"""Of the random features: about those of the demo."""


@dataclass
class GrowthConfig:
    """Measure how the commands grow with the number of clips."""

    out: Path
    """Folder of everything made; OUT/growth.md is the table."""
    clips: list[int] = field(default_factory=lambda: [1000, 10000])
    """Numbers of clips of the commands that read media."""
    features: list[int] = field(default_factory=lambda: [1000, 10000, 100000])
    """Numbers of clips of the commands that read features."""
    align_config: str = "tiny"
    """Configuration of stage 1."""
    memory_gib: float = 16.0
    """Address space of a command at most."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        GrowthConfig, argv, prog="growth.py", example="python tests/benchmarks/growth.py --out runs/growth"
    )
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder `tests`, as for pytest
    config.out.mkdir(parents=True, exist_ok=True)
    figures = Figures(config.out / "growth.json", config.memory_gib)
    for count in config.clips:
        of_media(figures, config, count)
    for count in config.features:
        of_features(figures, config, count)
    text = figures.table()
    write_text(config.out / "growth.md", text)
    print(text)
    return 0


def of_media(figures: "Figures", config: GrowthConfig, count: int) -> None:
    source, folder = config.out / f"media{count}", config.out / f"from_media{count}"
    if not (source / "labels.csv").exists():
        write_media(source, config.out / "drawn", count)
    figures.take("check", count, source, out=folder / "check.json")
    figures.take("prepare", count, source, "--frame_size", 64, "--workers", 1, out=folder / "clips")
    figures.take("align", count, "--config", config.align_config, "--data", folder / "clips", "--train.epochs", 1,
                 "--train.shrink_batch", "true", out=folder / "align", option="--run")  # fmt: skip
    encoders = config.out / "encoders"  # the same for all: those of the first
    if not encoders.exists():
        subprocess.run(emit_command("export", folder / "align", "--out", encoders), check=True, capture_output=True)
    figures.take("encode", count, "--encoders", encoders, "--data", folder / "clips", "--damaged_views", 1,
                 "--workers", 0, out=folder / "features")  # fmt: skip


def of_features(figures: "Figures", config: GrowthConfig, count: int) -> None:
    folder = config.out / f"from_features{count}"
    data = folder / "features"
    if not data.exists():
        folder.mkdir(exist_ok=True)
        write_features(data, count)
    figures.take("split", count, data, "--by", "subject", "--folds", 5, "--fold", 0, out=folder / "split")
    figures.take("baseline --kind ridge", count, "--data", data, out=folder / "ridge.json")
    figures.take("baseline --kind kernel", count, "--data", data, out=folder / "kernel.json")
    figures.take("fuse", count, "--config", "dual_stage", "--data", data, "--train.epochs", 1, "--train.shrink_batch",
                 "true", out=folder / "fuse", option="--run")  # fmt: skip
    model = folder / "fuse/model"
    figures.take("evaluate", count, "--model", model, "--data", data, out=folder / "metrics.json")
    figures.take("predict", count, "--model", model, "--data", data, out=folder / "predictions.csv")


class Figures:
    """What commands took, kept in a file."""

    def __init__(self, path: Path, memory_gib: float):
        self.path, self.bytes = path, int(memory_gib * 2**30)
        self.taken: dict[str, dict[str, dict]] = json.loads(path.read_text()) if path.exists() else {}
        """By command and by number of clips: seconds, cpu (seconds), mib; or error."""

    def take(self, name: str, count: int, *words: object, out: Path, option: str = "--out") -> None:
        of_command = self.taken.setdefault(name, {})
        if str(count) in of_command:
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        print(f"{name}, {count:,} clips", flush=True)
        of_command[str(count)] = self._run(emit_command(*name.split(), *map(str, words), option, str(out)))
        write_json(self.path, self.taken)

    def _run(self, command: Sequence[str]) -> dict:
        def limit() -> None:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            resource.setrlimit(resource.RLIMIT_AS, (self.bytes, self.bytes))

        log, began = self.path.with_suffix(".log"), time.perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, preexec_fn=limit)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            return {"error": log.read_text().strip().splitlines()[-1]}
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "mib": used.ru_maxrss / 1024}

    def table(self) -> str:
        lines = ["| command | clips | s | CPU s | ms of CPU for each further clip | MiB |", "|---|---|---|---|---|---|"]
        for name, by_count in self.taken.items():
            before = None
            for count, took in sorted(
                ((int(count), took) for count, took in by_count.items()), key=lambda pair: pair[0]
            ):
                if "error" in took:
                    lines.append(f"| {name} | {count:,} | {took['error']} | | | |")
                    continue
                each = f"{1000 * (took['cpu'] - before[1]['cpu']) / (count - before[0]):.2f}" if before else ""
                lines.append(
                    f"| {name} | {count:,} | {took['seconds']:.1f} | {took['cpu']:.1f} | {each} | {took['mib']:,.0f} |"
                )
                before = count, took
        return "\n".join(lines) + "\n"


def split_of(number: int) -> str:
    return {8: "valid", 9: "test"}.get(number % 10, "train")


def write_media(folder: Path, drawn: Path, count: int) -> None:
    """`count` clips that are links to the drawn ones, and labels.csv, which is written last. No drawn clip is in two
    splits."""
    from benchmarks.bench import material

    drawn.mkdir(exist_ok=True)
    for number in range(DRAWN):
        path = drawn / f"{number:02d}.mp4"
        if not path.exists():
            material.draw(path, SECONDS, seed=number)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        path = folder / "clips" / f"{number:06d}.mp4"
        path.unlink(missing_ok=True)
        path.hardlink_to(drawn / f"{number % DRAWN:02d}.mp4")
        rows.append([f"clips/{path.name}", *rng.random(len(LABELS)).round(6), f"subject{number % 1000:03d}",
                     material.caption(number), split_of(number)])  # fmt: skip
    write_csv(folder / "labels.csv", ["Filename", *LABELS, "subject", "transcript", "split"], rows)


def write_features(path: Path, count: int) -> None:
    """Random features of `count` clips with a damaged view each, from which the labels can be learned."""
    from helpers import synthetic_features

    from stage2_fusion.data.features import FeatureSample, write

    synthetic_features.WIDTHS.update(WIDTHS)

    def samples() -> Iterator[FeatureSample]:
        rng = np.random.default_rng(0)
        for number in range(count):
            clean = synthetic_features.sample(
                rng, len(LABELS), (16, 16, 12), id=f"{number:06d}", split=split_of(number), group=f"{number % 1000:03d}"
            )
            yield clean
            yield synthetic_features.damaged(rng, clean, ("vision", "audio")[number % 2], 1)

    write(path, samples(), synthetic_features.info(len(LABELS), label_names=list(LABELS)))


if __name__ == "__main__":
    sys.exit(main())
