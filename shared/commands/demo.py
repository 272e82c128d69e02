"""`emit demo`: the whole way, from a synthetic corpus to six numbers a clip. It only calls the other commands."""

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
from shared.cli import call
from shared.errors import UserError
from shared.files import digest, read_json, write_json


@dataclass
class DemoConfig:
    """Synthetic corpus, prepare, stage 1, export, encode, stage 2, evaluate, predict: offline, on the CPU."""

    out: Path = Path("runs/demo")
    """Folder everything goes to; metrics.json is the result."""
    clips: int = 2000
    """Clips of the synthetic corpus."""
    seed: int = 0
    """Seed of the corpus and of both trainings."""
    align_config: Path = Path("stage1_align/configs/tiny.yaml")
    """Configuration of stage 1. Its vision tower is given crops of 64 pixels."""
    fuse_config: Path = Path("stage2_fusion/configs/dual_stage.yaml")
    """Configuration of stage 2."""
    align_epochs: int | None = None
    """Epochs of stage 1, when not those of its configuration."""
    fuse_epochs: int | None = None
    """Epochs of stage 2, when not those of its configuration."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(DemoConfig, argv, prog="emit demo", example="emit demo --out runs/demo --clips 2000")
    result = config.out / "metrics.json"
    made_from = {"demo": configuration.to_dict(config), "version": version("emit-toolkit")}
    for path in (config.align_config, config.fuse_config):
        if not path.is_file():
            raise UserError(
                f"{path}: not found; run `emit demo` from the repository, or name --align_config and --fuse_config"
            )
        made_from[path.name] = digest(path)
    stamp = config.out / "demo.json"
    if result.exists() and stamp.exists() and read_json(stamp, "demo stamp", "delete it")["made_from"] == made_from:
        print(
            f"{config.out}: the demo has already run with these settings; nothing to do (delete the folder to repeat)"
        )
        show(result, read_json(stamp, "demo stamp", "delete it")["seconds"])
        return 0

    os.environ["HF_HUB_OFFLINE"] = "1"
    seconds = {}
    for name, command in steps(config):
        print(f"\n== {name}: {shlex.join(command)}", flush=True)
        began = time.perf_counter()
        run(name, command)
        seconds[name] = round(time.perf_counter() - began, 1)
    write_json(stamp, {"made_from": made_from, "seconds": seconds})
    show(result, seconds)
    return 0


def steps(config: DemoConfig) -> Iterator[tuple[str, list[str]]]:
    """The commands a person would type, in order, each made when its turn comes."""
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
        unseen = [row["Filename"] for row in csv.DictReader(file) if row["split"] == "test"]
    files = [str(out / "corpus" / name) for name in unseen[:4]]
    yield "predict", ["emit", "predict", "--model", model, *files, "--out", f"{out}/predictions.csv"]


def run(name: str, command: list[str]) -> None:
    """One step, in this process, which imports torch, transformers and open_clip once for all of them; with a GPU in a
    process of its own, which leaves the GPU free for the next. UserError where it fails."""
    import torch

    try:
        here = not torch.cuda.is_available()
        status = call(command[1:]) if here else subprocess.run(executable(command), check=False).returncode
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # nobody reads any more
        raise
    except SystemExit as stop:  # options that could not be read, which were told
        status = stop.code
    except Exception:
        traceback.print_exc()
        status = 1
    if status:
        raise UserError(f"the step {name!r} failed (status {status}); mend what it says and run the demo again")
    if "--run" in command and not (Path(command[command.index("--run") + 1]) / "metrics.json").exists():
        raise UserError(f"the step {name!r} was asked to stop; run the demo again to go on from its checkpoint")


def executable(command: list[str]) -> list[str]:
    """The same command, run by this Python whatever PATH holds."""
    return [sys.executable, "-m", "shared.cli", *command[1:]]


def show(result: Path, seconds: dict[str, float]) -> None:
    """The closing table."""
    metrics = read_json(result, "metrics", "run the demo again")
    pcc, low_high = metrics["pcc"], metrics["pcc"]["interval"]
    print("\nmean PCC on people the model has never met")
    for name, value in pcc["per_dimension"].items():
        print(f"  {name:<16}{value:.3f}")
    interval = f"   95 % interval {low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
    print(f"  {'mean':<16}{pcc['mean']:.3f}{interval}")
    print(f"  {'ceiling':<16}{metrics['ceiling']['mean']:.3f}   {metrics['share_of_ceiling']:.0%} of it reached")
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    print(f"{result} holds everything; {result.parent / 'predictions.csv'} has four clips of the test split")
