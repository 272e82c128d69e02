"""What every evaluation reports about its clips: bootstrap groups, and whether they were in training."""

from collections.abc import Mapping, Sequence

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.metrics import FEW_GROUPS, DimensionScores, Scores, why_no_pcc
from shared.registry import nearest
from shared.text import counted
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.evaluation.damage_signals import detector_table
from stage2_fusion.evaluation.doubts import flat_line
from stage2_fusion.evaluation.results import MARK, Evaluation, why_no_mean


def clip_groups(samples: list[FeatureSample], kind: str | None, kinds: list[str]) -> tuple[str | None, list[str]]:
    """The kind of group, by default the first of `kinds`, and the group of each sample. A clip of unknown group is its
    own group, and so is every clip if there are no kinds. UserError when `kind` does not exist."""
    kind = group_kind(kind, kinds)
    return kind, [(sample.groups.get(kind) if kind else None) or f"clip {sample.id}" for sample in samples]


def crossed_kind(groups: Mapping[str, Sequence[str]], kind: str | None) -> str | None:
    """The first other kind of group that is crossed with `kind`: both have groups with clips of several groups of the
    other kind. groups: kind to the group of each clip, "" = unknown."""
    if kind is None:
        return None
    for other, names in groups.items():
        pairs = {(a, b) for a, b in zip(groups[kind], names, strict=True) if a and b}
        if other != kind and len({a for a, _ in pairs}) < len(pairs) > len({b for _, b in pairs}):
            return other
    return None


def crossed_groups(
    samples: list[FeatureSample], kind: str | None, kinds: list[str]
) -> tuple[str | None, list[str] | None]:
    """The kind that is crossed with `kind`, and the group of each sample; None without one. A clip of unknown group is
    its own group."""
    other = crossed_kind({name: [sample.groups.get(name, "") for sample in samples] for name in kinds}, kind)
    return other, None if other is None else [sample.groups.get(other) or f"clip {sample.id}" for sample in samples]


def group_kind(kind: str | None, kinds: list[str]) -> str | None:
    """The kind of group, by default the first of `kinds`. UserError when `kind` does not exist."""
    if kind is not None and kind not in kinds:
        raise UserError(f"--groups {kind}: the clips have no such group; {nearest(kind, kinds)}")
    return kind or (kinds[0] if kinds else None)


def mean_weights(weights: np.ndarray) -> dict[str, float | None]:
    """Mean of weights (N, 3) over the clips with the modality; None if no clip has it."""
    columns = {name: weights[weights[:, m] > 0, m] for m, name in enumerate(MODALITIES)}
    return {name: float(column.mean()) if column.size else None for name, column in columns.items()}


def format_pcc(value: float | None) -> str:
    """Three digits; n/a if labels allow no PCC."""
    return "n/a" if value is None else f"{value:.3f}"


def score_table(evaluation: Evaluation) -> str:
    """The scores as lines of text, then remarks."""
    scores, names = evaluation.scores, evaluation.names
    width = max(len(name) for name in [*names, "mean"])
    columns: tuple[DimensionScores, ...] = (scores.pcc, scores.pcc_nonzero, scores.ccc, scores.mae)
    lines = [f"{'':<{width}}     PCC  PCC>0    CCC    MAE"]
    if intervals := evaluation.info.intervals:
        columns = (*columns, intervals.coverage, intervals.width)
        lines[0] += f"{f'in {intervals.asked:.0%}':>7}  width"
    for k, name in enumerate([*names, "mean"]):
        values = [column.mean if name == "mean" else column.per_dimension[name] for column in columns]
        text = "".join("    n/a" if value is None else f"{value:7.3f}" for value in values)
        reason = "no dimension has a PCC" if scores.pcc.mean is None else ""
        if k < len(names):
            reason = why_no_pcc(evaluation.labels[:, k])
            reason = reason or ("constant prediction" if name in scores.constant else "")
        lines.append(f"{name:<{width}} {text}{f'   {reason}' if reason else ''}")
    return "\n".join([*lines, *_interval_remarks(evaluation), *_remarks(evaluation)])


def _interval_remarks(evaluation: Evaluation) -> list[str]:
    """A line with the interval of the mean PCC, or why there is none; nothing if none was requested. Then a line for
    the clips of unmet groups."""
    scores = evaluation.scores
    counts = counted(scores.n, "clip")
    if evaluation.mean_pcc is None:
        return [f"{counts}; no PCC: each dimension says why"]
    whole = [f"{counts}; {_mean_text(evaluation)}"] if scores.pcc.interval or evaluation.resamples else []
    return [*whole, *_crossed_line(evaluation), *_unmet_line(evaluation)]


