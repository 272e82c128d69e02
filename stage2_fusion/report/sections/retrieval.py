"""What stage 1 aligned: retrieval in both directions, before and after training, and the learned temperatures."""

import re
from typing import Any

from shared.errors import UserError
from stage2_fusion.report.content import Figure, Grid, NotFound, Section, Table
from stage2_fusion.report.figures import MUTED, SERIES, clean_axes, new_figure, pair_color
from stage2_fusion.report.inputs import Inputs, read_option
from stage2_fusion.report.sections.curves import is_number, thinned

RECALL = re.compile(r"(.+)_to_(.+)_R@(\d+)")


def retrieval(inputs: Inputs) -> Section:
    """Recall of the exported encoders on the validation clips."""
    before, after = _recalls(inputs)
    if not after:
        raise NotFound("no retrieval: stage 1 logged no recall (its validation split has too few pairs)")
    candidates = _candidates(inputs)
    section = Section("Retrieval", _lead(before, after, candidates))
    figures = [_figure(before, after)]
    temperatures = _temperatures(inputs)
    if temperatures:
        figures.append(temperatures)
    else:
        section.missing.append("no temperatures: the log of stage 1 holds none")
    section.blocks = [Grid(figures), _table(before, after)]
    return section


Recalls = dict[tuple[str, str, int], float]
"""{(from, to, k): recall at k}."""


def _recalls(inputs: Inputs) -> tuple[Recalls, Recalls]:
    """Recalls before training ({} if not logged), and of the encoders."""
    try:
        validations = [line for line in inputs.align_log if is_number(line.get("mean_recall"))]
    except NotFound:
        try:
            training = inputs.features_info.encoders.config.get("training", {})
        except NotFound:
            raise NotFound("no retrieval: no stage-1 run and no encoders; give the folder of the whole run") from None
        return {}, _parse(training.get("metrics") or {})
    if not validations:
        return {}, {}
    first = validations[0]
    best = max(validations, key=lambda line: line["mean_recall"])
    return (_parse(first) if first["step"] == 0 and best is not first else {}), _parse(best)


def _parse(metrics: dict[str, Any]) -> Recalls:
    found = {}
    for key, value in metrics.items():
        match = RECALL.fullmatch(key)
        if match and is_number(value):
            found[match[1], match[2], int(match[3])] = float(value)
    return found


def _candidates(inputs: Inputs) -> int | None:
    """How many clips were searched for the recall, if known: the validation split."""
    try:
        pairs = read_option(inputs.align_run, "pairs")
        count = sum(split == "valid" for split in inputs.clips.column("split"))
    except (NotFound, UserError):
        return None
    limit = pairs.get("valid_limit") if isinstance(pairs, dict) else None
    return min(count, limit) if isinstance(limit, int) and limit > 0 else count


def _lead(before: Recalls, after: Recalls, candidates: int | None) -> str:
    steps = sorted({k for _, _, k in after})
    telling = [k for k in steps if not candidates or k <= candidates / 2] or steps[:1]  # others are found by chance
    best = max(after, key=lambda key: after[key] if key[2] == telling[-1] else -1.0)
    where = "the nearest" if best[2] == 1 else f"among the {best[2]} nearest"
    text = (
        f"Recall at k: how often the true match of a validation clip is among the k nearest of the other modality. "
        f"Of {best[0]} to {best[1]}, {after[best]:.0%} are {where}"
    )
    text += f" ({before[best]:.0%} before training)." if best in before else "."
    if candidates:
        text += f" By chance, among {candidates} clips, about {min(1.0, best[2] / candidates):.0%} would be."
    transcripts = [value for (a, b, k), value in after.items() if "transcript" in (a, b) and k == 10]
    labels = [value for (a, b, k), value in after.items() if "labels" in (a, b) and k == 10]
    if transcripts and labels and sum(labels) / len(labels) > sum(transcripts) / len(transcripts):
        text += " Words made from labels are easier to find than speech: the alignment learned mostly from labels."
    return text


def _directions(recalls: Recalls) -> list[tuple[str, str]]:
    return list(dict.fromkeys((a, b) for a, b, _ in recalls))


def _figure(before: Recalls, after: Recalls) -> Figure:
    directions = _directions(after)
    steps = sorted({k for _, _, k in after})
    figure, axes = new_figure(height=1.1 + 0.27 * len(directions))
    for color, k in zip(SERIES, steps, strict=False):
        rows = [row for row, (a, b) in enumerate(directions) if (a, b, k) in after]
        axes.plot([after[(*directions[row], k)] for row in rows], rows, "o", color=color, label=f"R@{k}", markersize=5)
        known = [row for row in rows if (*directions[row], k) in before]
        values = [before[(*directions[row], k)] for row in known]
        axes.plot(values, known, "|", color=color, markersize=8, markeredgewidth=1.4)
    axes.set_yticks(range(len(directions)), [f"{a} → {b}" for a, b in directions])
    axes.set_ylim(len(directions) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("recall, validation")
    figure.legend(loc="outside upper left", ncols=len(steps), handletextpad=0.1, columnspacing=1.2)
    clean_axes(axes, "x")
    axes.grid(True, axis="y", color=MUTED, alpha=0.15)
    shown = "; ".join(f"{a} to {b} R@{k} {value:.2f}" for (a, b, k), value in after.items())
    caption = "Dots: the encoders; bars of the same color: before training." if before else ""
    return Figure("retrieval", f"Recall in each direction. {shown}.", figure, caption)


def _temperatures(inputs: Inputs) -> Figure | None:
    """The learned temperatures over the steps; None if they were not logged."""
    try:
        log = inputs.align_log
    except NotFound:
        return None
    scales = sorted({key for line in log for key in line if key.startswith("scale_")})
    if not scales:
        return None
    figure, axes = new_figure(height=2.7)
    ends = []
    for place, key in enumerate(scales):
        x, scale = thinned(log, "step", key)
        if not len(scale) or (scale <= 0).any():
            continue
        name = key.removeprefix("scale_").replace("_", "–")
        axes.plot(x, 1 / scale, color=pair_color(key, place), label=f"{name}: {1 / scale[-1]:.4f}")
        ends.append(f"{name} {1 / scale[-1]:.4f}")
    axes.set(xlabel="step", ylabel="temperature")
    axes.margins(y=0.1)
    axes.legend(loc="best")
    clean_axes(axes)
    alt = f"Learned temperature of each pair, at the end: {', '.join(ends)}."
    caption = "A lower temperature makes the loss focus on the hardest negatives."
    return Figure("temperatures", alt, figure, caption) if ends else None


def _table(before: Recalls, after: Recalls) -> Table:
    steps = sorted({k for _, _, k in after})
    rows = []
    for a, b in _directions(after):
        row = [f"{a} → {b}"]
        for k in steps:
            value, start = after.get((a, b, k)), before.get((a, b, k))
            row.append("–" if value is None else f"{value:.3f}" + ("" if start is None else f" ({start:.3f})"))
        rows.append(row)
    caption = "Recall on the validation clips" + ("; in brackets before training." if before else ".")
    return Table(caption, ["direction", *(f"R@{k}" for k in steps)], rows, range(1, len(steps) + 1))
