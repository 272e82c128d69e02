"""`emit compare A B`: is one system better than another, beyond the sampling of clips?"""

from dataclasses import asdict, dataclass
from pathlib import Path

from shared import config as configuration
from shared.files import write_json
from shared.options.outputs import OutputFile
from shared.options.ranges import CheckedOptions, ResamplesNeeded, Seed
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.comparison import Comparison, compare_evaluations, comparison_table
from stage2_fusion.evaluation.result_files import read_evaluations
from stage2_fusion.evaluation.results import check_distinct
from stage2_fusion.evaluation.unknown_training import refuse_unknown_evaluations


@dataclass
class CompareConfig(CheckedOptions):
    """Is A better than B? Paired bootstrap over groups of two evaluations of the same clips."""

    a: Path
    """Evaluation (the JSON file of `emit evaluate`)."""
    b: Path
    """Evaluation of the same clips by another system."""
    out: OutputFile | None = None
    """JSON file for the differences."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    bootstrap: ResamplesNeeded = 10000
    """Bootstrap samples; both systems are scored on the same ones."""
    seed: Seed = 0
    """Seed of the bootstrap."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        CompareConfig,
        argv,
        prog="emit compare",
        example="emit compare runs/a/metrics.json runs/b/metrics.json --out runs/a_against_b.json",
        positional=("a", "b"),
    )
    comparison = compare(config)
    result(comparison_table(comparison), comparison)
    closing([config.out] if config.out else [])
    return 0


def compare(config: CompareConfig) -> Comparison:
    """The differences A - B, written to `config.out` when it is given."""
    a, b = read_evaluations([config.a, config.b])
    check_distinct([a, b])
    refuse_unknown_evaluations([a, b], config.allow_unknown_training)
    comparison = compare_evaluations(a, b, config.bootstrap, config.seed)
    if config.out is not None:
        write_json(config.out, asdict(comparison))
    return comparison


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
