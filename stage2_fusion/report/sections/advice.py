"""What would help next: to trust the score, and to train a better model."""

import contextlib

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.metrics import FEW_GROUPS
from shared.text import counted
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.report.clip_table import ClipTable, read_clip_table
from stage2_fusion.report.content import Fact, Lines, NotFound, Section
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.sections.dimensions import relative_spread

FEW_CLIPS = 200
"""With fewer training clips, more clips help most."""
SMALL_SPREAD = 0.25
FEW_LABELED = 0.9
MOST_NAMES = 5


def advice(inputs: Inputs) -> Section | None:
    """The section; None if there is nothing to advise."""
    evaluation = inputs.evaluation
    lines = _about_score(evaluation)
    with contextlib.suppress(NotFound, UserError):  # the section of the data says so
        lines += _about_clips(read_clip_table(inputs), evaluation)
    return Section("What would help next", blocks=[Lines(lines)]) if lines else None


def _about_score(evaluation: Evaluation) -> list[Fact]:
    lines, groups, group = [], evaluation.scores.groups, evaluation.info.group or "group"
    if groups < FEW_GROUPS:
        text = (
            f"{counted(groups, group)} {'is' if groups == 1 else 'are'} scored. From 2 on the score has an interval, "
            f"from {FEW_GROUPS} on the interval can be trusted; a clip of a new {group} tells more than another one of "
            "the same. To score every clip once, train on each fold of "
            "`emit split CLIPS --folds 4 --fold 0` (then 1, 2, 3), and join the four evaluations with "
            "`emit merge-folds`."
        )
        lines.append(Fact(f"More {group}s to score", text))
    spread = relative_spread(evaluation)
    if spread is not None and spread < SMALL_SPREAD:
        text = (
            f"the predictions vary {spread:.2f} times as much as the labels. Read which clip is above which, not the "
            "values; more training clips, then more epochs, may widen them."
        )
        lines.append(Fact("Wider predictions", text))
    return lines


def _about_clips(table: ClipTable, evaluation: Evaluation) -> list[Fact]:
    lines, group = [], evaluation.info.group or ""
    train = table.in_split("train")
    labeled = train & ~np.isnan(table.labels).all(axis=1) if table.names else train & False
    if 0 < labeled.sum() < FEW_CLIPS:
        of = {name for name, keep in zip(table.groups.get(group, []), labeled, strict=False) if keep and name}
        text = (
            f"the model learned from {counted(int(labeled.sum()), 'clip')}"
            + (f" of {counted(len(of), group)}" if of else "")
            + ". That is little for encoders and a model trained from scratch: the demo has 2,000 clips. Pretrained "
            "encoders, which a configuration of `emit align` can name, have less to learn."
        )
        lines.append(Fact("More clips to train on", text))
    lines += [Fact(*ABSENT[name]) for name in MODALITIES if len(table.ids) and not table.present[name].any()]
    shares = {name: float((~np.isnan(table.labels[:, k])).mean()) for k, name in enumerate(table.names)}
    few = [name for name, share in shares.items() if 0 < share < FEW_LABELED][:MOST_NAMES]
    if few:
        named = ", ".join(f"{name} ({shares[name]:.0%} of the clips)" for name in few)
        lines.append(Fact("The missing labels", f"{named}: a clip without a label teaches that dimension nothing."))
    return lines


ABSENT = {
    "vision": ("Faces", "no clip shows one: see the remarks of `emit check` and the contact sheet of `emit prepare`."),
    "audio": ("Sound", "no clip has any: were the files exported without it?"),
    "text": (
        "Words",
        "no clip has a transcript: give the table a column named transcript, or a folder of a Whisper model to "
        "`emit prepare --transcribe` (`transcribe=` of `emit run own`).",
    ),
}
"""{modality: (title, advice)} for a modality that no clip has."""
