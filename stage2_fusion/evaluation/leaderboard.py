"""A table of cheap baselines, then systems, best first; several evaluations of one system are its seeds."""

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError
from shared.files import digest
from shared.metrics import DimensionScores, interval
from stage2_fusion.evaluation.bootstrap import group_by_clips, joint_draws
from stage2_fusion.evaluation.ensembling import CROSS_FITTED
from stage2_fusion.evaluation.result_files import read_evaluations
from stage2_fusion.evaluation.results import (
    MARK,
    Evaluation,
    EvaluationInfo,
    check_distinct,
    combine_unknown,
    parse_named_path,
)

CSV_COLUMNS = (
    "system",
    "seeds",
    "clips",
    "pcc",
    "sd",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "crossed_low",
    "crossed_high",
    "difference_crossed_low",
    "difference_crossed_high",
    "unmet",
    "unmet_low",
    "unmet_high",
    "unmet_clips",
)
"""Columns of the .csv before the dimensions."""

CROSSED = "both kinds of groups"
"""The column of intervals over two kinds of groups at once."""

Interval = list[float] | None
"""[low, high] of a 95 % interval."""


@dataclass(frozen=True)
class UnmetScore:
    """The score of the clips in groups that a system has not seen."""

    kinds: tuple[str, ...]
    pcc: float | None
    interval: Interval
    clips: int
    """Clips of the first seed."""


@dataclass
class LeaderboardRow:
    """One system, or a reference that is not a system (then without seeds and clips)."""

    system: str
    """The name, in brackets for a reference."""
    pcc: float | None
    """Mean over seeds; None if the labels of one of them allow no PCC."""
    per_dimension: dict[str, float | None]
    seeds: int | None = None
    clips: int | None = None
    """Clips of each seed."""
    sd: float | None = None
    """Standard deviation over seeds."""
    interval: Interval = None
    difference: float | None = None
    """PCC minus the PCC of the reference system."""
    difference_interval: Interval = None
    crossed_interval: Interval = None
    """Over two kinds of groups at once, such as people and the videos they watched; None without a second kind."""
    difference_crossed: Interval = None
    unmet: "UnmetScore | None" = None
    """None if no clips, all clips or an unknown number of clips are of unmet groups."""
    note: str = ""
    """Why the score looks better than it is."""
    baseline: bool = False
    """Whether it comes from `emit baseline`: it is then at the top of the table."""