def _mean_text(evaluation: Evaluation) -> str:
    """The mean PCC, with its interval or why there is none."""
    scores, text = evaluation.scores, f"mean PCC {evaluation.mean_pcc:.3f}"
    if scores.pcc.interval:
        low, high = scores.pcc.interval
        few = f"; of fewer than {FEW_GROUPS} a bootstrap makes it too narrow" if scores.groups < FEW_GROUPS else ""
        return f"{text}, 95 % interval {low:.3f} to {high:.3f} ({counted(scores.groups, 'group')}{few})"
    return f"{text}, without an interval: {_why_no_interval(scores)}" if evaluation.resamples else text


def _unmet_line(evaluation: Evaluation) -> list[str]:
    """The score of the clips of unmet groups, if these are some of the clips."""
    part = evaluation.unmet_part
    if part is None or evaluation.unmet is None:
        return []
    about = f"{counted(len(part.ids), 'clip')} of unmet {' and '.join(evaluation.unmet.kinds)}"
    if part.mean_pcc is None:
        return [f"{about}; no PCC: {why_no_mean(part.labels)}"]
    scored = [sum(value is not None for value in each.scores.pcc.per_dimension.values()) for each in (part, evaluation)]
    fewer = f", over {scored[0]} of {scored[1]} dimensions" if scored[0] < scored[1] else ""
    return [f"{about}; {_mean_text(part)}{fewer}"]


def _crossed_line(evaluation: Evaluation) -> list[str]:
    """The interval that respects two kinds of groups; nothing without a second kind."""
    crossed, info = evaluation.scores.crossed, evaluation.info
    if crossed is None or crossed.interval is None:
        return []
    low, high = crossed.interval
    kinds = f"{info.group} ({evaluation.scores.groups}) and {info.crossed_group} ({crossed.groups})"
    return [f"95 % interval over {kinds} at once: {low:.3f} to {high:.3f}"]


def _why_no_interval(scores: Scores) -> str:
    if scores.groups > 1:
        return "no dimension has labels of two groups"
    return "all clips are of one group, which tells nothing about others"


def _remarks(evaluation: Evaluation) -> list[str]:
    """Notes, clips seen in training, the leak probe, the ceiling and damage detection, one line each."""
    info, lines = evaluation.info, list(evaluation.info.sections.get("notes", []))
    lines += filter(None, [flat_line(evaluation.predictions, evaluation.names, evaluation.labels)])
    if info.seen and (info.seen.in_training or info.seen.in_choosing):
        lines.append(
            f"not unseen: the model was trained on {info.seen.in_training} of these clips and chosen by "
            f"{info.seen.in_choosing}"
        )
    if info.unknown_training:
        lines.append(f"warning: {MARK}: {info.unknown_training}")
    if info.seen_by_encoders:
        lines.append(f"not unseen: the encoders were aligned on {info.seen_by_encoders} of these clips")
    if info.leak_probe and info.leak_probe.pcc and info.leak_probe.pcc.mean is not None:
        lines.append(
            f"leak probe: the labels of the nearest training transcript reach PCC {info.leak_probe.pcc.mean:.3f}; "
            f"{info.leak_probe.same_transcript:.0%} of the clips share their words with one"
        )
    if info.intervals:
        lines.append(f"intervals {info.intervals}")
    if info.unlike and (info.unlike.count or info.unlike.not_known):
        lines.append(f"unlike the training data: {info.unlike}")
    if info.ceiling and info.ceiling.mean is not None:
        known = evaluation.mean_pcc is not None and info.ceiling.mean > 0
        reached = f"; {(evaluation.mean_pcc or 0.0) / info.ceiling.mean:.1%} of it reached" if known else ""
        lines.append(f"ceiling {info.ceiling.mean:.3f}{reached}")
    if info.damage:
        lines.append(f"damage found in the clips: {info.damage}")
    if info.damaged_on_purpose:
        part = info.damaged_on_purpose
        before, after = format_pcc(part.pcc_undamaged), format_pcc(part.pcc_damaged)
        lines.append(f"damaged on purpose: PCC {before} -> {after}; found: {part.damage}")
    for each in info.damage_detectors:
        lines += detector_table(each)
    return lines
