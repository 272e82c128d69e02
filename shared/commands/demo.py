"""`emit demo`: `emit run demo` with options instead of variables."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from shared import config as configuration
from shared.options.outputs import OutputFolder
from shared.options.ranges import CheckedOptions, ClipCount, NonNegativeInt, PositiveInt, Seed, Workers
from shared.pipeline.execute import run_recipe
from shared.pipeline.recipe_file import read_recipe


@dataclass
class DemoConfig(CheckedOptions):
    """The recipe `demo`: synthetic corpus, prepare, stage 1, export, encode, stage 2, evaluate; offline, on the CPU."""

    out: OutputFolder = Path("runs/demo")
    """Output folder; metrics.json is the main result."""
    clips: ClipCount = 2000
    """Number of clips in the synthetic corpus."""
    seed: Seed = 0
    """Seed of the corpus and of both training runs."""
    align_config: Path = Path("tiny")
    """Configuration of stage 1: a shipped one or a YAML file. Its vision tower gets crops of 64 pixels."""
    labels_config: Path | None = Path("tiny_labels")
    """Configuration of a second stage-1 run with captions built from labels, scored separately; null skips it."""
    fuse_config: Path = Path("dual_stage")
    """Configuration of stage 2: a shipped one or a YAML file."""
    align_epochs: NonNegativeInt | None = None
    """Epochs of stage 1; by default as in its configuration."""
    fuse_epochs: PositiveInt | None = None
    """Epochs of stage 2; by default as in its configuration."""
    jobs: Workers = 1
    """Number of steps to run in parallel, each in its own process, as in `emit run`."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit demo`; 0 when every step succeeded."""
    config = configuration.parse(DemoConfig, argv, prog="emit demo", example="emit demo --out runs/demo --clips 2000")
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "jobs"}
    words = {name: "null" if value is None else str(value) for name, value in given.items()}
    run_recipe(read_recipe("demo"), words, jobs=config.jobs)
    return 0
