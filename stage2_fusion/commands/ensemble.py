"""`emit ensemble`: combine several systems into one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest, write_csv
from shared.options.outputs import OutputEvaluation
from shared.options.ranges import CheckedOptions, Resamples, Seed
from shared.terminal.closing import closing
from shared.terminal.messages import note
from shared.terminal.results import result
from shared.text import counted
from stage2_fusion.evaluation import ensembling, gating
from stage2_fusion.evaluation.grid_weights import learn_grid
from stage2_fusion.evaluation.result_files import read_evaluations, write_evaluation
from stage2_fusion.evaluation.results import (
    Evaluation,
    EvaluationInfo,
    check_distinct,
    check_same_clips,
    combine_seen,
    combine_unknown,
    score_predictions,
)
from stage2_fusion.evaluation.same_clips import ClipSet
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.evaluation.stacks import Combiner, Learner, Stack
from stage2_fusion.evaluation.unknown_training import both_unknown, refuse_unknown_evaluations
from stage2_fusion.evaluation.unmet import common_unmet
from stage2_fusion.prediction.tables import TableDescription, are_of_one_source, combine_tables, weigh_tables
from stage2_fusion.prediction.writing import format_values


@dataclass
class EnsembleConfig(CheckedOptions):
    """Combine evaluations or predictions of the same clips by several systems into one."""

    members: list[Path]
    """JSON files of `emit evaluate` on the clips to be scored; or CSV files of `emit predict` or `emit submit`."""
    out: OutputEvaluation = field()
    """JSON file of the evaluation to write; for CSV files, the CSV file."""
    method: Literal["average", "rank", "ridge", "grid", "gate"] = "average"
    """average: the mean prediction; rank: the mean rank among these clips, which ignores each member's scale (CCC and
    MAE are then meaningless). The others learn weights from clips that no member was trained on. ridge: weights for
    each dimension, shrunk towards the average; grid: the weights in steps of 0.05 with the highest PCC; gate: weights
    that also depend on the clip, on the members' predictions and the quality of their inputs (`features`)."""
    fit: list[Path] = field(default_factory=list)
    """ridge, grid, gate: evaluations of the same systems, in the same order, on the clips to learn from (valid, or
    merged folds). By default, the weights for each fifth of the groups are learned on the other four fifths."""
    features: Path | None = None
    """gate: feature dataset with the quality signals of all clips."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: Seed = 0
    """Seed of the bootstrap, and of the gate."""

    def __post_init__(self):
        super().__post_init__()
        self.members = [Path(path) for path in self.members]  # strings from the command line
        if len(self.members) < 2:
            raise UserError("an ensemble needs two evaluations or more, or two tables of predictions")
        tables = [path for path in self.members if path.suffix.lower() == ".csv"]
        if tables and len(tables) < len(self.members):
            raise UserError(f"{tables[0]}: is a table of predictions, but not all members are; give one kind")
        if self.of_tables and self.learns and not self.fit:
            raise UserError(f"--method {self.method} learns from labels; give --fit, JSON files of `emit evaluate`")
        if self.of_tables != (self.out.suffix.lower() == ".csv"):
            raise UserError(f"--out {self.out}: the output is {'CSV' if self.of_tables else 'JSON'}; name it so")
        if self.fit and not self.learns:
            raise UserError(f"--fit is for --method ridge, grid or gate; {self.method} learns no weights")
        if (self.features is not None) != (self.method == "gate"):
            raise UserError("--features are what --method gate reads quality signals from; give both, or neither")
        if self.fit and len(self.fit) != len(self.members):
            raise UserError(
                f"--fit names {counted(len(self.fit), 'evaluation')} for {counted(len(self.members), 'member')}"
            )

    @property
    def learns(self) -> bool:
        """Whether the method learns weights from labels."""
        return self.method in ("ridge", "grid", "gate")

    @property
    def of_tables(self) -> bool:
        """Whether the members are predictions without labels."""
        return all(path.suffix.lower() == ".csv" for path in self.members)


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EnsembleConfig,
        argv,
        prog="emit ensemble",
        example="emit ensemble runs/a/test.json runs/b/test.json --method ridge --fit runs/a/valid.json "
        "--fit runs/b/valid.json --out runs/ensemble.json",
        positional=("members",),
    )
    if config.of_tables:
        combine_predictions(config)
        closing([config.out])
        return 0
    evaluation = ensemble(config)
    lines = [score_table(evaluation)]
    for name, weights in (evaluation.info.sections["member_weights"] or {}).items():
        lines.append(f"weights for {name}: {', '.join(f'{weight:.2f}' for weight in weights)}")
    result("\n".join(lines), evaluation.to_json())
    closing([config.out], [("compare", config.out, config.members[0])])
    return 0


def combine_predictions(config: EnsembleConfig) -> None:
    """Combine tables of predictions into one. UserError when they do not belong together."""
    made_from: dict[str, Any] = {"members": list(map(str, config.members)), "method": config.method}
    if config.learns:
        fit = _read_same_clips(config.fit, config.allow_unknown_training)
        combined = weigh_tables(
            config.members, fit, lambda ids: _combiner(config, fit, ClipSet(ids)), config.allow_unknown_training
        )
        made_from["fit"] = list(map(str, config.fit))
    else:
        combined = combine_tables(config.members, config.method)
    if not are_of_one_source(config.members):
        note(
            f"{config.members[0]}: its clips are matched with the other tables only by id; make sure that "
            "equal ids belong to the same clips"
        )
    rows = [[name, *format_values(values)] for name, values in combined.by_clip().items()]
    write_csv(config.out, ["Filename", *combined.names], rows)
    ranges = combined.scale.to_json() if combined.scale else None
    TableDescription(combined.names, ranges, combined.scale is not None, made_from).write(config.out)
    text = (
        f"{config.out}: {counted(len(rows), 'clip')}, {config.method} of "
        f"{counted(len(config.members), 'table')} of predictions"
    )
    result(text, {"file": config.out, "clips": len(rows), **made_from})


def ensemble(config: EnsembleConfig) -> Evaluation:
    """Combine, score, write the evaluation. UserError when the members do not score the same clips, or when the
    weights would be learned from clips that a member was trained on."""
    members = _read_same_clips(config.members, config.allow_unknown_training)
    fit = _read_same_clips(config.fit, config.allow_unknown_training) if config.fit else []
    if fit:
        ensembling.check_same_systems(members, fit)
    not_compared = ensembling.check_disjoint(fit, members, config.allow_unknown_training) if fit else ""
    predictions, weights, learned_from = _combine(config, members, fit)
    first, infos = members[0], [member.info for member in members]
    seen, seen_by_encoders = combine_seen(infos, max)
    info = EvaluationInfo(
        split=first.info.split,
        group=first.info.group,
        crossed_group=first.info.crossed_group,
        model="ensemble",
        configuration={"method": config.method},
        made_from={"members": [str(member.path) for member in members], "weights": learned_from},
        data=first.info.data,
        seen=seen,
        seen_by_encoders=seen_by_encoders,
        unknown_training=both_unknown(combine_unknown([*infos, *(member.info for member in fit)]), not_compared),
        ceiling=first.info.ceiling,
        leak_probe=first.info.leak_probe,
        label_ranges=first.info.label_ranges,
        sections={
            "members": [
                {"model": m.info.model, "pcc": m.scores.pcc.mean, "digest": digest(m.to_json())} for m in members
            ],
            "member_weights": None if weights is None else dict(zip(first.names, weights.tolist(), strict=True)),
        },
    )
    combined = score_predictions(
        info,
        first.names,
        first.ids,
        first.groups,
        first.scale.values(predictions),
        first.labels,
        config.bootstrap,
        config.seed,
        first.crossed,
        None if config.learns else common_unmet(members),  # learned weights have seen more clips
        first.fingerprints,
    )
    write_evaluation(config.out, combined)
    return combined


def _combine(
    config: EnsembleConfig, members: list[Evaluation], fit: list[Evaluation]
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any] | None]:
    """Predictions (N, K), as fractions of their range; with learned weights, also the weights (K, M) and what they were
    learned from."""
    if not config.learns:
        stacked = ensembling.stack_predictions(members)  # (N, K, M)
        average = config.method == "average"
        return stacked.mean(axis=2) if average else ensembling.average_ranks(stacked), None, None
    if not fit:
        ensembling.check_unseen(members, config.allow_unknown_training)
        labels, groups = ensembling.label_fractions(members[0]), members[0].groups
        stack = _stack(config, members, ClipSet.scored(members[0]), ensembling.stack_predictions(members))
        learned_from = {"fit": ensembling.CROSS_FITTED, "folds": ensembling.FOLDS}
        return *ensembling.cross_fit(stack, labels, groups, _learner(config)), learned_from
    combine, stack_of = _combiner(config, fit, ClipSet.scored(members[0]))
    shared_groups = len(set(fit[0].groups) & set(members[0].groups))
    learned_from = {"fit": [str(path) for path in config.fit], "clips": len(fit[0].ids), "shared_groups": shared_groups}
    return combine(stack_of(ensembling.stack_predictions(members))), combine.weights, learned_from


def _combiner(
    config: EnsembleConfig, fit: list[Evaluation], clips: ClipSet
) -> tuple[Combiner, Callable[[np.ndarray], Stack]]:
    """The learner for `fit`, and a function that makes a stack of predictions (N, K, M) of these clips."""
    ensembling.check_unseen(fit, config.allow_unknown_training)
    stack = _stack(config, fit, ClipSet.scored(fit[0]), ensembling.stack_predictions(fit))
    combine = _learner(config)(stack, ensembling.label_fractions(fit[0]), fit[0].groups)
    return combine, lambda stacked: _stack(config, fit, clips, stacked)


def _stack(config: EnsembleConfig, systems: list[Evaluation], clips: ClipSet, stacked: np.ndarray) -> Stack:
    """Predictions (N, K, M) of these clips by these systems, with the quality signals of a gate."""
    if config.features is None:
        return Stack(stacked)
    reads = [gating.read_modalities(each.info.model, each.info.configuration, each.path) for each in systems]
    return Stack(stacked, *gating.member_quality(config.features, clips, reads))


def _learner(config: EnsembleConfig) -> Learner:
    learners: dict[str, Learner] = {
        "ridge": ensembling.learn_ridge,
        "grid": learn_grid,
        "gate": partial(gating.learn_gate, seed=config.seed),
    }
    return learners[config.method]


def _read_same_clips(paths: list[Path], allow_unknown_training: bool) -> list[Evaluation]:
    first, *others = read_evaluations(paths)
    refuse_unknown_evaluations([first, *others], allow_unknown_training)
    check_distinct([first, *others])
    for other in others:
        check_same_clips(first, other)
    return [first, *others]


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
