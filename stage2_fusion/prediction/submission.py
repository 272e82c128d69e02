"""Submissions: predictions for a challenge's split, one row per clip.

    Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy
    12660,0.134210,0.000000,...

Ids and columns come from the source, with dimensions in its order and rows sorted by id; values lie in the range of the
labels. A clip without a prediction gets the mean label of the training clips.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.layouts.vidmimic2.layout import UNLISTED
from shared.metrics import pcc
from shared.text import counted, first_few

KEY = "Filename"
SHOWN = 3
"""Most examples that a problem names."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""What every CSV reader accepts as a number."""
ROUNDING = 1e-6
"""How far a value may lie outside its range without counting as clipped."""


@dataclass
class Asked:
    """The required content of a submission."""

    clips: list[Clip]
    """Sorted by id."""
    names: list[str]
    """The K dimensions, in order."""
    scale: LabelScale
    """The range of each dimension."""
    labels: np.ndarray
    """float64 (N, K) on the scale, NaN = unknown."""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, source: ClipSource, names: Sequence[str] = (), ranges: Mapping[str, list[float]] | None = None
    ) -> "Asked":
        """The required content for the clips of a split. names, ranges: dimensions of the model and their ranges, for a
        source without labels."""
        unlisted = [clip for clip in source.clips if UNLISTED in clip.problems]
        listed = [clip for clip in source.clips if UNLISTED not in clip.problems]
        notes = []
        if unlisted and listed:
            notes.append(
                f"{counted(len(unlisted), 'clip')} of no table left out: {first_few([c.id for c in unlisted])}"
            )
        clips = sorted(listed or unlisted, key=lambda clip: clip.id)
        given = list(source.label_names)
        columns = given or list(names)
        if not columns:
            raise UserError("the source has no labels that name the columns of a submission; give --model too")
        scale = LabelScale.of(columns, ranges if source.label_ranges is None else source.label_ranges)
        labels = np.array([clip.labels if given else [np.nan] * len(columns) for clip in clips], np.float64)  # (N, K)
        labels = labels.reshape(len(clips), len(columns))
        return cls(clips, columns, scale, _known_labels(labels, scale), notes)

    @property
    def ids(self) -> list[str]:
        return [clip.id for clip in self.clips]

    def mean_pcc(self, values: np.ndarray) -> tuple[float, int] | None:
        """The PCC of values (N, K), mean over the dimensions for which the labels allow it, and the number of labeled
        clips; None if the labels allow no PCC."""
        scores = [pcc(values[:, k], self.labels[:, k]) for k in range(len(self.names))]
        known = [score for score in scores if not np.isnan(score)]
        labeled = int((~np.isnan(self.labels)).any(axis=1).sum())
        return (float(np.mean(known)), labeled) if known else None


def _known_labels(labels: np.ndarray, scale: LabelScale) -> np.ndarray:
    """Labels (N, K) with NaN for the few outside their range, which are codes for missing values. UserError when most
    lie outside: they are on another scale."""
    outside = (labels < scale.lowest - ROUNDING) | (labels > scale.highest + ROUNDING)
    if 2 * outside.sum() > (~np.isnan(labels)).sum():
        raise UserError(
            f"the labels run from {np.nanmin(labels):g} to {np.nanmax(labels):g}, not over {scale}: give the --model "
            "that predicts on their scale"
        )
    return np.where(outside, np.nan, labels)


@dataclass
class Submission:
    """The rows of a submission, in the required order."""

    asked: Asked
    values: np.ndarray
    """float64 (N, K) within the range of each dimension."""
    filled: list[str]
    """Ids of clips without a prediction."""
    clipped: int
    """Values that lay outside their range."""
    notes: list[str]

    def text(self) -> str:
        """The CSV file."""
        lines = [[KEY, *self.asked.names]]
        lines += [
            [name, *(f"{value:.6f}" for value in row)] for name, row in zip(self.asked.ids, self.values, strict=True)
        ]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue()


