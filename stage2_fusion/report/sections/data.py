"""The data behind the score: numbers of clips, missing modalities, label distributions, and leaks between splits."""

import re
from collections import Counter

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.tables.formats import read_records
from shared.text import counted
from stage2_fusion.evaluation.leak import LeakProbe
from stage2_fusion.evaluation.results import MARK, Evaluation
from stage2_fusion.report.clip_table import ClipTable, read_clip_table
from stage2_fusion.report.content import Block, Figure, Grid, Group, NotFound, Section, Table, Text
from stage2_fusion.report.figures import MODALITY_COLORS, MUTED, SYSTEM, clean_axes, new_figure, short
from stage2_fusion.report.inputs import Inputs

MOST_DIMENSIONS = 24
TOP_REASONS = 8
BINS = 20


def data(inputs: Inputs) -> Section:
    """Counts, missing modalities, verdicts, labels, and leaks."""
    section = Section("Data")
    table: ClipTable | None = None
    try:
        table = read_clip_table(inputs)
    except NotFound as reason:
        section.missing.append(str(reason))
    if table is not None:
        section.lead = _lead(table)
        section.blocks += [_counts(table), Grid([_missing_figure(table)])]
        section.blocks.append(Group("Labels", _label_blocks(table, inputs)))
    section.blocks += _verdict_blocks(inputs, section)
    section.blocks += _leak_blocks(inputs, table, section)
    return section


def _lead(table: ClipTable) -> str:
    lacking = {name: int((~table.present[name]).sum()) for name in MODALITIES}
    most = max(lacking, key=lambda name: lacking[name])
    seconds = table.seconds.sum()
    length = f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
    text = f"{counted(len(table.ids), 'clip')}, {length}."
    if lacking[most] == len(table.ids):
        text += f" None of them has {most}."
    elif lacking[most]:
        text += (
            f" {lacking[most]} of them ({lacking[most] / len(table.ids):.0%}) lack {most}, the modality missing most."
        )
    known = ~np.isnan(table.labels)
    if known.any():
        text += f" {(table.labels[known] == 0).mean():.0%} of the labels are at the lowest value of their range."
    else:
        text += " No clip is labeled."
    return text


def _counts(table: ClipTable) -> Table:
    kinds = list(table.groups)
    header = ["split", "clips", "labeled", *(f"{kind}s" for kind in kinds), "minutes"]
    header += [f"without {name}" for name in MODALITIES]
    rows = []
    for split in [*table.split_names(), None]:
        chosen = np.ones(len(table.ids), bool) if split is None else table.in_split(split)
        labeled = int((~np.isnan(table.labels[chosen]).all(axis=1)).sum()) if table.names else 0
        groups = [
            len({group for group, keep in zip(table.groups[kind], chosen, strict=True) if keep and group})
            for kind in kinds
        ]
        lacking = [int((chosen & ~table.present[name]).sum()) for name in MODALITIES]
        name = "all" if split is None else split or "(in no split)"
        values = [int(chosen.sum()), labeled, *groups]
        rows.append([name, *map(str, values), f"{table.seconds[chosen].sum() / 60:.1f}", *map(str, lacking)])
    return Table("Clips of each split, and how many lack a modality.", header, rows, range(1, len(header)))


