"""Learned weights against known damage, compared with raw quality signals."""

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.text import counted
from stage2_fusion.data.features import FeatureDataset, FeatureSample
from stage2_fusion.data.quality_samples import read_quality
from stage2_fusion.evaluation.damage_detection import damaged_in_corpus, read_truth
from stage2_fusion.evaluation.damage_signals import (
    ON_PURPOSE,
    Comparison,
    Detector,
    compare,
    compare_on_purpose,
    is_uniform,
)
from stage2_fusion.evaluation.known_clips import known_to_model
from stage2_fusion.evaluation.scoring import clip_groups
from stage2_fusion.inference import run_model
from stage2_fusion.report.clip_figures import draw_steps
from stage2_fusion.report.content import Figure, Grid, NotFound, Section, Table
from stage2_fusion.report.figures import MODALITY_COLORS, MUTED, TEXT, WIDTH, clean_axes, new_figure, short
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.scored import scored_features, scored_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stage2_fusion.models.base import FusionModel

IN_CORPUS = "in the corpus"
MOST_CLIPS = 2000
"""Most clips to compare; from more clips, an even sample of this size."""
MOST_SIGNALS = 5


def damage(inputs: Inputs) -> Section:
    """The section."""
    model, data = scored_model(inputs), scored_features(inputs)
    clips = data.by_clip()
    used = np.unique(np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int))
    data = FeatureDataset(data.info, [sample for i in used for sample in clips[i].values()])
    weights = run_model(model, data.samples, 64).weights  # (N, 3)
    comparisons = _on_purpose(inputs, model, data, weights)
    section = Section("Weights against damage")
    if len(used) < len(clips):
        section.notes.append(f"{len(used)} of {counted(len(clips), 'clip', 'is', 'are')} compared, drawn evenly")
    with contextlib.suppress(NotFound):
        try:
            comparisons += _in_corpus(inputs, data, weights)
        except UserError as reason:
            section.missing.append(f"damage in the corpus: {reason}")
    if not comparisons:
        raise NotFound(
            "no clip with known damage: `emit encode --damaged_views 1` makes such clips, `emit synth` knows its own"
        )
    section.lead = _lead(comparisons, is_uniform(weights))
    section.blocks.append(Grid([_figure(each) for each in comparisons], CAPTION))
    examples = [_example(model, data, weights, each) for each in comparisons if each.known_from == ON_PURPOSE]
    if examples:
        caption = (
            "One clip before (dashed) and after (solid) damage, with the median fall in weight of all damaged "
            "clips. Above the weights of its modalities over time, below the best raw signal of the damaged one."
        )
        section.blocks.append(Grid(examples, caption))
    section.blocks.append(_table(comparisons))
    return section


CAPTION = (
    "ROC AUC: the probability that a damaged clip is told from an undamaged one; 0.5 is chance. The line is the 95 % "
    "interval over groups, such as subjects. Direction and choice of the best signal use the truth, which flatters it."
)


def _on_purpose(inputs: Inputs, model: "FusionModel", data: FeatureDataset, weights: np.ndarray) -> list[Comparison]:
    """Damaged views against the undamaged clips, compared as in `emit evaluate`."""
    try:
        came_damaged = _came_damaged(inputs, data)
    except (NotFound, UserError):
        came_damaged = None
    about = model.config
    known = known_to_model(inputs.features_path, data.info, about.trained_on, model.training_clips)
    training = read_quality(inputs.features_path, known.trained)
    unmet = about.training.get("train", {}).get("leave_out_damage", [])
    _, groups = clip_groups(data.samples, None, data.info.group_names)
    return compare_on_purpose(data.samples, weights, groups, data.info.quality, training, unmet, came_damaged)


def _came_damaged(inputs: Inputs, data: FeatureDataset) -> dict[str, set[str]]:
    ids = [sample.id for sample in data.samples if sample.view == 0]
    return damaged_in_corpus(read_truth(inputs.truth_path, ids), ids)


def _in_corpus(inputs: Inputs, data: FeatureDataset, weights: np.ndarray) -> list[Comparison]:
    """The damaged clips of a synthetic corpus against the others."""
    clean = [i for i, sample in enumerate(data.samples) if sample.view == 0]
    truth = read_truth(inputs.truth_path, [data.samples[i].id for i in clean])
    found = []
    for name in MODALITIES:
        kinds = [row.get(f"{name}_damage") or "" for row in truth]
        found.append(_compare(data, name, IN_CORPUS, clean, kinds, weights))
    return [each for each in found if each is not None]


