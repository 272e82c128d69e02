"""`emit demo`: `emit run demo` with options in place of variables."""

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
    """Folder of all results; metrics.json is the main one."""
    clips: ClipCount = 2000
    """Clips of the synthetic corpus."""
    seed: Seed = 0
    """Seed of the corpus and of both trainings."""
    align_config: Path = Path("tiny")
    """Configuration of stage 1: a shipped one or a YAML file. Its vision tower gets crops of 64 pixels."""
    labels_config: Path | None = Path("tiny_labels")
    """Configuration of a second stage 1, with words made of labels, for a line of its own; null leaves it out."""
    fuse_config: Path = Path("dual_stage")
    """Configuration of stage 2: a shipped one or a YAML file."""
    align_epochs: NonNegativeInt | None = None
    """Epochs of stage 1; by default those of its configuration."""
    fuse_epochs: PositiveInt | None = None
    """Epochs of stage 2; by default those of its configuration."""
    jobs: Workers = 1
    """Steps that run at once, each in a process of its own, as in `emit run`."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit demo`; 0 when every step succeeded."""
    config = configuration.parse(DemoConfig, argv, prog="emit demo", example="emit demo --out runs/demo --clips 2000")
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "jobs"}
    words = {name: "null" if value is None else str(value) for name, value in given.items()}
    run_recipe(read_recipe("demo"), words, jobs=config.jobs)
    return 0