@dataclass
class Leaderboard:
    """Rows, baselines first, then best first, and remarks about the table."""

    rows: list[LeaderboardRow]
    names: list[str]
    """The K dimensions."""
    against: str | None
    same_clips: bool
    """Whether all systems were scored on the same clips."""

    @property
    def notes(self) -> list[str]:
        warning = "Not all systems were scored on the same clips: their rows do not compare."
        return [warning] * (not self.same_clips) + [f"{row.system}: {row.note}" for row in self.rows if row.note]

    def text(self) -> list[str]:
        """Aligned columns for a terminal, then the notes."""
        table = self._cells()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for first, *rest in table:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]))
        return lines + self.notes

    def markdown(self) -> str:
        header, *rows = self._cells()
        table = [header, ["---", *("---:" for _ in header[1:])], *rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def csv(self) -> tuple[list[str], list[list[Any]]]:
        """Header and rows of plain numbers."""
        return [*CSV_COLUMNS, *self.names, "note"], [_csv_row(row, self.names) for row in self.rows]

    def _cells(self) -> list[list[str]]:
        extra = [] if self.against is None else [f"minus {self.against}"]
        crossed = [CROSSED] * any(row.crossed_interval for row in self.rows)
        kinds = {row.unmet.kinds for row in self.rows if row.unmet}
        unmet = [f"unmet {' and '.join(*kinds) if len(kinds) == 1 else 'groups'}"] * bool(kinds)
        header = ["system", "seeds", "PCC", "95 % interval", *crossed, *unmet, *extra, *self.names]
        shown = bool(extra), bool(crossed), bool(unmet)
        return [header, *(_text_row(row, self.names, *shown) for row in self.rows)]


def read_systems(arguments: list[str]) -> dict[str, list[Evaluation]]:
    """{system: its evaluations} of PATH or NAME=PATH, in the order given.

    An evaluation without a name is named after its model and the options in which evaluations of that model differ.
    UserError when a system has the same evaluation twice, or when two get the same name but cannot be seeds or folds of
    one system, because they have the same seed and clips: they differ in something else, such as loss, features or
    members.
    """
    named = [parse_named_path(argument) for argument in arguments]
    evaluations = read_evaluations([path for _, path in named])
    options: dict[str, list[dict]] = {}
    for evaluation in evaluations:
        options.setdefault(evaluation.info.model, []).append(evaluation.info.configuration or {})
    systems: dict[str, list[Evaluation]] = {}
    first: dict[str, Evaluation] = {}
    for (name, _), evaluation in zip(named, evaluations, strict=True):
        if not name:
            name = _system_name(evaluation.info, options[evaluation.info.model])
            key = digest([name, evaluation.digests.labels, evaluation.info.training_seed])
            other = first.setdefault(key, evaluation)
            if other is not evaluation:
                raise UserError(
                    f"{other.path} and {evaluation.path}: both {name}, of the same seed on the same clips, so not "
                    "seeds of one system; give them names (NAME=PATH)"
                )
        systems.setdefault(name, []).append(evaluation)
    for parts in systems.values():
        check_distinct(parts)
    return systems


def build_leaderboard(
    systems: dict[str, list[Evaluation]], against: str | None, resamples: int, seed: int
) -> Leaderboard:
    """The table of the systems. against: the system to compare every other row with; UserError when it does not
    exist."""
    if against is not None and against not in systems:
        raise UserError(f"--against {against}: no such system; there are {', '.join(systems)}")
    rows = [_system_row(name, parts, resamples, seed) for name, parts in systems.items()]
    if against is not None:
        reference = next(row.pcc for row in rows if row.system == against)
        for row in rows:
            if row.system != against and row.pcc is not None and reference is not None:
                row.difference = row.pcc - reference
                pair = systems[row.system], systems[against]
                row.difference_interval = _paired_interval(*pair, resamples, seed)
                row.difference_crossed = _paired_interval(*pair, resamples, seed, crossed=True)
    evaluations = [part for parts in systems.values() for part in parts]
    rows += _reference_rows(evaluations)
    rows.sort(key=lambda row: (not row.baseline, math.inf if row.pcc is None else -row.pcc))
    clips = {frozenset(part.digests.labels for part in parts) for parts in systems.values()}
    return Leaderboard(rows, evaluations[0].names, against, same_clips=len(clips) == 1)


def _system_name(info: EvaluationInfo, options: list[dict]) -> str:
    """The model, and the options that differ among `options` (of all evaluations of that model)."""

    def text(value: Any) -> str:
        return "+".join(map(str, value)) if isinstance(value, list) else str(value)

    own = info.configuration or {}
    keys = sorted({key for other in options for key in other})
    differing = [key for key in keys if any(other.get(key) != own.get(key) for other in options)]
    return " ".join([info.model, *(f"{key}={text(own.get(key))}" for key in differing)])


def _system_row(name: str, parts: list[Evaluation], resamples: int, seed: int) -> LeaderboardRow:
    means = [part.mean_pcc for part in parts if part.mean_pcc is not None]
    known = len(means) == len(parts)
    low_high, crossed = (_interval(parts, resamples, seed, both) for both in (False, True))
    return LeaderboardRow(
        name,
        pcc=_mean_pcc(parts),
        per_dimension=_mean_per_dimension([part.scores.pcc for part in parts], parts[0].names),
        seeds=len(parts),
        clips=len(parts[0].ids),
        sd=statistics.stdev(means) if known and len(means) > 1 else None,
        interval=low_high,
        crossed_interval=crossed,
        unmet=_unmet_score(parts, resamples, seed),
        note=_note(parts),
        baseline=all(part.info.is_baseline for part in parts),
    )


def _mean_pcc(parts: list[Evaluation]) -> float | None:
    means = [part.mean_pcc for part in parts if part.mean_pcc is not None]
    return statistics.mean(means) if len(means) == len(parts) else None


def _interval(parts: list[Evaluation], resamples: int, seed: int, crossed: bool = False) -> Interval:
    """The interval of the mean PCC; crossed: over both kinds of groups."""
    if len(parts) == 1:
        scores = parts[0].scores
        return (scores.crossed.interval if scores.crossed else None) if crossed else scores.pcc.interval
    draws = joint_draws(parts, resamples, seed, crossed)
    return None if draws is None else interval(draws)


def _unmet_score(parts: list[Evaluation], resamples: int, seed: int) -> UnmetScore | None:
    unmet = [part.unmet_part for part in parts if part.unmet_part is not None]
    kinds = {tuple(part.unmet.kinds) for part in parts if part.unmet}
    if len(unmet) < len(parts) or len(kinds) != 1:
        return None
    return UnmetScore(kinds.pop(), _mean_pcc(unmet), _interval(unmet, resamples, seed), len(unmet[0].ids))


def _mean_per_dimension(scores: list[Any], names: list[str]) -> dict[str, float | None]:
    """Mean over evaluations; None for a dimension that one of them does not have."""
    values = {name: [score.per_dimension[name] for score in scores] for name in names}
    return {name: None if None in each else statistics.mean(each) for name, each in values.items()}


def _paired_interval(
    parts: list[Evaluation], others: list[Evaluation], resamples: int, seed: int, crossed: bool = False
) -> Interval:
    """The interval of the mean PCC of `parts` minus that of `others`. None when they differ in clips, or in the
    fraction of evaluations on each set of clips."""
    clip_sets = [group_by_clips(evaluations) for evaluations in (parts, others)]
    fractions = [
        {digests: len(same) / sum(map(len, sets.values())) for digests, same in sets.items()}
        for sets in clip_sets
        if sets is not None
    ]
    if len(fractions) < 2 or fractions[0] != fractions[1]:
        return None
    draws, other_draws = (joint_draws(evaluations, resamples, seed, crossed) for evaluations in (parts, others))
    return None if draws is None or other_draws is None else interval(draws - other_draws)


def _note(parts: list[Evaluation]) -> str:
    infos = [part.info for part in parts]
    if unknown := combine_unknown(infos):
        return f"{MARK}: {unknown}"
    if any(part.mean_pcc is None for part in parts):
        return "no PCC: its clips have too few labels, or all equal ones"
    if any(info.seen and info.seen.in_training for info in infos):
        return "was trained on clips it is scored on"
    if any(info.seen and info.seen.in_choosing for info in infos):
        return "was chosen by clips it is scored on"
    if any(info.seen_by_encoders for info in infos):
        return "its encoders were aligned on clips it is scored on"
    if any((info.made_from.get("weights") or {}).get("fit") == CROSS_FITTED for info in infos):
        return "its weights were learned on the clips it is scored on, for each group on the others"
    if any(info.seen is None or info.seen_by_encoders is None for info in infos):
        return MARK
    return ""


def _reference_rows(evaluations: list[Evaluation]) -> list[LeaderboardRow]:
    """Rows for the ceiling and the leak probe, which are not systems: the mean over the different sets of clips."""
    rows = []
    for system, get in (
        ("(ceiling of the labels)", lambda info: info.ceiling),
        ("(labels of the nearest training transcript)", lambda info: info.leak_probe and info.leak_probe.pcc),
    ):
        of_clips: dict[str, DimensionScores] = {}
        for evaluation in evaluations:
            scores = get(evaluation.info)
            if scores and scores.mean is not None:
                of_clips[evaluation.digests.labels] = scores
        if of_clips:
            each = list(of_clips.values())
            pcc = statistics.mean(scores.mean for scores in each if scores.mean is not None)
            rows.append(LeaderboardRow(system, pcc, _mean_per_dimension(each, evaluations[0].names)))
    return rows


def _text_row(row: LeaderboardRow, names: list[str], against: bool, crossed: bool, unmet: bool) -> list[str]:
    pcc = ("n/a" if row.pcc is None else f"{row.pcc:.3f}") + (f" ± {row.sd:.3f}" if row.sd is not None else "")
    low_high = "{:.3f} to {:.3f}".format(*row.interval) if row.interval else ""
    difference = "" if row.difference is None else f"{row.difference:+.3f}"
    if row.difference_interval:
        difference += " ({:+.3f} to {:+.3f})".format(*row.difference_interval)
    if row.difference_crossed:
        difference += " (both: {:+.3f} to {:+.3f})".format(*row.difference_crossed)
    both = "{:.3f} to {:.3f}".format(*row.crossed_interval) if row.crossed_interval else ""
    new = ""
    if row.unmet:
        ends = " ({:.3f} to {:.3f})".format(*row.unmet.interval) if row.unmet.interval else ""
        new = "n/a" if row.unmet.pcc is None else f"{row.unmet.pcc:.3f}{ends}"
    each = ["-" if value is None else f"{value:.3f}" for value in map(row.per_dimension.get, names)]
    system = f"{row.system}{' (baseline)' * row.baseline}"
    return [
        system,
        str(row.seeds or ""),
        pcc,
        low_high,
        *[both] * crossed,
        *[new] * unmet,
        *[difference] * against,
        *each,
    ]


def _csv_row(row: LeaderboardRow, names: list[str]) -> list[Any]:
    low, high = row.interval or (None, None)
    difference_low, difference_high = row.difference_interval or (None, None)
    values = [row.system, row.seeds, row.clips, row.pcc, row.sd, low, high, row.difference]
    ends = [row.crossed_interval or (None, None), row.difference_crossed or (None, None)]
    values += [difference_low, difference_high, *itertools.chain(*ends)]
    new = row.unmet
    values += [new.pcc, *(new.interval or (None, None)), new.clips] if new else [None] * 4
    values += [*map(row.per_dimension.get, names), row.note]
    return ["" if v is None else f"{v:.6f}" if isinstance(v, float) else v for v in values]
