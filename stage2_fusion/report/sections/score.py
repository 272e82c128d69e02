"""The score beside what bounds it: the ceiling of the labels above, cheap baselines below."""

from dataclasses import dataclass

from shared.errors import UserError
from stage2_fusion.evaluation.comparison import compare_evaluations
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.scoring import FEW_GROUPS, format_pcc
from stage2_fusion.report.baseline import strongest_baseline
from stage2_fusion.report.content import Fact, Facts, Figure, NotFound, Section, Table
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
    """The headline."""
    evaluation = inputs.evaluation
    section = Section("Score")
    baseline = None
    try:
        baseline = strongest_baseline(inputs)
    except NotFound as reason:
        section.missing.append(str(reason))
    bars = _bars(evaluation, baseline)
    if evaluation.mean_pcc is None:
        section.lead = "The labels of these clips allow no correlation, so there is no score."
        return section
    section.lead = _lead(evaluation, baseline)
    section.blocks = [_facts(evaluation, baseline), _figure(bars), _table(evaluation)]
    if _is_synthetic(inputs):
        section.notes.append("Drawn faces and synthetic voices: these scores say nothing about people.")
    if evaluation.info.ceiling is None:
        section.missing.append(
            "no ceiling of the labels: only a synthetic corpus knows it (`emit evaluate --truth CORPUS/truth.csv`)"
        )
    return section


def _is_synthetic(inputs: Inputs) -> bool:
    """Whether the scored clips, or those of the training, were made by `emit synth`."""
    for read in (lambda: inputs.features_info.data.synthetic, lambda: inputs.model_config.trained_on.synthetic):
        try:
            if read():
                return True
        except (NotFound, UserError):
            continue
    return False


def _bars(evaluation: Evaluation, baseline: Evaluation | None) -> list[Bar]:
    info, bars = evaluation.info, []
    if info.ceiling and info.ceiling.mean is not None:
        bars.append(Bar("ceiling of the labels", info.ceiling.mean, None))
    if evaluation.mean_pcc is not None:
        bars.append(Bar(info.model, evaluation.mean_pcc, evaluation.scores.pcc.interval, True))
    if baseline and baseline.mean_pcc is not None:
        bars.append(Bar(baseline_name(baseline), baseline.mean_pcc, baseline.scores.pcc.interval))
    if info.leak_probe and info.leak_probe.pcc and info.leak_probe.pcc.mean is not None:
        bars.append(Bar("nearest training transcript", info.leak_probe.pcc.mean, None))
    return bars


def baseline_name(baseline: Evaluation) -> str:
    """What a figure calls a baseline."""
    modalities = (baseline.info.configuration or {}).get("modalities") or []
    read = "" if len(modalities) == 3 or not modalities else f" ({', '.join(modalities)})"
    return f"{baseline.info.model.replace('_', ' ')} baseline{read}"


def _lead(evaluation: Evaluation, baseline: Evaluation | None) -> str:
    pcc, scores, info = evaluation.mean_pcc or 0.0, evaluation.scores, evaluation.info
    groups = f"{scores.groups} {info.group}s" if info.group else f"{scores.groups} groups"
    text = (
        f"On {scores.n} clips of the {info.split or 'whole'} set ({groups}), the predictions of {info.model} correlate "
        f"with the labels by {format_pcc(pcc)}, the mean over {len(evaluation.names)} dimensions"
    )
    if scores.pcc.interval:
        low, high = scores.pcc.interval
        text += f" (95 % interval over other {info.group or 'group'}s: {low:.3f} to {high:.3f})"
    text += "."
    if baseline is not None and baseline.mean_pcc is not None:
        text += _against(evaluation, baseline)
    if scores.groups < FEW_GROUPS:
        text += f" With fewer than {FEW_GROUPS} groups the interval is too narrow: take it as a rough guide."
    return text


def _against(evaluation: Evaluation, baseline: Evaluation) -> str:
    """How far the model is from the baseline, and whether that may be chance."""
    mean = compare_evaluations(evaluation, baseline, RESAMPLES, evaluation.bootstrap_seed).mean
    if mean is None:
        return ""
    side = "above" if mean.difference >= 0 else "below"
    text = f" That is {abs(mean.difference):.3f} {side} the strongest cheap baseline"
    if mean.interval is None:
        return f"{text}."
    low, high = mean.interval
    sure = "which may be chance" if low <= 0 <= high else "beyond chance"
    return f"{text}, {sure} (paired interval {signed(low)} to {signed(high)})."


def signed(value: float) -> str:
    """Three digits with a sign; four where three would hide it."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 else f"{value:+.4f}"


def _facts(evaluation: Evaluation, baseline: Evaluation | None) -> Facts:
    info, pcc = evaluation.info, evaluation.mean_pcc or 0.0
    interval = evaluation.scores.pcc.interval
    note = f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else "no interval"
    facts = [Fact("PCC, mean", format_pcc(pcc), note)]
    if info.ceiling and info.ceiling.mean:
        facts.append(Fact("Ceiling", format_pcc(info.ceiling.mean), f"{pcc / info.ceiling.mean:.0%} of it reached"))
    if baseline is not None:
        facts.append(Fact("Baseline", format_pcc(baseline.mean_pcc), baseline_name(baseline)))
    facts.append(Fact("Clips scored", str(evaluation.scores.n), f"{evaluation.scores.groups} {info.group or 'group'}s"))
    return Facts(facts)


def _figure(bars: list[Bar]) -> Figure:
    figure, axes = new_figure(4.3, 0.7 + 0.5 * len(bars))
    lowest = min([0.0, *(value for bar in bars for value in (bar.pcc, *(bar.interval or ())))])
    for row, bar in enumerate(bars):
        color = SYSTEM if bar.is_system else REFERENCE
        axes.barh(row, bar.pcc, height=0.5, color=color, alpha=1.0 if bar.is_system else 0.45)
        if bar.interval:
            axes.plot(bar.interval, [row, row], color=SURFACE, linewidth=4.5)
            axes.plot(bar.interval, [row, row], color=TEXT, linewidth=1.5)
        weight = "bold" if bar.is_system else "normal"
        axes.text(min(lowest, 0), row - 0.32, f"{short(bar.label)}: {bar.pcc:.3f}", va="bottom", fontweight=weight)
    axes.set_yticks([])
    axes.set_ylim(len(bars) - 0.6, -0.85)
    axes.set_xlim(lowest, 1)
    axes.set_xlabel("PCC, mean over dimensions")
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    clean_axes(axes, "x")
    shown = "; ".join(f"{bar.label} {bar.pcc:.3f}" for bar in bars)
    return Figure("score", f"Bars of mean PCC: {shown}.", figure, "Lines show 95 % intervals.")


def _table(evaluation: Evaluation) -> Table:
    scores = evaluation.scores
    rows = []
    for name in [*evaluation.names, "mean"]:
        of = [
            column.mean if name == "mean" else column.per_dimension[name]
            for column in (scores.pcc, scores.pcc_nonzero, scores.ccc, scores.mae)
        ]
        interval = scores.pcc.interval if name == "mean" else scores.pcc.interval_per_dimension[name]
        low_high = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–"
        pcc, *rest = map(format_pcc, of)
        rows.append([name, pcc, low_high, *rest])
    header = ["dimension", "PCC", "95 % interval", "PCC>0", "CCC", "MAE"]
    return Table(
        "Scores per dimension. PCC>0: of the clips with a label above the lowest value.", header, rows, range(1, 6)
    )
