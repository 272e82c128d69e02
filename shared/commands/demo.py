"""`emit demo`: every step, from a synthetic corpus to predictions. It only calls the other commands."""

import csv
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from shared import config as configuration
from shared.cli import call, emit_command, system_error
from shared.errors import UserError
from shared.files import digest, read_json, write_json
from shared.options.outputs import OutputFolder
from shared.options.ranges import CheckedOptions, ClipCount, NonNegativeInt, PositiveInt, Seed


@dataclass
class DemoConfig(CheckedOptions):
    """Synthetic corpus, prepare, stage 1, export, encode, stage 2, evaluate, predict: offline, on the CPU."""

    out: OutputFolder = Path("runs/demo")
    """Folder of all results; metrics.json is the main one."""
    clips: ClipCount = 2000
    """Clips of the synthetic corpus."""
    seed: Seed = 0
    """Seed of the corpus and of both trainings."""
    align_config: Path = Path("tiny")
    """Configuration of stage 1: a shipped one or a YAML file. Its vision tower gets crops of 64 pixels."""
    fuse_config: Path = Path("dual_stage")
    """Configuration of stage 2: a shipped one or a YAML file."""
    align_epochs: NonNegativeInt | None = None
    """Epochs of stage 1; by default those of its configuration."""
    fuse_epochs: PositiveInt | None = None
    """Epochs of stage 2; by default those of its configuration."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit demo`; 0 when every step succeeded."""
    config = configuration.parse(DemoConfig, argv, prog="emit demo", example="emit demo --out runs/demo --clips 2000")
    result, stamp = config.out / "metrics.json", config.out / "demo.json"
    made_from = {"demo": configuration.to_dict(config), "version": version("emit-toolkit")}
    for package, chosen in (("stage1_align", config.align_config), ("stage2_fusion", config.fuse_config)):
        made_from[chosen.name] = digest(configuration.find_config(chosen, package))
    if result.exists() and stamp.exists():
        done = read_json(stamp, "demo stamp", "delete it")
        if done["made_from"] == made_from:
            print(f"{config.out}: the demo already ran with these settings; nothing to do (delete the folder to rerun)")
            show(result, done["seconds"])
            return 0

    os.environ["HF_HUB_OFFLINE"] = "1"
    seconds = {}
    for name, command in steps(config):
        print(f"\n== {name}: {shlex.join(command)}", flush=True)
        start = time.perf_counter()
        run(name, command)
        seconds[name] = round(time.perf_counter() - start, 1)
    write_json(stamp, {"made_from": made_from, "seconds": seconds})
    show(result, seconds)
    return 0


def steps(config: DemoConfig) -> Iterator[tuple[str, list[str]]]:
    """(name, command line) of each step, in order. A step may read what the steps before it wrote."""
    out, seed = config.out, str(config.seed)
    align = [] if config.align_epochs is None else ["--train.epochs", str(config.align_epochs)]
    fuse = [] if config.fuse_epochs is None else ["--train.epochs", str(config.fuse_epochs)]
    model = f"{out}/fuse/model"
    yield "corpus", ["emit", "synth", "--out", f"{out}/corpus", "--clips", str(config.clips), "--seed", seed]
    yield "prepare", ["emit", "prepare", f"{out}/corpus", "--out", f"{out}/clips", "--frame_size", "64"]
    train = ["emit", "align", "--config", str(config.align_config)]
    yield "stage 1", [*train, "--data", f"{out}/clips", "--run", f"{out}/align", "--seed", seed, *align]
    yield "export", ["emit", "export", f"{out}/align", "--out", f"{out}/encoders"]
    encode = ["emit", "encode", "--encoders", f"{out}/encoders", "--data", f"{out}/clips", "--out", f"{out}/features"]
    yield "encode", [*encode, "--damaged_views", "1"]
    train = ["emit", "fuse", "--config", str(config.fuse_config)]
    yield "stage 2", [*train, "--data", f"{out}/features", "--run", f"{out}/fuse", "--seed", seed, *fuse]
    evaluate = ["emit", "evaluate", "--model", model, "--data", f"{out}/features"]
    yield "evaluate", [*evaluate, "--truth", f"{out}/corpus/truth.csv", "--out", f"{out}/metrics.json"]
    with (out / "corpus" / "labels.csv").open() as file:
        test_names = [row["Filename"] for row in csv.DictReader(file) if row["split"] == "test"]
    files = [str(out / "corpus" / name) for name in test_names[:4]]
    yield "predict", ["emit", "predict", "--model", model, *files, "--out", f"{out}/predictions.csv"]


def run(name: str, command: list[str]) -> None:
    """Run one step. Without a GPU it runs in this process, which imports torch, transformers and open_clip once for all
    steps; with a GPU it runs in a process of its own, which frees the GPU for the next step. UserError when it fails.
    """
    import torch

    words = command[1:]
    status: int | str | None
    try:
        in_process = not torch.cuda.is_available()
        status = call(words) if in_process else subprocess.run(emit_command(*words), check=False).returncode
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # run_main handles it
        raise
    except SystemExit as stop:  # invalid options, already reported
        status = stop.code
    except (OSError, MemoryError) as error:
        print(f"error: {system_error(error)}", file=sys.stderr)
        status = 1
    except Exception:
        traceback.print_exc()
        status = 1
    if status:
        raise UserError(f"the step {name!r} failed (status {status}); fix the error above and run the demo again")
    if "--run" in command and not (Path(command[command.index("--run") + 1]) / "metrics.json").exists():
        raise UserError(f"the step {name!r} was stopped; run the demo again to continue from its checkpoint")


def show(result: Path, seconds: dict[str, float]) -> None:
    """Print the closing table."""
    metrics = read_json(result, "metrics", "run the demo again")
    pcc, interval = metrics["pcc"], metrics["pcc"]["interval"]
    print("\nmean PCC on the test subjects")
    for name, value in pcc["per_dimension"].items():
        print(f"  {name:<16}{'n/a' if value is None else f'{value:.3f}'}")
    shown = f"   95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    print(f"  {'mean':<16}{pcc['mean']:.3f}{shown}")
    print(f"  {'ceiling':<16}{metrics['ceiling']['mean']:.3f}   {metrics['share_of_ceiling']:.0%} of it reached")
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    print(f"{result} holds all metrics; {result.parent / 'predictions.csv'} has four clips of the test split")
