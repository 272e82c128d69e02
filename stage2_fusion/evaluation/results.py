"""An evaluation: the data for all comparisons of systems, without the model or the features."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.files import digest
from shared.metrics import DimensionScores, Scores, score, why_no_pcc
from stage2_fusion.evaluation.damage_detection import DamagedViewScores, DamageReport
from stage2_fusion.evaluation.damage_signals import Comparison
from stage2_fusion.evaluation.leak import LeakProbe
from stage2_fusion.evaluation.trust import IntervalScores, UnlikeClips

MARK = "not known whether it was trained on scored clips"
"""The remark in tables about an evaluation with `unknown_training`."""


class ClipDigests(NamedTuple):
    """Digests of the scored clips: equal if two evaluations score the same clips, labels and groups."""

    clips: str
    labels: str
    groups: str


@dataclass(frozen=True)
class SeenClips:
    """How many of the scored clips trained or selected the system; 0 and 0 for a fair score."""

    in_training: int
    in_choosing: int
    """Clips that selected an epoch, a penalty or a weight of the system."""


@dataclass(frozen=True)
class FoldPart:
    """One of the merged evaluations."""

    path: str
    n: int
    pcc: float | None
    """None if its labels allow no PCC."""
    made_from: dict[str, Any]


class Unmet(NamedTuple):
    """Which scored clips are of unmet groups: no clip that trained or selected the system is of such a group."""

    kinds: list[str]
    """Such as subject and seed: an unmet clip has an unmet group of each kind."""
    rows: list[bool]
    """Whether each clip is unmet."""


OPTIONAL: dict[str, Callable[[Any], Any]] = {
    "ceiling": lambda value: DimensionScores(**value),
    "leak_probe": LeakProbe.from_json,
    "damage": DamageReport.from_json,
    "damaged_on_purpose": DamagedViewScores.from_json,
    "damage_detectors": lambda value: [Comparison.from_json(part) for part in value],
    "intervals": IntervalScores.from_json,
    "unlike": lambda value: UnlikeClips(**value),
    "parts": lambda value: [FoldPart(**part) for part in value],
}
"""{field of EvaluationInfo that the JSON file omits if empty: its parser}."""


BASELINES = ("kernel ridge", "kernel ridge on features", "logistic regression", "ridge")
"""Models of `emit baseline`: cheap, and at the top of every table."""


@dataclass
class EvaluationInfo:
    """What was scored: everything in the JSON file that is not a score of the predictions."""

    split: str
    group: str | None
    """Kind of the groups, such as subject; None when each clip is its own group."""
    crossed_group: str | None = field(default=None, kw_only=True)
    """A second kind of groups, such as seed, with clips of several groups of the first kind in each group."""
    model: str
    configuration: dict[str, Any] | None
    """The model's options."""
    made_from: dict[str, Any]
    """Paths and digests of the inputs of the predictions."""
    data: str = ""
    """Digest of the clip dataset of the clips; "" if unknown, or if there are several."""
    training_seed: int | list[int] | None = None
    seen: SeenClips | None = None
    """None if unknown."""
    seen_by_encoders: int | None = None
    """Scored clips that the encoders were aligned on; None if unknown."""
    unknown_training: str = ""
    """Why it is unknown whether scored clips were in training, if the user continued nevertheless; every table says
    so."""
    ceiling: DimensionScores | None = None
    """PCC of a perfect model on these labels; of synthetic corpora."""
    leak_probe: LeakProbe | None = None
    damage: DamageReport | None = None
    """How well low weights find the damage in a synthetic corpus."""
    damaged_on_purpose: DamagedViewScores | None = None
    """Scores of the same clips with one modality deliberately damaged."""
    damage_detectors: list[Comparison] = field(default_factory=list)
    """The weights, raw signals and a regression on the signals as detectors of deliberate damage."""
    intervals: IntervalScores | None = None
    """Coverage and width of the model's intervals; None for a model without intervals."""
    unlike: UnlikeClips | None = None
    """Clips that are unlike the training clips; None if unknown."""
    parts: list[FoldPart] = field(default_factory=list)
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each dimension; predictions and labels are on this scale. None means [0, 1]."""
    sections: dict[str, Any] = field(default_factory=dict)
    """More keys of the JSON file, which some commands add for the reader."""

    @property
    def is_baseline(self) -> bool:
        return self.model in BASELINES


@dataclass
class Evaluation:
    """Predictions of N clips with their scores; clips are sorted by id."""

    info: EvaluationInfo
    scores: Scores
    names: list[str]
    """The K dimensions."""
    ids: list[str]
    groups: list[str]
    """The group of each clip."""
    predictions: np.ndarray
    """float64 (N, K)."""
    labels: np.ndarray
    """float32 (N, K), NaN = not labeled."""
    resamples: int
    """Bootstrap samples behind the intervals."""
    bootstrap_seed: int
    path: Path | None = None
    """Where it was read from."""
    crossed: list[str] | None = None
    """The group of the second kind of each clip."""
    unmet: Unmet | None = None
    """None if unknown."""
    fingerprints: np.ndarray | None = None
    """uint64 (N, 3), of the clips (shared/dataset/training_clips.py), 0 = none; None if unknown."""

    @property
    def mean_pcc(self) -> float | None:
        """The score: PCC, mean over the dimensions that have one. None if the labels allow no PCC."""
        return self.scores.pcc.mean

    @property
    def scale(self) -> LabelScale:
        """The range of each dimension."""
        return LabelScale.of(self.names, self.info.label_ranges)

    @cached_property
    def digests(self) -> ClipDigests:
        labels = [[label_text(value) for value in row] for row in self.labels]
        return ClipDigests(digest(self.ids), digest([self.ids, labels]), digest([self.ids, self.groups]))

    @cached_property
    def unmet_part(self) -> "Evaluation | None":
        """Only the clips of unmet groups; None if these are none, all or unknown."""
        if self.unmet is None or not 0 < sum(self.unmet.rows) < len(self.ids):
            return None
        rows = np.flatnonzero(self.unmet.rows)
        ids, groups, crossed = (
            None if values is None else [values[i] for i in rows] for values in (self.ids, self.groups, self.crossed)
        )
        assert ids is not None and groups is not None
        data = self.predictions[rows], self.labels[rows]
        return score_predictions(
            self.info, self.names, ids, groups, *data, self.resamples, self.bootstrap_seed, crossed
        )

    def fingerprints_digest(self) -> str:
        """Digest of the fingerprints in their written form."""
        return digest([self.ids, self.fingerprint_texts()])

    def fingerprint_texts(self) -> list[str]:
        """The fingerprints of each clip in their written form."""
        rows = [] if self.fingerprints is None else self.fingerprints.tolist()
        return [" ".join(f"{value:016x}" for value in row) for row in rows]

    def predictions_digest(self, text: Callable[[float], str] = repr) -> str:
        """Digest of the predictions in their written form."""
        return digest([self.ids, [[text(value) for value in row] for row in self.predictions.tolist()]])

    def to_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        info, digests = self.info, self.digests
        optional = {name: getattr(info, name) for name in OPTIONAL}
        return {
            "split": info.split,
            "model": info.model,
            **asdict(self.scores),
            "clips": {
                "n": len(self.ids),
                "group": info.group,
                "groups": len(set(self.groups)),
                **({"crossed_group": info.crossed_group} if info.crossed_group else {}),
                **({"unmet_kinds": self.unmet.kinds} if self.unmet else {}),
                "digest": digests.clips,
                "labels_digest": digests.labels,
                "groups_digest": digests.groups,
                **({"data": info.data} if info.data else {}),
                **({"fingerprints_digest": self.fingerprints_digest()} if self.fingerprints is not None else {}),
            },
            "seeds": {"training": info.training_seed, "bootstrap": self.bootstrap_seed},
            "bootstrap": self.resamples,
            "predictions_digest": self.predictions_digest(),
            "configuration": info.configuration,
            "seen": info.seen and asdict(info.seen),
            "seen_by_encoders": info.seen_by_encoders,
            "made_from": info.made_from,
            **({"unmet": _unmet_json(self.unmet.kinds, self.unmet_part)} if self.unmet and self.unmet_part else {}),
            **{name: _plain(value) for name, value in optional.items() if value},
            **({"unknown_training": info.unknown_training} if info.unknown_training else {}),
            **({"label_ranges": info.label_ranges} if info.label_ranges else {}),
            **info.sections,
        }


def score_predictions(
    info: EvaluationInfo,
    names: Sequence[str],
    ids: Sequence[str],
    groups: Sequence[str],
    predictions: np.ndarray,
    labels: np.ndarray,
    resamples: int,
    seed: int,
    crossed: Sequence[str] | None = None,
    unmet: Unmet | None = None,
    fingerprints: np.ndarray | None = None,
) -> Evaluation:
    """Score predictions (N, K) against labels (N, K), rows in any order, both on the scale of `info.label_ranges`.
    crossed: the group of `info.crossed_group` of each clip; fingerprints: uint64 (N, 3), None or zeros for none."""
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    ids, groups = [ids[i] for i in order], [groups[i] for i in order]
    others = None if crossed is None else [crossed[i] for i in order]
    unmet = unmet and Unmet(unmet.kinds, [unmet.rows[i] for i in order])
    predictions = np.asarray(predictions, dtype=np.float64)[order]
    labels = np.asarray(labels, dtype=np.float32)[order]
    lowest = LabelScale.of(names, info.label_ranges).lowest.astype(np.float32)  # (K,), rounded as the labels are
    scores = score(predictions, labels, names, groups, resamples, seed, lowest, others)
    tables = list(names), ids, groups, predictions, labels
    prints = fingerprints[order] if fingerprints is not None and fingerprints.any() else None  # (N, 3)
    return Evaluation(info, scores, *tables, resamples, seed, crossed=others, unmet=unmet, fingerprints=prints)


def check_distinct(evaluations: list[Evaluation]) -> None:
    """UserError when an evaluation is given twice, even as a copy: it would count as two seeds, folds or members."""
    first: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        info = evaluation.info
        made_by = [info.model, info.configuration, info.training_seed, info.made_from.get("model_digest")]
        scored = [*evaluation.digests, evaluation.predictions_digest()]
        other = first.setdefault(digest([made_by, scored]), evaluation)
        if other is not evaluation:
            raise UserError(f"{evaluation.path}: the same evaluation as {other.path}; give each once")


def check_same_clips(a: Evaluation, b: Evaluation) -> None:
    """UserError when two evaluations do not score the same clips, labels and groups."""
    for what, of_a, of_b in zip(ClipDigests._fields, a.digests, b.digests, strict=True):
        if of_a != of_b:
            shared = f"; {len(set(a.ids) & set(b.ids))} of {len(a.ids)} and {len(b.ids)} are shared"
            raise UserError(
                f"{a.path} and {b.path}: scored on different {what}{shared if what == 'clips' else ''}; "
                "evaluate both on the same split of the same data"
            )


def combine_seen(
    parts: list[EvaluationInfo], combine: Callable[[Iterable[int]], int]
) -> tuple[SeenClips | None, int | None]:
    """`seen` and `seen_by_encoders` of several evaluations, combined by sum (folds) or max (members); None if one of
    them is unknown."""
    seen, by_encoders = [part.seen for part in parts], [part.seen_by_encoders for part in parts]
    known = [part for part in seen if part is not None]
    combined = None
    if len(known) == len(seen):
        combined = SeenClips(combine(part.in_training for part in known), combine(part.in_choosing for part in known))
    return combined, None if None in by_encoders else combine(count for count in by_encoders if count is not None)


def combine_unknown(parts: Iterable[EvaluationInfo]) -> str:
    """The combined `unknown_training` of several evaluations."""
    return "; ".join(dict.fromkeys(part.unknown_training for part in parts if part.unknown_training))


def parse_named_path(text: str) -> tuple[str, Path]:
    """(name, path) of NAME=PATH; of PATH, the name is ""."""
    name, sign, path = text.partition("=")
    return (name, Path(path)) if sign and not Path(text).exists() else ("", Path(text))


def _unmet_json(kinds: list[str], part: Evaluation) -> dict[str, Any]:
    why = "" if part.mean_pcc is not None else why_no_mean(part.labels)
    return {"kinds": kinds, "groups": part.scores.groups, "pcc": asdict(part.scores.pcc), "why": why}


def why_no_mean(labels: np.ndarray) -> str:
    """Why no dimension of labels (N, K) has a PCC."""
    return ", ".join(dict.fromkeys(why_no_pcc(column) for column in labels.T))


def _plain(value: Any) -> Any:
    return [asdict(part) for part in value] if isinstance(value, list) else asdict(value)


def label_text(value: float) -> str:
    """A label in its written form: empty if there is none."""
    return "" if np.isnan(value) else f"{value:.9g}"  # nine digits restore a float32 exactly
