"""Whether training and validation data have anything to contrast. A loss over a batch of one clip, over clips that all
say the same, or over clips that lack one side means nothing: it is refused or reported."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from shared.errors import UserError
from shared.text import counted
from stage1_align.config import AlignConfig
from stage1_align.data.captions import text_key
from stage1_align.data.pairs import PairData, ValidationSet
from stage1_align.data.sources.base import PairSource, TableSource
from stage1_align.evaluation.retrieval import KS
from stage1_align.model import PAIRS, loss_sides

STREAM_RECORDS = 1000
"""Records of a stream to inspect."""
SHOWN = {"vision": "pictures", "audio": "sound"}


class Items(NamedTuple):
    """The modalities and texts of N training items."""

    present: dict[str, np.ndarray]
    """"vision" and "audio": bool (N,); True where it is not known before decoding."""
    keys: dict[str, list[str]]
    """For each kind of text: N keys, equal for texts that mean the same, "" without a text."""
    labeled: bool
    """Whether any item has all labels, as soft targets need."""


def check_contrast(config: AlignConfig, data: PairData) -> list[str]:
    """Lines about losses that teach nothing, with the reason. UserError if a tower has no other loss, or if a batch has
    only one clip: such a run would succeed and export its initial weights."""
    if not config.train.epochs:
        return []
    if config.train.batch_size < 2:
        what = "only 1 clip to train on" if data.mixture.count == 1 else "--train.batch_size 1"
        raise UserError(f"{what}: a contrastive loss compares the clips of a batch; give 2 or more")
    towers = [name for name in ("text", "vision", "audio") if getattr(config.towers, name) is not None]
    items = _read_items(data, config.pairs.captions)
    useless: dict[str, str] = {}
    learning: set[str] = set()
    # An unknown pair is refused, with its nearest name, by the model.
    pairs = [n for n, weight in config.loss.pairs.items() if weight > 0 and n in PAIRS and set(PAIRS[n]) <= {*towers}]
    for pair in pairs:
        for first, second in loss_sides(pair, config.pairs.captions):
            reason = _why_useless(items, pair, first, second)
            if reason:
                useless[_name(pair, first, second)] = reason
            else:
                learning |= set(PAIRS[pair])
    for tower in towers:
        reasons = [why for name, why in useless.items() if _has_side(name, tower)]
        if tower not in learning and reasons:
            out = f"leave it out with --towers.{tower} null"
            out = "name other texts in --pairs.captions, or give clips that have them" if tower == "text" else out
            raise UserError(f"the {tower} tower cannot learn: {'; '.join(dict.fromkeys(reasons))}; {out}")
    notes = [f"the loss {name} teaches nothing: {reason}" for name, reason in useless.items()]
    if config.loss.soft and not items.labeled:
        notes.append("--loss.soft has no effect: no training clip has all labels")
    return notes


def leave_out_unused(config: AlignConfig, data: PairData) -> tuple[AlignConfig, list[str]]:
    """The configuration without the towers that no training clip has input for, and lines that say so."""
    items = _read_items(data, config.pairs.captions)
    inputs = {"vision": "pictures", "audio": "sound"}
    unused = [n for n in inputs if getattr(config.towers, n) is not None and not items.present[n].any()]
    if not unused:
        return config, []
    towers = config.towers
    towers = replace(towers, vision=None) if "vision" in unused else towers
    towers = replace(towers, audio=None) if "audio" in unused else towers
    pairs = {pair: w for pair, w in config.loss.pairs.items() if not any(name in pair for name in unused)}
    notes = [f"the {name} tower is left out: no training clip has {inputs[name]}" for name in unused]
    return replace(config, towers=towers, loss=replace(config.loss, pairs=pairs)), notes


def check_validation(valid: ValidationSet, captions: Sequence[str], required: bool = True) -> list[str]:
    """A line about recalls that are always 1. UserError, or a line if not `required`, if no kind of text has two
    different texts to choose from: every recall would be 1."""
    counts = {kind: len({key for key in keys if key}) for kind, keys in zip(captions, valid.keys, strict=True)}
    if max(counts.values(), default=0) < 2:
        listed = ", ".join(f"{count} of kind {kind}" for kind, count in counts.items())
        how = "give more, or another valid_split"
        if counts.get("transcript") == 0:
            how = "transcribe the clips (emit prepare --transcribe FOLDER; transcribe=FOLDER in a recipe), or " + how
        problem = (
            f"the {len(valid)} validation items have no two different texts ({listed}), so that recall means nothing"
        )
        if required:
            raise UserError(f"{problem}: {how}")
        return [f"{problem}, and the last epoch is kept: {how}"]
    return [
        f"validation has {count} different texts of kind {kind}: R@{k} among them is always 1"
        for kind, count in counts.items()
        for k in [k for k in KS if 2 <= count <= k][:1]
    ]


def _read_items(data: PairData, captions: Sequence[str]) -> Items:
    present: dict[str, list[np.ndarray]] = {"vision": [], "audio": []}
    keys: dict[str, list[str]] = {kind: [] for kind in captions}
    labeled = False
    for source in data.sources:
        annotations = [source.annotations(item) for item in _some(source)]
        for modality, parts in present.items():
            known = source.present(modality)  # (N,)
            parts.append(np.ones(len(annotations), bool) if known is None else known)
        for kind, several in keys.items():
            several += [text_key(kind, each, source.label_names) for each in annotations]
        labeled = labeled or any(len(each.labels) and not np.isnan(each.labels).any() for each in annotations)
    return Items({name: np.concatenate(parts) for name, parts in present.items()}, keys, labeled)


def _some(source: PairSource) -> Iterable[Any]:
    return source.first(len(source) if isinstance(source, TableSource) else STREAM_RECORDS)


def _why_useless(items: Items, pair: str, first: str, second: str) -> str:
    """Why the loss between two sides ("vision", "audio", or a kind of text) teaches nothing; "" if it does."""
    texts = {kind: np.array([bool(key) for key in several]) for kind, several in items.keys.items()}
    has = items.present | texts  # (N,) each
    rows = np.flatnonzero(has[first] & has[second])
    shown = [SHOWN.get(side, f"text of kind {side}") for side in (first, second)]
    for side, words in zip((first, second), shown, strict=True):
        if not has[side].any():
            return f"no training clip has {words}"
    if not len(rows):
        return f"no training clip has {' and '.join(shown)}"
    if len(rows) == 1:
        return f"one training clip alone has {' and '.join(shown)}"
    kind = second if second not in SHOWN else next(iter(items.keys))  # as ContrastiveModel compares them
    meanings = {items.keys[kind][row] or row for row in rows}
    return f"all {counted(len(rows), 'training clip')} have the same text of kind {kind}" if len(meanings) < 2 else ""


def _name(pair: str, first: str, second: str) -> str:
    return pair if pair == "vision_audio" else f"{first}_{second}"


def _has_side(name: str, tower: str) -> bool:
    """Whether a loss, named by its two sides, trains a tower."""
    sides = name.split("_")
    return tower in sides if tower != "text" else any(side not in SHOWN for side in sides)