def make_submission(
    asked: Asked, names: Sequence[str], predictions: Mapping[str, np.ndarray], mean_labels: Mapping[str, float] | None
) -> Submission:
    """A submission from predictions {id: (K',)} of the dimensions `names`.

    A clip without a prediction gets `mean_labels`, the mean training label by dimension or, if unknown, the mean
    prediction of the others. A dimension without predictions gets the lowest label. UserError when no required clip or
    dimension is predicted, and for ids that lost their leading zeros.
    """
    present = [clip_id for clip_id in asked.ids if clip_id in predictions]
    if not present and not _lost_zeros(set(predictions), set(asked.ids)):
        raise UserError(
            f"none of {counted(len(predictions), 'predicted clip')}, such as "
            f"{first_few(sorted(predictions), 1)}, is among "
            f"the {len(asked.ids)} that are asked for, such as {first_few(asked.ids, 1)}"
        )
    position = {name: k for k, name in enumerate(names)}
    columns = [name for name in asked.names if name in position]
    if not columns:
        raise UserError(f"the predictions are of {', '.join(names)}, but the clips of {', '.join(asked.names)}")
    if lost := _lost_zeros(set(predictions) - set(asked.ids), set(asked.ids) - set(predictions)):
        raise UserError(
            f"the leading zeros of {counted(len(lost), 'predicted clip')} are lost, such as "
            f"{first_few(sorted(lost), 1)}; give "
            "the table as `emit predict` wrote it, which no spreadsheet has saved"
        )
    values = np.tile(asked.scale.lowest, (len(asked.ids), 1))  # (N, K)
    known = np.array([clip_id in predictions for clip_id in asked.ids])  # (N,)
    for k, name in enumerate(asked.names):
        if name not in position:
            continue
        column = np.array([predictions[clip_id][position[name]] for clip_id in present])
        mean = (mean_labels or {}).get(name)
        values[known, k] = column
        values[~known, k] = column.mean() if mean is None else mean
    outside = (values < asked.scale.lowest - ROUNDING) | (values > asked.scale.highest + ROUNDING)
    filled = [clip_id for clip_id, is_known in zip(asked.ids, known, strict=True) if not is_known]
    values = np.clip(values, asked.scale.lowest, asked.scale.highest)
    return Submission(
        asked, values, filled, int(outside.sum()), _notes(asked, columns, predictions, filled, mean_labels)
    )


def _notes(
    asked: Asked,
    columns: list[str],
    predictions: Mapping[str, np.ndarray],
    filled: list[str],
    mean_labels: Mapping[str, float] | None,
) -> list[str]:
    notes = list(asked.notes)
    if filled:
        what = "mean label of the training clips" if mean_labels else "mean prediction of the others"
        notes.append(f"{counted(len(filled), 'clip')} without a prediction: the {what} stands in: {first_few(filled)}")
    if absent := [name for name in asked.names if name not in columns]:
        notes.append(f"not predicted by this model, so each clip gets the lowest label: {', '.join(absent)}")
    if extra := sorted(set(predictions) - set(asked.ids)):
        notes.append(f"{counted(len(extra), 'predicted clip')} left out, not asked for: {first_few(extra)}")
    return notes


# --- checking --------------------------------------------------------------------------------------------------------


@dataclass
class Checked:
    """The result of checking a submission file."""

    problems: list[str]
    """What is wrong, one line each; empty for a submission that will be accepted."""
    values: np.ndarray | None
    """float64 (N, K) in the required order; None when something is wrong."""