def _missing_figure(table: ClipTable) -> Figure:
    splits = table.split_names()
    figure, axes = new_figure(height=0.9 + 0.5 * len(splits))
    height = 0.8 / len(MODALITIES)
    for place, name in enumerate(MODALITIES):
        shares = [100 * float((~table.present[name])[table.in_split(split)].mean()) for split in splits]
        rows = [row + (place - 1) * height for row in range(len(splits))]
        axes.barh(rows, shares, height=height * 0.9, color=MODALITY_COLORS[name], label=name)
    axes.set_yticks(range(len(splits)), [short(split or "(in no split)", 20) for split in splits])
    axes.set_ylim(len(splits) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    if axes.get_xlim()[1] < 1:
        axes.set_xlim(0, 1)
    axes.set_xlabel("clips without it, %")
    figure.legend(loc="outside upper left", ncols=3, handlelength=1, columnspacing=1.2)
    clean_axes(axes, "x")
    shown = "; ".join(f"{name} {100 * (~table.present[name]).mean():.1f} %" for name in MODALITIES)
    return Figure("missing-modalities", f"Share of clips without each modality, over all splits: {shown}.", figure)


# --- labels ----------------------------------------------------------------------------------------------------------


def _label_blocks(table: ClipTable, inputs: Inputs) -> list[Block]:
    columns = [k for k in range(len(table.names)) if not np.isnan(table.labels[:, k]).all()]
    if not columns:
        return [Text("No clip is labeled.")]
    ranges = _ranges(inputs, table)
    figures = [_histogram(table, k, ranges[table.names[k]]) for k in columns[:MOST_DIMENSIONS]]
    rows = []
    for k in columns:
        values = table.labels[:, k]
        values = values[~np.isnan(values)].astype(np.float64)
        low, high = ranges[table.names[k]]
        scaled = low + values * (high - low)
        shares = [f"{(values <= 0).mean():.1%}", f"{(values >= 1).mean():.1%}"]
        rows.append([table.names[k], str(len(values)), f"{scaled.mean():.3f}", f"{scaled.std():.3f}", *shares])
    header = ["dimension", "labeled", "mean", "SD", "at the lowest value", "at the highest"]
    summary = Table("Labels of all splits.", header, rows, range(1, 6))
    return [Grid(figures, "Gray: clips of training; line: clips of test; as a share of each."), summary]


def _ranges(inputs: Inputs, table: ClipTable) -> dict[str, tuple[float, float]]:
    from shared.dataset.label_scale import LabelScale

    ranges = None
    for read in (lambda: inputs.clips.info.label_ranges, lambda: inputs.features_info.label_ranges):
        try:
            ranges = read()
            break
        except (NotFound, UserError):
            continue
    scale = LabelScale.of(table.names, ranges)
    return {name: (float(low), float(high)) for name, (low, high) in scale.ranges.items()}


def _histogram(table: ClipTable, k: int, span: tuple[float, float]) -> Figure:
    figure, axes = new_figure(height=2.1)
    low, high = span
    edges = np.linspace(0, 1, BINS + 1)
    splits = [split for split in ("train", "test") if split in table.splits] or table.split_names()[:1]
    for split in splits:
        values = table.labels[table.in_split(split), k]
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        share = 100 * np.histogram(values[values > 0], edges)[0] / len(values)  # (BINS,)
        at = low + edges * (high - low)
        if split == splits[0]:
            axes.stairs(share, at, fill=True, color=MUTED, alpha=0.45, label=split)
        else:
            axes.stairs(share, at, color=SYSTEM, linewidth=1.3, label=split)
    axes.set_title(short(table.names[k], 30))
    axes.set(xlim=(low, high), xlabel="label", ylabel="clips, %")
    clean_axes(axes)
    axes.set_ylim(bottom=0)
    zeros = float((table.labels[:, k] == 0).sum() / (~np.isnan(table.labels[:, k])).sum())
    alt = f"Histogram of the labels of {table.names[k]} above {low:g}; {zeros:.0%} are {low:g}."
    return Figure(f"labels-{k + 1:02d}", alt, figure, f"{zeros:.0%} of the labels are {low:g}; not drawn.")


# --- verdicts ---------------------------------------------------------------------------------------------------------


def _verdict_blocks(inputs: Inputs, section: Section) -> list[Block]:
    try:
        path = inputs.clips_path / "verdicts.csv"
        rows = read_records(path)
        verdicts = Counter(row["verdict"] for row in rows)
    except (NotFound, UserError, KeyError):
        section.missing.append("no verdicts of the preparation: they are in verdicts.csv of the clip dataset")
        return []
    counts = [
        [word, str(verdicts[word]), f"{verdicts[word] / max(1, len(rows)):.1%}"] for word in verdict_order(verdicts)
    ]
    blocks: list[Block] = [Table("Verdict on each clip.", ["verdict", "clips", "share"], counts, (1, 2))]
    reasons = Counter(
        (row["verdict"], reason) for row in rows if row["verdict"] != "ok" for reason in reasons_of(row["detail"])
    )
    if reasons:
        top = reasons.most_common(TOP_REASONS)
        body = [[reason, verdict, str(count)] for (verdict, reason), count in top]
        more = len(reasons) - len(top)
        caption = "The most frequent reasons" + (f"; {more} more in verdicts.csv." if more else ".")
        blocks.append(Table(caption, ["reason", "verdict", "clips"], body, (2,)))
    return [Group("Preparation", blocks)]


def verdict_order(verdicts: Counter) -> list[str]:
    """ok, partial, failed, then verdicts of other versions."""
    usual = ["ok", "partial", "failed"]
    return usual + sorted(set(verdicts) - {*usual})


def reasons_of(detail: str) -> list[str]:
    """The reasons in the `detail` of a verdict, with numbers and names taken out so that equal ones count together."""
    parts = [part.strip() for part in detail.split(";")]
    parts = [part for part in parts if part and not part.startswith("using ")]  # how the previous reason was handled
    return list(dict.fromkeys(re.sub(r"'[^']*'|\d+(?:\.\d+)?", "N", part) for part in parts))


# --- leaks ------------------------------------------------------------------------------------------------------------


def _leak_blocks(inputs: Inputs, table: ClipTable | None, section: Section) -> list[Block]:
    """Groups that splits share, and the evaluation's record of clips seen in training."""
    blocks: list[Block] = []
    if table is not None and table.groups:
        blocks.append(_shared_groups(table))
    try:
        evaluation = inputs.evaluation
        lines = _seen_lines(evaluation)
        if evaluation.info.leak_probe is not None:
            lines += _probe_lines(evaluation.info.leak_probe, evaluation)
        else:
            section.missing.append("no leak probe in this evaluation: `emit evaluate` with the features adds it")
        blocks += [Text(line) for line in lines]
    except NotFound as reason:
        section.missing.append(f"no leak probe: {reason}")
    return [Group("Leaks between training and scored clips", blocks)] if blocks else []


def _shared_groups(table: ClipTable) -> Table:
    """For each kind of group, how many clips of a split have a group that is also in training."""
    splits = [split for split in table.split_names() if split not in ("train", "")]
    rows = []
    for kind, groups in table.groups.items():
        train = {group for group, split in zip(groups, table.splits, strict=True) if split == "train" and group}
        row = [kind]
        for split in splits:
            own = [group for group, each in zip(groups, table.splits, strict=True) if each == split]
            shared = sum(group in train for group in own)
            row.append(f"{shared} of {len(own)} ({shared / max(1, len(own)):.0%})")
        rows.append(row)
    caption = "Clips with a group that is also in training: 0 % means that the split keeps this kind of group whole."
    return Table(caption, ["kind of group", *splits], rows, range(1, len(splits) + 1))


def _seen_lines(evaluation: Evaluation) -> list[str]:
    info = evaluation.info
    if info.seen is None:
        return ["It is not recorded whether the model was trained on the scored clips: the score may be too high."]
    lines = []
    if info.seen.in_training or info.seen.in_choosing:
        lines.append(
            f"Not unseen: the model was trained on {info.seen.in_training} of the {len(evaluation.ids)} scored clips "
            f"and selected by {info.seen.in_choosing} of them."
        )
    if info.seen_by_encoders:
        lines.append(f"Not unseen: the encoders were aligned on {info.seen_by_encoders} of the scored clips.")
    if info.unknown_training:
        lines.append(f"It is {MARK}: {info.unknown_training}.")
    elif info.seen_by_encoders is None:
        lines.append("It is not known whether the encoders were aligned on scored clips.")
    return lines or ["Neither the model nor its encoders were trained on a scored clip."]


def _probe_lines(probe: LeakProbe, evaluation: Evaluation) -> list[str]:
    lines = []
    if probe.pcc and probe.pcc.mean is not None:
        reached = f", against {evaluation.mean_pcc:.3f} of the model" if evaluation.mean_pcc is not None else ""
        lines.append(
            f"Leak probe: copying the labels of the training clip with the nearest transcript reaches PCC "
            f"{probe.pcc.mean:.3f}{reached}. This score needs no face and no voice."
        )
    if probe.same_transcript is not None:
        lines.append(f"{probe.same_transcript:.0%} of the scored clips say the same words as a training clip.")
    if probe.why:
        lines.append(f"Leak probe: {probe.why}.")
    return lines
