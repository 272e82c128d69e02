"""The files of predictions.

OUT                     Filename, one column per dimension; sorted by Filename
OUT_timeline.csv        Filename, start, end, one column per dimension: a row for each window
OUT_failures.csv        Filename, reason
OUT_remarks.csv         Filename, remark: what was repaired, chosen or left out
OUT_explained.jsonl     only when asked for: weights and attention over time, a line for each window
"""

from collections.abc import Iterable
from pathlib import Path

from shared.files import write_csv
from shared.media.remarks import all_lines
from stage2_fusion.evaluation.explain import write_explanations
from stage2_fusion.prediction.predicting import Predictions


def write_predictions(out: Path, predictions: Predictions, explain: bool = False) -> None:
    """Write predictions and the files beside them; folders are made."""
    names, windows, remarks = predictions.names, predictions.windows, predictions.remarks
    rows = [[name, *format_values(values)] for name, values in predictions.by_clip().items()]
    write_csv(out, ["Filename", *names], rows)
    timeline = [[w.clip, f"{w.start:.3f}", f"{w.end:.3f}", *format_values(w.values)] for w in windows]
    write_csv(_beside(out, "timeline.csv"), ["Filename", "start", "end", *names], timeline)
    if explain:
        steps = [window.steps for window in windows]
        write_explanations(_beside(out, "explained.jsonl"), [window.clip for window in windows], steps, names)
    write_csv(_beside(out, "failures.csv"), ["Filename", "reason"], [list(pair) for pair in predictions.failures])
    remark_rows = [[name, line] for name in sorted(remarks) for line in all_lines(remarks[name])]
    write_csv(_beside(out, "remarks.csv"), ["Filename", "remark"], remark_rows)


def format_values(values: Iterable[float]) -> list[str]:
    """Six digits after the point, as in the tables of an evaluation."""
    return [f"{value:.6f}" for value in values]


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}_{name}")
