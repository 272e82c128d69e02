"""The files of predictions.

OUT                     Filename, one column per dimension; sorted by Filename. With intervals, the columns NAME_low and
                        NAME_high of each dimension follow
OUT_timeline.csv        Filename, start, end, one column per dimension: a row per window
OUT_basis.csv           what each prediction is based on, and how unusual the clip is (prediction/basis.py)
OUT_failures.csv        Filename, reason
OUT_remarks.csv         Filename, remark: what was repaired, chosen or left out
OUT_made_from.json      model, sources, dimensions and their ranges
OUT_explained.jsonl     only if requested: weights and attention over time, a line per window
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.files import write_csv
from shared.media.remarks import all_lines
from stage2_fusion.evaluation.explain import write_explanations
from stage2_fusion.prediction.basis import COLUMNS as BASIS_COLUMNS
from stage2_fusion.prediction.basis import Basis
from stage2_fusion.prediction.predicting import Predictions
from stage2_fusion.prediction.tables import TableDescription

Bounds = tuple[np.ndarray, np.ndarray]
"""Lower and upper bounds of intervals, (N, K) each."""


def write_predictions(
    out: Path,
    predictions: Predictions,
    explain: bool = False,
    bases: Mapping[str, Basis] | None = None,
    bounds: Bounds | None = None,
    made_from: dict[str, Any] | None = None,
) -> None:
    """Write predictions and the files beside them; creates folders. bases: by clip. bounds: intervals of the clips of
    `predictions.by_clip()`. made_from: more entries about their origin."""
    names, windows, remarks = predictions.names, predictions.windows, predictions.remarks
    rows = [[name, *format_values(values)] for name, values in predictions.by_clip().items()]
    columns = list(names)
    if bounds is not None:
        columns += [f"{name}_{end}" for name in names for end in ("low", "high")]
        ends = np.stack(bounds, axis=2).reshape(len(rows), -1)  # (N, 2 K)
        rows = [[*row, *format_values(values)] for row, values in zip(rows, ends, strict=True)]
    write_csv(out, ["Filename", *columns], rows)
    if bases is not None:
        write_csv(_beside(out, "basis.csv"), BASIS_COLUMNS, [part.row(name) for name, part in bases.items()])
    timeline = [[w.clip, f"{w.start:.3f}", f"{w.end:.3f}", *format_values(w.values)] for w in windows]
    write_csv(_beside(out, "timeline.csv"), ["Filename", "start", "end", *names], timeline)
    if explain:
        steps = [window.steps for window in windows]
        write_explanations(_beside(out, "explained.jsonl"), [window.clip for window in windows], steps, names)
    write_csv(_beside(out, "failures.csv"), ["Filename", "reason"], [list(pair) for pair in predictions.failures])
    remark_rows = [[name, line] for name in sorted(remarks) for line in all_lines(remarks[name])]
    write_csv(_beside(out, "remarks.csv"), ["Filename", "remark"], remark_rows)
    TableDescription(names, predictions.about.label_ranges, made_from=made_from or {}).write(out)


def format_values(values: Iterable[float]) -> list[str]:
    """Six digits after the point, as in the tables of an evaluation."""
    return [f"{value:.6f}" for value in values]


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}_{name}")
