"""Scores of clips that may have been in training: refused, unless the user continues, which marks every table.

"Not known" is not "not seen": after `emit split` of clips that encoders were trained on, most test clips are training
clips. Data that cannot include these clips, such as the data behind published weights, gives a note instead of an
error.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from shared.errors import UserError
from stage2_fusion.data.encoder_training import OLDER, EncoderTraining
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import read_clips
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo

GO_ON = "or continue with --allow_unknown_training true, which marks every table"
OLD_EVALUATION = "an evaluation of an earlier version, which does not say; evaluate again"
OLD_MODEL = "the model does not record its training clips; train it with this version"


class Encounter(NamedTuple):
    """Which clips of a feature dataset its encoders have seen."""

    seen: int | None
    """Number of clips that they were trained on; None if unknown."""
    unknown: str
    """Why it is unknown; "" if it is known."""
    notes: list[str]


def meet_encoders(features: Path, info: FeatureInfo, ids: Sequence[str]) -> Encounter:
    """Whether the encoders have seen the clips `ids`. info: the features.json of the folder `features`, for all or some
    dimensions."""
    about, wanted = known_to_encoders(features, info), set(ids)
    notes = list(about.notes)
    if chosen := len(wanted & set(about.chosen)):
        notes.append(f"the epoch of the encoders was chosen by {chosen} of these clips")
    return Encounter(None if about.unknown else len(wanted & set(about.seen)), about.unknown, notes)


def known_to_encoders(features: Path, info: FeatureInfo) -> EncoderTraining:
    """All clips that the encoders have seen. Features of an earlier version tell this if the encoders were trained on
    the same clip dataset, with the same splits as at encoding."""
    if info.encoder_training is not None:
        return info.encoder_training
    training = info.encoders.config.get("training", {})
    sources = training.get("config", {}).get("pairs", {}).get("sources")
    if info.encoders.precomputed and not info.encoders.config:
        return EncoderTraining(notes=["the features came with the dataset: their training is not known"])
    if training.get("data_digest") != info.data.digest or sources:
        return EncoderTraining(unknown=OLDER)
    return EncoderTraining([clip.id for clip in read_clips(features, stored=True) if clip.split == "train"])


def check_known(features: Path, info: FeatureInfo, ids: Sequence[str], unknown: str, allowed: bool) -> str:
    """Why it is unknown whether the clips `ids` of a feature dataset trained a model or its encoders; "" if it is
    known. unknown: why it is unknown for the model. UserError if that is not `allowed`."""
    why = both_unknown(meet_encoders(features, info, ids).unknown, unknown)
    if why:
        _refuse(why, features, allowed)
    return why


def both_unknown(one: str, other: str) -> str:
    """The reasons in one line; "" without any."""
    return "; ".join(filter(None, [one, other]))


def refuse_unknown(info: EvaluationInfo, where: str | Path | None, allowed: bool) -> None:
    """UserError, beginning with `where`, if it is unknown whether scored clips were in training; if `allowed`, the
    evaluation is marked instead."""
    if info.unknown_training or (info.seen is not None and info.seen_by_encoders is not None):
        return
    why = OLD_MODEL if info.seen is None else OLD_EVALUATION
    _refuse(why, where, allowed)
    info.unknown_training = why


def mark_unknown(info: EvaluationInfo, why: str, where: str | Path, allowed: bool) -> None:
    """The same, for a known `why`: "" for an evaluation without doubt."""
    if why:
        _refuse(why, where, allowed)
        info.unknown_training = why
    refuse_unknown(info, where, allowed)


def refuse_unknown_evaluations(evaluations: Iterable[Evaluation], allowed: bool) -> None:
    """`refuse_unknown` for each evaluation. One that is already marked stays marked, and is not refused again."""
    for evaluation in evaluations:
        refuse_unknown(evaluation.info, evaluation.path, allowed)


def _refuse(why: str, where: str | Path | None, allowed: bool) -> None:
    if not allowed:
        raise UserError(f"{where}: it is not known whether these clips were trained on: {why}; {GO_ON}")