def _compare(
    data: FeatureDataset, name: str, known_from: str, rows: list[int], kinds: list[str], weights: np.ndarray
) -> Comparison | None:
    if not any(kinds):
        return None
    samples = [data.samples[i] for i in rows]
    _, groups = clip_groups(samples, None, data.info.group_names)
    return compare(name, known_from, samples, kinds, groups, weights[rows], data.info.quality[name])


def _lead(comparisons: list[Comparison], uniform: bool) -> str:
    if uniform:
        return (
            "This model gives every modality the same weight, so its weights say nothing about damage; the raw signals "
            "show what learned ones could find."
        )
    parts = [f"{each.weight.auc:.2f} for {each.modality} damaged {each.known_from}" for each in comparisons]
    text = f"Low weights find damage with ROC AUC {', '.join(parts)}."
    if not any(each.lead_interval for each in comparisons):
        return f"{text} With only one group there is no interval: a few more clips may reverse any comparison."
    better = [each for each in comparisons if each.lead_interval and each.lead_interval[0] > 0]
    worse = [each for each in comparisons if each.lead_interval and each.lead_interval[1] < 0]
    if better:
        text += f" That is more than the best raw signal alone finds for {_names(better)}."
    if worse:
        text += f" The best raw signal alone finds more for {_names(worse)}: there the weights add nothing."
    if not better and not worse:
        text += " The best raw signal alone does about as well: the weights are not shown to know more than it."
    return text


def _names(comparisons: list[Comparison]) -> str:
    return " and ".join(f"{each.modality} damaged {each.known_from}" for each in comparisons)


def _signal_name(name: str, low: bool) -> str:
    return f"{name.replace('_', ' ')}, {'low' if low else 'high'}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no minus before a zero


def _figure(each: Comparison) -> Figure:
    signals = each.signals[:MOST_SIGNALS]
    figure, axes = new_figure(WIDTH, 0.9 + 0.27 * (len(signals) + 1))
    rows = [each.weight, *signals]
    for y, detector in enumerate(reversed(rows)):
        is_weight = detector is each.weight
        color = MODALITY_COLORS[each.modality] if is_weight else MUTED
        if is_weight and each.weight_interval:
            axes.plot(each.weight_interval, [y, y], color=color, linewidth=2.2, solid_capstyle="round")
        axes.plot([detector.auc], [y], "o", color=color, markersize=7 if is_weight else 4.5)
        left = detector.auc > 0.85
        axes.annotate(
            f"{detector.auc:.2f}",
            (detector.auc, y),
            xytext=(0, 6) if is_weight else (-7 if left else 7, 0),
            textcoords="offset points",
            ha="center" if is_weight else "right" if left else "left",
            va="bottom" if is_weight else "center",
            color=TEXT if is_weight else MUTED,
            fontsize=8.5,
        )
    labels = ["learned weight", *(_signal_name(signal.name, signal.low_is_damaged) for signal in signals)]
    axes.set_yticks(range(len(rows)), labels[::-1])
    axes.tick_params(axis="y", length=0)
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=":")
    lowest = min([0.5, *(detector.auc for detector in rows), *(each.weight_interval or [])])
    axes.set_xlim(lowest - 0.03, 1.02)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("ROC AUC")
    axes.set_title(f"{each.modality.capitalize()} damaged {each.known_from}")
    clean_axes(axes, "x")
    shown = ", ".join(f"{label} {row.auc:.2f}" for label, row in zip(labels, rows, strict=True))
    name = f"damage-{each.modality}-{'views' if each.known_from == ON_PURPOSE else 'corpus'}"
    return Figure(name, f"Damage of {each.modality} found by: {shown}.", figure)