def check_submission(path: Path, asked: Asked) -> Checked:
    """Check that a file holds exactly the required columns and ids, in order, with numbers in their range."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        return Checked(["it is not UTF-8 text; write it as a CSV file"], None)
    problems = ["it begins with a byte order mark; write it without"] if text.startswith("\ufeff") else []
    try:
        rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if row]
    except csv.Error as error:
        return Checked([f"it is not readable as CSV ({error})"], None)
    if not rows:
        return Checked(["it is empty"], None)
    header, rows = rows[0], rows[1:]
    for separator, name in {";": "semicolons", "\t": "tabs"}.items():
        if len(header) == 1 and header[0].split(separator)[0].strip('"') == KEY and separator in header[0]:
            return Checked([*problems, f"its cells are separated by {name}; write commas, and points in numbers"], None)
    problems += _header_problems(header, [KEY, *asked.names])
    if KEY not in header:
        return Checked(problems, None)
    rows, lengths = [row for row in rows if len(row) == len(header)], len(rows)
    if len(rows) < lengths:
        problems.append(f"rows without {len(header)} cells ({lengths - len(rows)})")
    ids = [row[header.index(KEY)] for row in rows]
    problems += _id_problems(ids, asked.ids)
    values: dict[str, np.ndarray] = {}
    for name in asked.names:
        if name in header:
            cells = [row[header.index(name)] for row in rows]
            values[name], found = _column(name, cells, ids, asked.scale.ranges[name])
            problems += found
    if problems:
        return Checked(problems, None)
    return Checked([], np.stack([values[name] for name in asked.names], axis=1))


def _header_problems(header: list[str], wanted: list[str]) -> list[str]:
    if header == wanted:
        return []
    missing, extra = [n for n in wanted if n not in header], [n[:60] for n in header if n not in wanted]
    problems = [f"missing columns: {', '.join(missing)}"] if missing else []
    problems += [f"columns that are not asked for: {first_few([*map(repr, extra)], 10)}"] if extra else []
    repeated = [name for name, count in Counter(header).items() if count > 1]
    problems += [f"columns that occur more than once: {', '.join(repeated)}"] if repeated else []
    return problems or [f"columns in the wrong order: {', '.join(header)}; expected {', '.join(wanted)}"]


def _id_problems(ids: list[str], wanted: list[str]) -> list[str]:
    given, asked = set(ids), set(wanted)
    problems = []

    def add(what: str, names: Sequence[str]) -> None:
        if names:
            problems.append(f"{what} ({len(names)}): {first_few(list(names), SHOWN)}")

    missing, extra = sorted(asked - given), sorted(given - asked)
    short = _lost_zeros(extra, missing)
    add("missing ids", missing)
    add("ids that are not asked for" + (", with lost leading zeros" if short else ""), extra)
    add("ids that occur more than once", [name for name, count in Counter(ids).items() if count > 1])
    if not problems and ids != wanted:
        first = next(i for i, (a, b) in enumerate(zip(ids, wanted, strict=True)) if a != b)
        problems.append(f"rows are not sorted by {KEY}: {ids[first]} stands where {wanted[first]} belongs")
    return problems


def _lost_zeros(extra: Collection[str], missing: Collection[str]) -> list[str]:
    """The ids that lost their leading zeros in a spreadsheet: with the zeros, they are missing ids."""
    stripped = {name.lstrip("0") for name in missing if name.isdigit() and name.startswith("0")}
    return [name for name in extra if name in stripped]


def _column(name: str, cells: list[str], ids: list[str], ends: tuple[float, float]) -> tuple[np.ndarray, list[str]]:
    """The numbers (N,) of a column, and what is wrong with them."""
    values = np.array([_number(cell) for cell in cells])
    low, high = ends
    problems = []

    def add(what: str, is_wrong: np.ndarray, shown: Callable[[int], str]) -> None:
        rows = np.flatnonzero(is_wrong).tolist()
        if rows:
            problems.append(f"{name}: {what} ({len(rows)}): {first_few([shown(row) for row in rows], SHOWN)}")

    add("no numbers", ~np.isfinite(values), lambda i: f"{cells[i]!r} of {ids[i]}")
    outside = (values < low) | (values > high)
    add(f"outside {low:g} to {high:g}", outside & np.isfinite(values), lambda i: f"{cells[i]} of {ids[i]}")
    return values, problems


def _number(cell: str) -> float:
    return float(cell) if NUMBER.fullmatch(cell) else float("nan")
