"""The score with its bounds: the ceiling of the labels above, cheap baselines below."""

from dataclasses import dataclass

from shared.errors import UserError
from shared.metrics import FEW_GROUPS
from shared.text import counted, first_few
from stage2_fusion.evaluation.comparison import compare_evaluations
from stage2_fusion.evaluation.results import MARK, Evaluation
from stage2_fusion.evaluation.scoring import format_pcc
from stage2_fusion.evaluation.verdict import baseline_name, beside, chance_level, verdict
from stage2_fusion.report.baseline import cheap_baselines
from stage2_fusion.report.content import Beside, Fact, Facts, Figure, NotFound, Section, Table
from stage2_fusion.report.figures import MUTED, REFERENCE, SURFACE, SYSTEM, TEXT, clean_axes, new_figure, short
from stage2_fusion.report.inputs import Inputs

RESAMPLES = 1000


@dataclass(frozen=True)
class Bar:
    """A system or a reference in the figure."""

    label: str
    pcc: float
    interval: list[float] | None
    is_system: bool = False


def score(inputs: Inputs) -> Section:
    """The section."""
    evaluation = inputs.evaluation
    section = Section("Score")
    baselines: list[Evaluation] = []
    try:
        baselines = cheap_baselines(inputs)
    except NotFound as reason:
        section.missing.append(str(reason))
    baseline = baselines[0] if baselines else None
    bars = _bars(evaluation, baselines)
    if evaluation.mean_pcc is None:
        section.lead = "The labels of these clips allow no correlation, so there is no score."
        return section
    section.lead = _lead(evaluation, baseline)
    section.blocks = [_facts(evaluation, baseline), Beside(_figure(bars), _table(evaluation))]
    if _is_synthetic(inputs):
        section.notes.append("Drawn faces and synthetic voices: these scores say nothing about people.")
    if evaluation.info.ceiling is None:
        section.missing.append(
            "no ceiling of the labels: only a synthetic corpus knows it (`emit evaluate --truth CORPUS/truth.csv`)"
        )
    return section


def _is_synthetic(inputs: Inputs) -> bool:
    """Whether the scored clips, or the training clips, were made by `emit synth`."""
    for read in (lambda: inputs.features_info.data.synthetic, lambda: inputs.model_config.trained_on.synthetic):
        try:
            if read():
                return True
        except (NotFound, UserError):
            continue
    return False


def _bars(evaluation: Evaluation, baselines: list[Evaluation]) -> list[Bar]:
    info, bars = evaluation.info, []
    if info.ceiling and info.ceiling.mean is not None:
        bars.append(Bar("ceiling of the labels", info.ceiling.mean, None))
    if evaluation.mean_pcc is not None:
        bars.append(Bar(info.model, evaluation.mean_pcc, evaluation.scores.pcc.interval, True))
    bars += [Bar(baseline_name(each), each.mean_pcc or 0.0, each.scores.pcc.interval) for each in baselines]
    if info.leak_probe and info.leak_probe.pcc and info.leak_probe.pcc.mean is not None:
        bars.append(Bar("nearest training transcript", info.leak_probe.pcc.mean, None))
    return bars


def _lead(evaluation: Evaluation, baseline: Evaluation | None) -> str:
    mean, scores, info = evaluation.mean_pcc or 0.0, evaluation.scores, evaluation.info
    group = info.group or "group"
    difference = None
    if baseline is not None:
        difference = compare_evaluations(evaluation, baseline, RESAMPLES, evaluation.bootstrap_seed).mean
    text = verdict(evaluation, baseline_name(baseline) if baseline else "", difference)
    text += (
        f"On {counted(scores.n, 'clip')} of the {info.split or 'whole'} set ({counted(scores.groups, group)}), the "
        f"predictions of {info.model} correlate with the labels by {format_pcc(mean)}, the mean over "
        f"{_scored_dimensions(evaluation)}"
    )
    if scores.pcc.interval:
        low, high = scores.pcc.interval
        text += f" (95 % interval over other {group}s: {low:.3f} to {high:.3f}{_over_both(evaluation)})"
    text += f".{_on_unmet(evaluation)}"
    if info.seen and info.seen.in_choosing:
        text += " These clips also selected the epoch of the model, so unseen clips will score lower."
    if info.unknown_training or info.seen is None or info.seen_by_encoders is None:
        why = f" ({info.unknown_training})" if info.unknown_training else ""
        text += f" It is {MARK}{why}: the score may be too high."
    if baseline is not None and difference is not None:
        text += (
            f" That is {beside(evaluation, f'the strongest cheap baseline, {baseline_name(baseline)}', difference)}."
        )
    if not scores.pcc.interval:
        text += f" {_without_interval(evaluation)}"
    elif scores.groups < FEW_GROUPS:
        text += f" With fewer than {FEW_GROUPS} {group}s the interval is too narrow: take it as a rough guide."
    return text


def _over_both(evaluation: Evaluation) -> str:
    """The interval over two kinds of groups at once; "" without a second kind."""
    crossed = evaluation.scores.crossed
    if crossed is None or crossed.interval is None:
        return ""
    low, high = crossed.interval
    return f"; over other {evaluation.info.group}s and other {evaluation.info.crossed_group}s: {low:.3f} to {high:.3f}"


