"""Which dimensions the clips of a split can train and score, by their labels and modalities; others are refused or
named."""

from collections.abc import Mapping, Sequence

import numpy as np

from shared.errors import UserError
from shared.metrics import why_no_pcc, why_not_learned
from shared.text import counted
from shared.training.sampling import derive_seed
from stage2_fusion.data.features import FeatureSample


def learnable_dimensions(labels: np.ndarray, names: Sequence[str], where: str) -> tuple[list[str], dict[str, str]]:
    """The dimensions that can be learned from training labels (N, K), NaN = not labeled, and {dimension: why not} of
    the others: without two different labels, a model learns at most a constant. UserError, beginning with `where`, when
    no dimension can be learned."""
    why = {name: why_not_learned(labels[:, k]) for k, name in enumerate(names)}
    others = {name: reason for name, reason in why.items() if reason}
    if len(others) == len(names):
        raise UserError(f"{where}: nothing can be learned from its labels: {_listed(others) or 'there are none'}")
    return [name for name in names if name not in others], others


def scorable_dimensions(labels: np.ndarray, names: Sequence[str], where: str) -> dict[str, str]:
    """{dimension: why not} for dimensions that validation labels (N, K) cannot score. UserError, beginning with
    `where`, when they can score none: no model could be selected by them."""
    others = {name: reason for k, name in enumerate(names) if (reason := why_no_pcc(labels[:, k]))}
    if len(others) == len(names):
        raise UserError(
            f"{where}: its labels allow no PCC, so that nothing can be chosen by them: {_listed(others)}; give it more "
            "labeled clips, or name another split"
        )
    return others


def within_budget(
    ids: Sequence[str], groups: Sequence[Mapping[str, str]], labels: np.ndarray, count: int
) -> np.ndarray:
    """Which of N clips to train on if at most `count` may be used: bool (N,). 0 = all.

    Whole groups of the first kind are taken, in an order that depends only on their names, and the last group in part.
    A smaller budget is therefore a subset of a larger one, as if fewer people had been annotated. Clips without any
    label do not count. groups: {kind: name} of each clip; labels (N, K), NaN = not labeled."""
    labeled = ~np.isnan(labels).all(axis=1)  # (N,)
    if not count or count >= labeled.sum():
        return np.ones(len(ids), bool)
    names = [next(iter(group.values()), "") or f"clip {id_}" for id_, group in zip(ids, groups, strict=True)]
    order = sorted(np.flatnonzero(labeled), key=lambda i: (derive_seed("budget", names[i]), names[i], ids[i]))
    kept = np.zeros(len(ids), bool)  # (N,)
    kept[order[:count]] = True
    return kept


def require_modality(samples: Sequence[FeatureSample], modalities: Sequence[str], where: str) -> list[str]:
    """A line about samples with none of these modalities, if there are any. UserError, beginning with `where`, when no
    sample has one: all predictions would be the same."""
    without = sum(not any(sample.modality(name).steps for name in modalities) for sample in samples)
    listed = " or ".join(modalities)
    if without == len(samples):
        raise UserError(
            f"{where}: none of its {counted(without, 'clip')} has {listed}, so all predictions would be equal"
        )
    return (
        [f"{where}: {without} of {counted(len(samples), 'clip', 'has', 'have')} no {listed}: nothing of them is read"]
        if without
        else []
    )


def left_out_note(others: dict[str, str]) -> str:
    """A line about dimensions that cannot be learned from the training labels."""
    return f"left out, because their training labels teach nothing: {_listed(others)}"


def not_scored_note(others: dict[str, str], split: str) -> str:
    """A line about dimensions that validation labels cannot score."""
    return f"not scored on split {split!r}, and so not counted in its PCC: {_listed(others)}"


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
