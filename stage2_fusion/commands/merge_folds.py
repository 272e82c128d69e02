"""`emit merge-folds`: evaluations of disjoint clips, such as the folds of a cross-validation, as one."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.options.outputs import OutputEvaluation
from shared.options.ranges import CheckedOptions, Resamples, Seed
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.folds import merge_evaluations
from stage2_fusion.evaluation.result_files import read_evaluations, write_evaluation
from stage2_fusion.evaluation.results import Evaluation, check_distinct
from stage2_fusion.evaluation.scoring import format_pcc, score_table
from stage2_fusion.evaluation.unknown_training import refuse_unknown_evaluations


@dataclass
class MergeFoldsConfig(CheckedOptions):
    """Merge evaluations of disjoint clips (the folds of `emit split`) and score them as one."""

    evaluations: list[Path]
    """JSON files of `emit evaluate`, one per fold."""
    out: OutputEvaluation = field()
    """JSON file of the evaluation to write."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: Seed = 0
    """Seed of the bootstrap."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        MergeFoldsConfig,
        argv,
        prog="emit merge-folds",
        example="emit merge-folds runs/fold0/metrics.json runs/fold1/metrics.json --out runs/folds.json",
        positional=("evaluations",),
    )
    evaluation = merge_folds(config)
    parts = [part.pcc for part in evaluation.info.parts]
    known, listed = [pcc for pcc in parts if pcc is not None], ", ".join(map(format_pcc, parts))
    few = f"{len(known)} of the {len(parts)}" if len(known) < len(parts) else f"the {len(parts)}"
    mean = format_pcc(float(np.mean(known)) if known else None)
    text = f"{score_table(evaluation)}\nmean PCC of {few} parts alone: {mean} ({listed})"
    result(text, evaluation.to_json())
    closing([config.out], [("leaderboard", config.out)])
    return 0


def merge_folds(config: MergeFoldsConfig) -> Evaluation:
    """Merge and write the evaluation."""
    parts = read_evaluations(config.evaluations)
    check_distinct(parts)
    refuse_unknown_evaluations(parts, config.allow_unknown_training)
    evaluation = merge_evaluations(parts, config.bootstrap, config.seed)
    write_evaluation(config.out, evaluation)
    return evaluation


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