def _on_unmet(evaluation: Evaluation) -> str:
    """A sentence on the clips of unmet groups; "" if these are none, all or unknown."""
    part = evaluation.unmet_part
    if part is None or part.mean_pcc is None or evaluation.unmet is None:
        return ""
    ends = part.scores.pcc.interval
    interval = " (95 % interval {:.3f} to {:.3f})".format(*ends) if ends else ""
    clips = f"{counted(len(part.ids), 'clip')} of unmet {' and '.join(evaluation.unmet.kinds)}"
    return f" On the {clips}, which neither training nor its validation has met, it is {part.mean_pcc:.3f}{interval}."


def _scored_dimensions(evaluation: Evaluation) -> str:
    """How many dimensions the mean covers, and which have no score."""
    values = evaluation.scores.pcc.per_dimension
    lacking = [name for name in evaluation.names if values[name] is None]
    text = counted(len(values) - len(lacking), "dimension")
    if lacking:
        text += (
            f" ({first_few(lacking)} {'has' if len(lacking) == 1 else 'have'} no score: too few labels, or all equal)"
        )
    return text


def _without_interval(evaluation: Evaluation) -> str:
    """What a score without an interval means."""
    group, score = evaluation.info.group or "group", evaluation.mean_pcc or 0.0
    text = (
        f"With {counted(evaluation.scores.groups, group)} there is no interval: other {group}s may give another score."
    )
    chance = chance_level(evaluation)
    if chance is None or score <= 0:
        return text
    meaning = "this score may be chance too" if score <= chance else "this score is above that"
    return (
        f"{text} Put on these clips in random order, the same predictions reach {chance:.3f} or more in 5 of 100 "
        f"cases: {meaning}."
    )


def _facts(evaluation: Evaluation, baseline: Evaluation | None) -> Facts:
    info, mean = evaluation.info, evaluation.mean_pcc or 0.0
    interval = evaluation.scores.pcc.interval
    note = f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else "no interval"
    facts = [Fact("PCC, mean", format_pcc(mean), note)]
    if info.ceiling and info.ceiling.mean:
        facts.append(Fact("Ceiling", format_pcc(info.ceiling.mean), f"{mean / info.ceiling.mean:.0%} of it reached"))
    if baseline is not None:
        facts.append(Fact("Baseline", format_pcc(baseline.mean_pcc), baseline_name(baseline)))
    facts.append(
        Fact("Clips scored", str(evaluation.scores.n), counted(evaluation.scores.groups, info.group or "group"))
    )
    return Facts(facts)


def _figure(bars: list[Bar]) -> Figure:
    figure, axes = new_figure(4.3, 0.7 + 0.5 * len(bars))
    lowest = min([0.0, *(value for bar in bars for value in (bar.pcc, *(bar.interval or ())))])
    for row, bar in enumerate(bars):
        color = SYSTEM if bar.is_system else REFERENCE
        axes.barh(row, bar.pcc, height=0.5, color=color, alpha=1.0 if bar.is_system else 0.45)
        axes.plot([0, 0], [row - 0.25, row + 0.25], color=MUTED, linewidth=0.8)  # beside the bars, not through labels
        if bar.interval:
            axes.plot(bar.interval, [row, row], color=SURFACE, linewidth=4.5)
            axes.plot(bar.interval, [row, row], color=TEXT, linewidth=1.5)
        weight = "bold" if bar.is_system else "normal"
        behind = {"facecolor": SURFACE, "edgecolor": "none", "pad": 0.8}  # neither an axis nor the grid crosses a label
        label = f"{short(bar.label)}: {bar.pcc:.3f}"
        axes.text(lowest + 0.008, row - 0.32, label, va="bottom", fontweight=weight, bbox=behind)
    axes.set_yticks([])
    axes.set_ylim(len(bars) - 0.6, -0.85)
    axes.set_xlim(lowest - (0.03 if lowest < 0 else 0), 1)
    axes.set_xlabel("PCC, mean over dimensions")
    axes.spines["left"].set_visible(False)
    clean_axes(axes, "x")
    shown = "; ".join(f"{bar.label} {bar.pcc:.3f}" for bar in bars)
    caption = "Lines show 95 % intervals." if any(bar.interval for bar in bars) else ""
    return Figure("score", f"Bars of mean PCC: {shown}.", figure, caption)


def _table(evaluation: Evaluation) -> Table:
    scores = evaluation.scores
    rows = []
    for name in [*evaluation.names, "mean"]:
        of = [
            column.mean if name == "mean" else column.per_dimension[name]
            for column in (scores.pcc, scores.pcc_nonzero, scores.ccc, scores.mae)
        ]
        interval = scores.pcc.interval if name == "mean" else scores.pcc.interval_per_dimension[name]
        low_high = [f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–"] if scores.pcc.interval else []
        first, *rest = map(format_pcc, of)
        rows.append([name, first, *low_high, *rest])
    header = ["dimension", "PCC", *(["95 % interval"] if scores.pcc.interval else []), "PCC>0", "CCC", "MAE"]
    caption = "Scores per dimension. PCC>0: over clips with a label above the lowest value."
    return Table(caption, header, rows, range(1, len(header)))
