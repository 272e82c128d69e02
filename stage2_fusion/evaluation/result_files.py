"""The files of an evaluation.

X.json               scores, and what was scored: the system, the clips (as digests), the seeds
X_predictions.csv    Filename, one column per dimension
X_labels.csv         Filename, group (the unit of the bootstrap), one column per dimension; empty = not labeled; if
                     known, the group of a second kind, whether the groups of the clip are unmet in training, and its
                     fingerprints in hexadecimal (shared/dataset/training_clips.py), 0 = none
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.files import read_json, write_csv, write_json
from shared.metrics import Scores
from shared.tables.formats import read_records
from stage2_fusion.evaluation.results import (
    OPTIONAL,
    ClipDigests,
    Evaluation,
    EvaluationInfo,
    SeenClips,
    Unmet,
    label_text,
)

HOW = "give the JSON file that `emit evaluate` wrote"
CROSSED, UNMET, FINGERPRINTS = "group of the second kind", "of unmet groups", "fingerprints"
"""Columns of X_labels.csv."""


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """Write the three files, the JSON file last."""
    predictions = evaluation.predictions.tolist()  # exact: rounding can make predictions constant
    rows = [[name, *map(repr, row)] for name, row in zip(evaluation.ids, predictions, strict=True)]
    write_csv(_table_path(out, "predictions"), ["Filename", *evaluation.names], rows)
    columns = zip(evaluation.ids, evaluation.groups, evaluation.labels, strict=True)
    rows = [[name, group, *map(label_text, row)] for name, group, row in columns]
    header = ["Filename", "group", *evaluation.names]
    if evaluation.crossed is not None:
        header.append(CROSSED)
        rows = [[*row, other] for row, other in zip(rows, evaluation.crossed, strict=True)]
    if evaluation.unmet is not None:
        header.append(UNMET)
        rows = [[*row, "yes" if new else "no"] for row, new in zip(rows, evaluation.unmet.rows, strict=True)]
    if evaluation.fingerprints is not None:
        header.append(FINGERPRINTS)
        rows = [[*row, own] for row, own in zip(rows, evaluation.fingerprint_texts(), strict=True)]
    write_csv(_table_path(out, "labels"), header, rows)
    write_json(out, evaluation.to_json())


def read_evaluation(path: Path) -> Evaluation:
    """Read the three files. UserError when one is missing or damaged, or they do not belong together."""
    path = Path(path)
    metrics = read_json(path, "evaluation", HOW)
    if not isinstance(metrics, dict) or "clips" not in metrics or "pcc" not in metrics:
        raise UserError(f"{path}: not an evaluation; {HOW}")
    predicted, labeled = (_read_table(_table_path(path, what), path) for what in ("predictions", "labels"))
    try:
        names = list(metrics["pcc"]["per_dimension"])
        evaluation = Evaluation(
            _info(metrics),
            Scores.from_json(metrics),
            names,
            ids=[row["Filename"] for row in labeled],
            groups=[row["group"] for row in labeled],
            predictions=_numbers(predicted, names),
            labels=_numbers(labeled, names).astype(np.float32),
            resamples=metrics["bootstrap"],
            bootstrap_seed=metrics["seeds"]["bootstrap"],
            path=path,
            crossed=[row[CROSSED] for row in labeled] if metrics["clips"].get("crossed_group") else None,
            unmet=Unmet(kinds, [row[UNMET] == "yes" for row in labeled])
            if (kinds := metrics["clips"].get("unmet_kinds"))
            else None,
            fingerprints=_fingerprints(labeled) if "fingerprints_digest" in metrics["clips"] else None,
        )
        expected = ClipDigests(*(metrics["clips"][key] for key in ("digest", "labels_digest", "groups_digest")))
        expected_predictions = metrics["predictions_digest"]
        expected_fingerprints = metrics["clips"].get("fingerprints_digest", evaluation.fingerprints_digest())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: its tables are damaged ({error}); evaluate again") from None
    digests, wanted = (evaluation.digests, evaluation.fingerprints_digest()), (expected, expected_fingerprints)
    if [row["Filename"] for row in predicted] != evaluation.ids or digests != wanted:
        raise UserError(f"{path}: the tables beside it are of other clips or labels; evaluate again")
    if expected_predictions not in map(evaluation.predictions_digest, (repr, _six_digits)):
        raise UserError(f"{path}: the predictions beside it are not the scored ones; evaluate again")
    return evaluation


def read_evaluations(paths: Iterable[Path]) -> list[Evaluation]:
    """Several evaluations; UserError when their dimensions differ."""
    first, *others = map(read_evaluation, paths)
    for other in others:
        if other.names != first.names:
            raise UserError(
                f"{other.path}: of dimensions {', '.join(other.names)}, but {first.path} is of {', '.join(first.names)}"
            )
        if other.scale != first.scale:
            raise UserError(
                f"{other.path}: its labels run over {other.scale}, but the labels of {first.path} over {first.scale}"
            )
    return [first, *others]


def _info(metrics: dict[str, Any]) -> EvaluationInfo:
    """The info in a JSON file; keys that are not fields become `sections`."""
    rest = {key: value for key, value in metrics.items() if key not in Scores.__dataclass_fields__}
    for key in ("bootstrap", "predictions_digest"):
        rest.pop(key)
    rest.pop("unmet", None)  # follows from the tables
    plain = ("split", "model", "configuration", "made_from", "seen_by_encoders", "unknown_training", "label_ranges")
    values = {key: rest.pop(key) for key in plain if key in rest}
    seen = rest.pop("seen", None)
    values["seen"] = None if seen is None else SeenClips(**seen)
    values |= {key: read(rest.pop(key)) for key, read in OPTIONAL.items() if key in rest}
    clips = rest.pop("clips")
    values |= {"group": clips["group"], "crossed_group": clips.get("crossed_group"), "data": clips.get("data", "")}
    values |= {"training_seed": rest.pop("seeds")["training"]}
    return EvaluationInfo(**values, sections=rest)


def _table_path(path: Path, what: str) -> Path:
    """The table of `what` beside the evaluation at `path`."""
    return Path(path).with_name(f"{Path(path).stem}_{what}.csv")


def _six_digits(value: float) -> str:
    """The format of predictions in evaluations of older versions."""
    return f"{value:.6f}"


def _read_table(path: Path, evaluation: Path) -> list[dict[str, str]]:
    try:
        return read_records(path)
    except UserError as error:
        raise UserError(f"{path}: missing or damaged, so {evaluation} cannot be used ({error}); {HOW}") from None


def _fingerprints(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([[int(part, 16) for part in row[FINGERPRINTS].split()] for row in rows], np.uint64).reshape(-1, 3)


def _numbers(rows: list[dict[str, str]], names: list[str]) -> np.ndarray:
    values = [[float(row[name]) if row[name] else np.nan for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(names))