def _table(comparisons: list[Comparison]) -> Table:
    rows = []
    for each in comparisons:
        best = each.signals[0] if each.signals else None
        low_high = each.lead_interval
        difference = _signed(each.lead) + (f" ({_signed(low_high[0])} to {_signed(low_high[1])})" if low_high else "")
        rows.append(
            [
                f"{each.modality} {each.known_from}",
                f"{each.damaged} of {each.damaged + each.undamaged}",
                f"{each.weight.auc:.3f}",
                f"{best.auc:.3f} ({_signal_name(best.name, best.low_is_damaged)})" if best else "–",
                difference if best else "–",
                _auc(each.regression),
                _difference(each.regression_lead, each.regression_lead_interval),
            ]
        )
        for kind, auc in each.weight.by_kind.items():
            name = f"– {kind.replace('_', ' ')}{' (not trained on)' * (kind in each.unmet)}"
            rows.append([name, "", f"{auc:.3f}", _auc(best, kind), "", _auc(each.regression, kind), ""])
    caption = (
        "ROC AUC of the learned weight, of the best raw signal, and of a logistic regression on mean, minimum, maximum "
        "and deviation of all signals that was fitted to the damaged views of the training clips; overall and for each "
        "kind of damage."
    )
    difference = "difference (95 % interval)"
    header = ["damage", "damaged clips", "learned weight", "best raw signal", difference, "regression", difference]
    return Table(caption, header, rows, range(1, 7))


def _auc(detector: Detector | None, kind: str | None = None) -> str:
    value = None if detector is None else detector.auc if kind is None else detector.by_kind.get(kind)
    return "–" if value is None else f"{value:.3f}"


def _difference(value: float | None, spread: list[float] | None) -> str:
    return (
        "–" if value is None or spread is None else f"{_signed(value)} ({_signed(spread[0])} to {_signed(spread[1])})"
    )


# --- one clip in time ------------------------------------------------------------------------------------------------


def typical_view(data: FeatureDataset, weights: np.ndarray, modality: str) -> tuple[int, int]:
    """Rows of an undamaged clip and of its damaged view: the pair with the median fall in the weight of the
    modality."""
    m = MODALITIES.index(modality)
    clean = {sample.id: i for i, sample in enumerate(data.samples) if sample.view == 0}
    pairs = [
        (clean[sample.id], i)
        for i, sample in enumerate(data.samples)
        if sample.view > 0 and sample.damage[modality] and sample.id in clean and weights[i, m] > 0
    ]
    falls = np.array([weights[before, m] - weights[after, m] for before, after in pairs])
    return pairs[int(np.argsort(falls, kind="stable")[(len(falls) - 1) // 2])]


def _example(model: "FusionModel", data: FeatureDataset, weights: np.ndarray, each: Comparison) -> Figure:
    before, after = (data.samples[i] for i in typical_view(data, weights, each.modality))
    steps = run_model(model, [before, after], 2, explain=True).steps
    figure, (above, below) = new_figure(WIDTH, 3.1, rows=2, sharex=True, height_ratios=[1.5, 1])
    for sample, explanation, line in ((before, steps[0], "--"), (after, steps[1], "-")):
        for m, name in enumerate(MODALITIES):
            color = MODALITY_COLORS[name]
            width = 1.9 if name == each.modality else 1.0
            draw_steps(
                above, explanation.times, explanation.weights[:, m], sample.duration, color=color, ls=line, lw=width
            )
    kind = after.damage[each.modality].replace("_", " ")
    above.set_ylabel("weight")
    above.set_ylim(bottom=0)
    above.set_title(f"{short(before.id, 24)}: {each.modality} damaged ({kind})")
    for m, name in enumerate(MODALITIES):
        if steps[0].weights[:, m].any():
            above.plot([], [], color=MODALITY_COLORS[name], label=name)
    above.legend(loc="upper left", bbox_to_anchor=(0, 1.02), ncols=3, handlelength=1.2, columnspacing=1.0)
    above.set_ylim(0, max(above.get_ylim()[1] * 1.3, 0.1))
    if each.signals:
        _draw_signal(below, data, before, after, each)
    below.set_xlabel("seconds")
    below.set_xlim(0, max(before.duration, 0.1))
    alt = f"Weights of clip {short(before.id, 60)} over time before and after {kind} of its {each.modality}."
    return Figure(f"damage-example-{each.modality}", alt, figure)


def _draw_signal(
    axes: "Axes", data: FeatureDataset, before: FeatureSample, after: FeatureSample, each: Comparison
) -> None:
    signal = each.signals[0].name
    column = data.info.quality[each.modality].index(signal)
    for sample, line in ((before, "--"), (after, "-")):
        part = sample.modality(each.modality)
        times, values = part.times, part.quality[:, column]
        if len(times) != len(values):  # text has no times: its signals describe the whole clip
            times, values = np.array([0, sample.duration]), np.repeat(values[:1], 2)
        axes.plot(times, values, color=TEXT, ls=line, lw=1.2)
    axes.set_ylabel(signal.replace("_", " "))
    axes.set_ylim(-0.03, 1.03)
