"""An evaluation on disk: what every comparison of systems reads, with neither model nor features at hand.

X.json               scores, and under "clips" which clips, labels and groups they are about
X_predictions.csv    Filename, one column a dimension
X_labels.csv         Filename, group (what the bootstrap draws), one column a dimension; empty = not labelled
"""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.files import digest, read_json, write_csv, write_json

HOW = "give the JSON file that `emit evaluate` wrote"


@dataclass
class Evaluation:
    """Predictions (N, K) of clips and their labels (N, K), NaN = not labelled, in the order of the sorted ids."""

    metrics: dict
    """What the JSON file holds."""
    names: list[str]
    """The K dimensions."""
    ids: list[str]
    """The N clips."""
    groups: list[str]
    """The group of each clip."""
    predictions: np.ndarray
    labels: np.ndarray
    path: Path | None = None
    """Where it was read."""


def evaluation(
    names: list[str],
    ids: list[str],
    groups: list[str],
    predictions: np.ndarray,
    labels: np.ndarray,
    about: dict,
    bootstrap: int,
    seed: int,
) -> Evaluation:
    """Score predictions (N, K) against labels (N, K), rows in any order.

    about: what is known of the system and the clips: "split", "group" (the kind of `groups`, None when each clip is its
    own), "model", "configuration", "seeds", "seen", "made_from" and more. "seen" counts the clips that the system was
    trained on ("in_training") and those that chose it ("in_choosing": an epoch, a penalty, a weight); None where it is
    not known. "seen_by_encoders" counts those that its encoders were aligned on.
    """
    from shared.metrics import score

    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    ids, groups = [ids[i] for i in order], [groups[i] for i in order]
    predictions = np.asarray(predictions, dtype=np.float64)[order]
    labels = np.asarray(labels, dtype=np.float32)[order]
    about = dict(about)
    kind = about.pop("group")
    metrics = {
        "split": about.pop("split"),
        "model": about.pop("model"),
        **asdict(score(predictions, labels, names, groups, bootstrap, seed)),
        "clips": {"n": len(ids), "group": kind, "groups": len(set(groups)), **digests(ids, groups, labels)},
        "seeds": {"training": None, "bootstrap": seed, **about.pop("seeds", {})},
        "bootstrap": bootstrap,
        "predictions_digest": _digest_of(ids, predictions),
        **about,
    }
    return Evaluation(metrics, list(names), ids, groups, predictions, labels)


def digests(ids: list[str], groups: list[str], labels: np.ndarray) -> dict[str, str]:
    """Of the clips, of their labels, of their groups: equal where two evaluations are about the same."""
    return {
        "digest": digest(list(ids)),
        "labels_digest": digest([list(ids), [[_text(value) for value in row] for row in labels]]),
        "groups_digest": digest([list(ids), list(groups)]),
    }


def write(out: Path, evaluation: Evaluation) -> None:
    """Write the three files; the JSON, which the others belong to, last."""
    out = Path(out)
    rows = [[name, *_texts(row)] for name, row in zip(evaluation.ids, evaluation.predictions, strict=True)]
    write_csv(beside(out, "predictions"), ["Filename", *evaluation.names], rows)
    columns = zip(evaluation.ids, evaluation.groups, evaluation.labels, strict=True)
    rows = [[name, group, *map(_text, row)] for name, group, row in columns]
    write_csv(beside(out, "labels"), ["Filename", "group", *evaluation.names], rows)
    write_json(out, evaluation.metrics)


def read(path: Path) -> Evaluation:
    """Read the three files. UserError when one is missing, or they do not belong together."""
    path = Path(path)
    metrics = read_json(path, "evaluation", HOW)
    if not isinstance(metrics, dict) or "clips" not in metrics or "pcc" not in metrics:
        raise UserError(f"{path}: not an evaluation; {HOW}")
    names = list(metrics["pcc"]["per_dimension"])
    predicted, labelled = (_read_table(beside(path, what), path) for what in ("predictions", "labels"))
    ids = [row["Filename"] for row in labelled]
    try:
        predictions, labels = _numbers(predicted, names), _numbers(labelled, names)
        groups = [row["group"] for row in labelled]
        told = {key: metrics["clips"][key] for key in ("digest", "labels_digest", "groups_digest")}
        given = metrics["predictions_digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its tables are damaged ({error}); evaluate again") from None
    labels = labels.astype(np.float32)
    if [row["Filename"] for row in predicted] != ids or digests(ids, groups, labels) != told:
        raise UserError(f"{path}: the tables beside it are of other clips or labels; evaluate again")
    if _digest_of(ids, predictions) != given:
        raise UserError(f"{path}: the predictions beside it are not those it scores; evaluate again")
    return Evaluation(metrics, names, ids, groups, predictions, labels, path)


def read_all(paths: list[Path]) -> list[Evaluation]:
    """Several evaluations of the same dimensions; UserError otherwise."""
    found = [read(path) for path in paths]
    for other in found[1:]:
        if other.names != found[0].names:
            raise UserError(
                f"{other.path}: of dimensions {', '.join(other.names)}, but {found[0].path} is of "
                f"{', '.join(found[0].names)}"
            )
    return found


def same_clips(a: Evaluation, b: Evaluation) -> None:
    """UserError when two evaluations are not of the same clips, labels and groups."""
    for key, what in (("digest", "clips"), ("labels_digest", "labels"), ("groups_digest", "groups")):
        if a.metrics["clips"][key] != b.metrics["clips"][key]:
            share = f"; {len(set(a.ids) & set(b.ids))} of {len(a.ids)} and {len(b.ids)} are shared"
            raise UserError(
                f"{a.path} and {b.path}: scored on different {what}{share if what == 'clips' else ''}; "
                "evaluate both on the same split of the same data"
            )


def add_seen(parts: list[dict], together) -> dict:
    """What several evaluations have "seen", put together by `together` (sum over folds, max over members); None when
    one of them does not know."""
    seen, encoders = ([part.get(key) for part in parts] for key in ("seen", "seen_by_encoders"))
    keys = ("in_training", "in_choosing")
    return {
        "seen": None if None in seen else {key: together(part[key] for part in seen) for key in keys},
        "seen_by_encoders": None if None in encoders else together(encoders),
    }


def named(text: str) -> tuple[str, Path]:
    """(name, path) of PATH, whose name is "", or NAME=PATH."""
    name, sign, path = text.partition("=")
    return (name, Path(path)) if sign and not Path(text).exists() else ("", Path(text))


def beside(path: Path, what: str) -> Path:
    """The file that holds `what` of the evaluation at `path`."""
    return path.with_name(f"{path.stem}_{what}.csv")


def _digest_of(ids: list[str], predictions: np.ndarray) -> str:
    """Of predictions (N, K) as they are written."""
    return digest([list(ids), [_texts(row) for row in predictions]])


def _texts(predicted: np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in predicted]


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"  # nine digits bring a float32 back


def _read_table(path: Path, evaluation: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: missing or damaged, so {evaluation} cannot be used ({error}); {HOW}") from None


def _numbers(rows: list[dict[str, str]], names: list[str]) -> np.ndarray:
    values = [[float(row[name]) if row[name] else np.nan for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(names))
