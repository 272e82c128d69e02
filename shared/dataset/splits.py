"""Splits that keep together what belongs together: no person, or no seed video, on both sides of a comparison."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource
from shared.errors import UserError
from shared.registry import nearest
from shared.training.sampling import derive_seed

SHARES = {"test": 0.15, "valid": 0.15}
"""The rest is for training."""


def assign(source: ClipSource, group: str | None = None) -> ClipSource:
    """Give every clip a split when none has one, whole groups at a time; a source with splits is returned as it is.

    group: name of the group that must not be torn; by default the first the source has, and without any each clip is
    its own. The same groups always fall to the same splits, whatever their order. Fewer than three groups stay in
    train: nothing could be held out.
    """
    without = sum(not clip.split for clip in source.clips)
    if without < len(source.clips):
        note = f"{without} clips have no split and are in none of them" if without else ""
        return replace(source, notes=[*source.notes, note]) if note else source
    if group is not None and group not in source.group_names:
        raise UserError(f"--split_by {group}: the source has no such group; {nearest(group, source.group_names)}")
    group = group or (source.group_names[0] if source.group_names else None)

    def belongs_to(clip: Clip) -> str:
        return (clip.groups.get(group) if group else None) or f"clip {clip.id}"

    names = sorted({belongs_to(clip) for clip in source.clips}, key=lambda name: derive_seed("split", name))
    split = dict.fromkeys(names, "train")
    if len(names) >= 3:
        start = 0
        for part, share in SHARES.items():
            count = max(1, round(share * len(names)))
            split |= dict.fromkeys(names[start : start + count], part)
            start += count
    clips = [replace(clip, split=split[belongs_to(clip)]) for clip in source.clips]
    kept = f"groups of {group!r} are kept whole" if group else "there are no groups, so each clip stands alone"
    note = f"no splits given: about 70 / 15 / 15 % train / valid / test were drawn; {kept}"
    return replace(source, clips=clips, notes=[*source.notes, note])


def deal(group_of: dict[str, str], folds: int, seed: int) -> dict[str, int]:
    """{id: fold}, whole groups at a time: large groups first, each to the fold with the fewest clips. The same groups
    always fall to the same folds, whatever their order. group_of: {id: group}; "" = a group of its own."""
    sizes = Counter(_own(name, group) for name, group in group_of.items())
    filled, place = [0] * folds, {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], derive_seed("fold", seed, group))):
        place[group] = min(range(folds), key=lambda i: filled[i])
        filled[place[group]] += sizes[group]
    return {name: place[_own(name, group)] for name, group in group_of.items()}


def fold_of(group_of: dict[str, str], folds: int, fold: int, valid_share: float, seed: int) -> dict[str, str]:
    """{id: split} of fold `fold` of `folds`: its groups are test, of the others about `valid_share` of the clips are
    valid, again in whole groups, and the rest is train. Every clip is test in exactly one fold. group_of as for `deal`.
    UserError when there are too few groups."""
    place = deal(group_of, folds, seed)
    split = {name: "test" for name, part in place.items() if part == fold}
    rest: dict[str, list[str]] = {}
    for name in place.keys() - split.keys():
        rest.setdefault(_own(name, group_of[name]), []).append(name)
    if not split or len(rest) < 2:
        raise UserError(
            f"{len({_own(*pair) for pair in group_of.items()})} groups are too few for {folds} folds that leave one to "
            "test, one to train on and one to validate"
        )
    wanted, valid = valid_share * (len(group_of) - len(split)), 0
    for number, group in enumerate(sorted(rest, key=lambda group: derive_seed("valid", seed, fold, group))):
        part = "valid" if valid < wanted and number < len(rest) - 1 else "train"
        valid += len(rest[group]) if part == "valid" else 0
        split |= dict.fromkeys(rest[group], part)
    return split


def _own(name: str, group: str) -> str:
    return group or f"clip {name}"


def with_splits(table, folder: Path):
    """The rows of a dataset folder (a datasets.Dataset) with the splits of its splits.csv, when it has one, in place of
    those stored. The rows themselves stay where they are."""
    path = folder / "splits.csv"
    if not path.exists():
        return table
    try:
        with path.open(newline="") as file:
            split = {row["id"]: row["split"] for row in csv.DictReader(file)}
        values = [split[name] for name in table.data.column("id").to_pylist()]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged, or of other clips ({error}); make it with `emit split`") from None
    return table.remove_columns("split").add_column("split", values)
