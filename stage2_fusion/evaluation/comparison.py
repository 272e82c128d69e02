"""Paired comparison of two systems on the same clips."""

from dataclasses import dataclass

import numpy as np

from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions, pcc, scorable
from shared.text import counted
from stage2_fusion.evaluation.results import MARK, Evaluation, check_same_clips

CROSSED_RESAMPLES = 2000
"""Most samples over two kinds of groups: each takes as many weights as there are clips."""


@dataclass(frozen=True)
class Difference:
    """PCC of two systems, A and B."""

    a: float
    b: float
    difference: float
    """A - B."""
    interval: list[float] | None
    """95 % interval of the difference."""
    crossed_interval: list[float] | None
    """The same over two kinds of groups at once; None without a second kind."""
    a_ahead: float | None
    """Fraction of the bootstrap samples in which A is ahead, ties counting half."""


@dataclass(frozen=True)
class Comparison:
    """A against B. `dataclasses.asdict` gives what `emit compare` writes."""

    a: str
    b: str
    """Paths of the two evaluations."""
    n: int
    groups: int
    bootstrap: int
    seed: int
    crossed_group: str | None
    """The second kind of groups; None without one."""
    mean: Difference | None
    """Of the mean over dimensions; None when none has a PCC."""
    baselines: dict[str, str]
    """{"A" or "B": its model} for cheap baselines (`emit baseline`)."""
    unknown_training: dict[str, str]
    """{"A" or "B": why it is unknown whether it was trained on these clips}."""
    per_dimension: dict[str, Difference | None]
    """None for a dimension with labels that allow no PCC."""


def compare_evaluations(a: Evaluation, b: Evaluation, resamples: int, seed: int) -> Comparison:
    """The differences A - B with a paired bootstrap: both systems are scored on the same samples of groups. UserError
    when A and B do not score the same clips, labels and groups."""
    check_same_clips(a, b)
    known = scorable(a.labels)
    labels, groups = a.labels[:, known], np.array(a.groups)
    draws_a, draws_b = (bootstrap_pcc(x.predictions[:, known], labels, groups, resamples, seed) for x in (a, b))
    pcc_a, pcc_b = ([pcc(x.predictions[:, k], x.labels[:, k]) for k in known] for x in (a, b))
    draws = draws_a - draws_b  # (R, K')
    crossed = None
    if a.crossed is not None and a.crossed == b.crossed:
        others = np.array(a.crossed)
        crossed_a, crossed_b = (
            bootstrap_pcc(x.predictions[:, known], labels, groups, min(resamples, CROSSED_RESAMPLES), seed, others)
            for x in (a, b)
        )
        crossed = crossed_a - crossed_b  # (R', K')
    each: dict[str, Difference | None] = dict.fromkeys(a.names)
    for column, k in enumerate(known):
        own = None if crossed is None else crossed[:, column]  # (R',)
        each[a.names[k]] = _difference(pcc_a[column], pcc_b[column], draws[:, column], own)
    return Comparison(
        a=str(a.path),
        b=str(b.path),
        n=len(a.ids),
        groups=len(set(a.groups)),
        bootstrap=resamples,
        seed=seed,
        crossed_group=a.info.crossed_group if crossed is not None else None,
        mean=_difference(
            float(np.mean(pcc_a)),
            float(np.mean(pcc_b)),
            mean_over_dimensions(draws),
            None if crossed is None else mean_over_dimensions(crossed),
        )
        if known
        else None,
        baselines={side: system.info.model for side, system in (("A", a), ("B", b)) if system.info.is_baseline},
        unknown_training={
            side: system.info.unknown_training for side, system in (("A", a), ("B", b)) if system.info.unknown_training
        },
        per_dimension=each,
    )


def comparison_table(comparison: Comparison) -> str:
    """The differences as lines of text."""
    rows = {**comparison.per_dimension, "mean": comparison.mean}
    width = max(map(len, rows))
    lines = [f"{side} is a cheap baseline, {model}" for side, model in comparison.baselines.items()]
    lines += [f"{'':<{width}}       A       B    A - B   95 % interval      A ahead"]
    for name, row in rows.items():
        if row is None:
            lines.append(f"{name:<{width}}   n/a: not labeled, or in too few clips, or all equal")
            continue
        low_high = "{:+.3f} to {:+.3f}".format(*row.interval) if row.interval else "-"
        ahead = f"{row.a_ahead:.1%}" if row.a_ahead is not None else "-"
        lines.append(f"{name:<{width}} {row.a:7.3f} {row.b:7.3f} {row.difference:+8.3f}   {low_high:<18} {ahead:>7}")
    lines.append(
        f"{counted(comparison.n, 'clip')}, {counted(comparison.groups, 'group')}, "
        f"{counted(comparison.bootstrap, 'paired bootstrap sample')}"
    )
    if comparison.mean and comparison.mean.crossed_interval:
        low, high = comparison.mean.crossed_interval
        lines.append(
            f"mean, over groups and {comparison.crossed_group} at once: 95 % interval {low:+.3f} to {high:+.3f}"
        )
    lines += [f"{side}: {MARK}: {why}" for side, why in comparison.unknown_training.items()]
    if comparison.groups < 2 and comparison.bootstrap:
        lines.append("without intervals: all clips are of one group, which tells nothing about others")
    return "\n".join(lines)


def _difference(a: float, b: float, draws: np.ndarray, crossed: np.ndarray | None) -> Difference:
    draws = draws[~np.isnan(draws)]
    ahead = float(((draws > 0) + 0.5 * (draws == 0)).mean()) if draws.size else None
    return Difference(a, b, a - b, interval(draws), None if crossed is None else interval(crossed), ahead)
