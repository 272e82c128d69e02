"""`emit leaderboard`: systems in a table, best first."""

from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration
from shared.errors import UserError
from shared.files import write_csv, write_text
from shared.options.outputs import OutputFile
from shared.options.ranges import CheckedOptions, Resamples, Seed
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.leaderboard import Leaderboard, build_leaderboard, read_systems
from stage2_fusion.evaluation.unknown_training import refuse_unknown_evaluations


@dataclass
class LeaderboardConfig(CheckedOptions):
    """A table of systems; evaluations with the same name are seeds of one system."""

    evaluations: list[str]
    """JSON files of `emit evaluate`, each PATH or NAME=PATH. Without a name, a system is named after its model and the
    options that distinguish it from other systems with that model; systems that differ otherwise (loss, features) need
    a name."""
    out: list[OutputFile] = field(default_factory=list)
    """File to write the table to, .md or .csv; once per file."""
    against: str | None = None
    """Name of a system: every other row states its difference from it, with a paired interval."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the interval of several seeds; a single seed keeps the interval of its evaluation."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    def __post_init__(self):
        super().__post_init__()
        for path in self.out:
            if Path(path).suffix not in (".md", ".csv"):
                raise UserError(f"--out {path}: a table is written as .md or .csv")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        LeaderboardConfig,
        argv,
        prog="emit leaderboard",
        example="emit leaderboard ours=runs/0/metrics.json ours=runs/1/metrics.json runs/ridge.json --out board.md",
        positional=("evaluations",),
    )
    board = leaderboard(config)
    result("\n".join(board.text()), board)
    closing(config.out)
    return 0


def leaderboard(config: LeaderboardConfig) -> Leaderboard:
    """Build the table and write the files of `config.out`."""
    systems = read_systems(config.evaluations)
    evaluations = [evaluation for parts in systems.values() for evaluation in parts]
    refuse_unknown_evaluations(evaluations, config.allow_unknown_training)
    board = build_leaderboard(systems, config.against, config.bootstrap, config.seed)
    for path in config.out:
        if path.suffix == ".md":
            write_text(path, board.markdown())
        else:
            write_csv(path, *board.csv())
    return board


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
