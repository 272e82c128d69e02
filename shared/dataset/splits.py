"""Splits that keep groups whole: no person, or no seed video, is in two splits."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.crossed_splits import crossed_splits
from shared.dataset.rows import load_rows
from shared.errors import UserError
from shared.files import atomic_folder, digest, link_or_copy, write_csv
from shared.registry import nearest
from shared.saved.checksum import CLIPS, FEATURES, FolderKind, read_description, write_description
from shared.tables.cells import SPLITS, split_name
from shared.tables.formats import read_records
from shared.terminal.messages import note
from shared.terminal.results import result
from shared.text import counted
from shared.training.sampling import derive_seed

if TYPE_CHECKING:
    import datasets

FRACTIONS = {"test": 0.15, "valid": 0.15}
"""All other clips are for training."""


def assign_splits(source: ClipSource, group: str | None = None) -> ClipSource:
    """Give every clip a split if none has one, keeping groups whole. A source with splits is returned unchanged.

    group: name of the group to keep whole, by default the first of the source. Without groups, each clip is a group of
    its own, but text-only clips with the same words form one group.
    The same groups always get the same splits, in any order. Fewer than three groups cannot be kept whole: each clip is
    then a group of its own, with a note. If there are fewer than three clips, all are in train.
    """
    without = sum(not clip.split for clip in source.clips)
    if without < len(source.clips):
        note = (
            f"{counted(without, 'clip', 'has', 'have')} no split and {'is' if without == 1 else 'are'} in none of them"
            if without
            else ""
        )
        return replace(source, notes=[*source.notes, note]) if note else source
    if group is not None and group not in source.group_names:
        raise UserError(f"--split_by {group}: the source has no such group; {nearest(group, source.group_names)}")
    group = group or (source.group_names[0] if source.group_names else None)

    few = group and len({_group_key(clip.id, clip.groups.get(group, "")) for clip in source.clips}) < 3

    alike = _alike(source.clips) if not group or few else {}

    def group_of(clip: Clip) -> str:
        return _group_key(alike.get(clip.id, clip.id), clip.groups.get(group, "") if group and not few else "")

    names = sorted({group_of(clip) for clip in source.clips}, key=lambda name: derive_seed("split", name))
    split = dict.fromkeys(names, "train")
    if len(names) >= 3:
        start = 0
        for part, fraction in FRACTIONS.items():
            count = max(1, round(fraction * len(names)))
            split |= dict.fromkeys(names[start : start + count], part)
            start += count
    clips = [replace(clip, split=split[group_of(clip)]) for clip in source.clips]
    kept = f"groups of {group!r} are kept whole" if group else "there are no groups, so each clip is split on its own"
    if few:
        kept = (
            f"fewer than three groups of {group!r} cannot be kept whole, so each clip stands alone: scores say little "
            f"about a {group} that the model has not seen"
        )
    if repeated := sum(first != name for name, first in alike.items()):
        kept += (
            f"; {counted(repeated, 'text')} with the words of another {'is' if repeated == 1 else 'are'} kept with it"
        )
    drawn = []
    for part in SPLITS:
        split_groups = [group_of(clip) for clip in clips if clip.split == part]
        of = f" of {counted(len(set(split_groups)), 'group')}" if group and not few else ""
        drawn.append(f"{part} {counted(len(split_groups), 'clip')}{of}")
    note = f"no splits given, so they were drawn: {', '.join(drawn)}; {kept}"
    return replace(source, clips=clips, notes=[*source.notes, note])


def assign_folds(group_of: dict[str, str], folds: int, seed: int) -> dict[str, int]:
    """{id: fold}, keeping groups whole: large groups first, each to the fold with the fewest clips.

    The same groups always get the same folds, in any order. group_of: {id: group}; "" = a group of its own.
    """
    sizes = Counter(_group_key(name, group) for name, group in group_of.items())
    fold_sizes, fold_of = [0] * folds, {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], derive_seed("fold", seed, group))):
        fold_of[group] = min(range(folds), key=lambda i: fold_sizes[i])
        fold_sizes[fold_of[group]] += sizes[group]
    return {name: fold_of[_group_key(name, group)] for name, group in group_of.items()}


def fold_splits(group_of: dict[str, str], folds: int, fold: int, valid_share: float, seed: int) -> dict[str, str]:
    """{id: split} of one fold: its groups are test; about `valid_share` of the other clips, in whole groups, are valid;
    the rest is train. Every clip is test in exactly one fold.

    group_of: as for `assign_folds`. Raises UserError if there are too few groups.
    """
    split = {name: "test" for name, number in assign_folds(group_of, folds, seed).items() if number == fold}
    rest: dict[str, list[str]] = {}
    for name in group_of.keys() - split.keys():
        rest.setdefault(_group_key(name, group_of[name]), []).append(name)
    groups = {_group_key(*pair) for pair in group_of.items()}
    if not split or len(groups) < folds or len(rest) < 2:
        raise UserError(
            f"{len(groups)} groups are too few for {folds} folds that leave one to test, one to train on and one to "
            "validate"
        )
    target, valid = valid_share * (len(group_of) - len(split)), 0
    for number, group in enumerate(sorted(rest, key=lambda group: derive_seed("valid", seed, fold, group))):
        part = "valid" if valid < target and number < len(rest) - 1 else "train"
        valid += len(rest[group]) if part == "valid" else 0
        split |= dict.fromkeys(rest[group], part)
    return split


def split_dataset(
    data: Path,
    out: Path,
    *,
    by: str | None = None,
    folds: int = 4,
    fold: int = 0,
    valid_share: float = 0.15,
    within: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Write the folder `out`: the rows of a clip or feature dataset with the splits of one fold. Print a summary.

    by: the group to keep whole, by default the first; "subject,seed" for two kinds of groups: test shares neither with
    training, so some clips are left out; within: the splits to draw from, by default all. Leaves `out` unchanged if it
    already holds these splits. Raises UserError if it holds anything else.
    """
    kind, info = read_dataset(data)
    kinds = _kinds(by, info["group_names"])
    groups = [_read_groups(data, kind, within) for kind in kinds] or [_read_groups(data, None, within)]
    group_of = {name: group for name, group in groups[0].items() if group is not None}
    if len(kinds) == 2:
        pairs = {n: (_group_key(n, g), _group_key(n, groups[1][n] or "")) for n, g in group_of.items()}
        fold_split = crossed_splits(pairs, folds, fold, valid_share, seed)
    else:
        fold_split = fold_splits(group_of, folds, fold, valid_share, seed)
    splits = dict.fromkeys(groups[0], "") | fold_split
    settings = {"by": ",".join(kinds) or None, "within": list(within), "from": info["digest"]}
    settings |= {"folds": folds, "fold": fold, "valid_share": valid_share, "seed": seed}
    new_digest = digest([info["digest"], sorted(splits.items())])
    if (out / kind.description).exists() and read_dataset(out)[1].get("digest") == new_digest:
        result(f"{out}: already holds these splits; nothing to do", settings)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds something else; choose another --out or delete it")
    counts = Counter(splits.values())
    _write_split(data, out, kind, {**info, "split": settings, "digest": new_digest}, splits)
    shown = ", ".join(f"{counts[name]} {name}" for name in ("train", "valid", "test"))
    kept = f"groups of {kinds[0]!r} are whole" if kinds else "there are no groups, so each clip is split on its own"
    if len(kinds) == 2:
        left_out = counted(sum(not split for split in fold_split.values()), "clip")
        kept = f"no {kinds[0]} and no {kinds[1]} is in two splits; {left_out} between them are in no split"
    text = f"{out}: fold {fold} of {folds}, {shown}; {kept}; digest {new_digest} (was {info['digest']})"
    result(text, settings)
    if kind is FEATURES:
        note("the encoders are unchanged: if they were trained on clips that are now test, align in each fold")


def _kinds(by: str | None, group_names: Sequence[str]) -> list[str]:
    """The kinds of groups in `by`, by default the first, if any."""
    kinds = [name.strip() for name in by.split(",")] if by else list(group_names[:1])
    for name in kinds:
        if name not in group_names:
            raise UserError(f"--by {name}: the clips have no such group; {nearest(name, group_names)}")
    if len(set(kinds)) < len(kinds) or len(kinds) > 2:
        raise UserError(f"--by {by}: give one kind of group, or two different ones")
    return kinds


def read_dataset(path: Path) -> tuple[FolderKind, dict[str, Any]]:
    """Kind and description of a dataset. Raises UserError if `path` is not a dataset."""
    for kind in (CLIPS, FEATURES):
        if (Path(path) / kind.description).is_file():
            return kind, read_description(Path(path), kind, "make it again")
    raise UserError(
        f"{path}: neither a clip dataset nor a feature dataset; make one with `emit prepare` or `emit encode`"
    )


def with_splits(table: "datasets.Dataset", folder: Path) -> "datasets.Dataset":
    """The rows of a dataset folder, with splits from its splits.csv, if any, instead of the stored ones."""
    path = folder / "splits.csv"
    if not path.exists():
        return table
    try:
        split = {row["id"]: split_name(row["split"]) for row in read_records(path)}
        values = [split[name.strip()] for name in table.data.column("id").to_pylist()]
    except (KeyError, UserError) as error:
        raise UserError(f"{path}: damaged, or for other clips ({error}); make it with `emit split`") from None
    return table.remove_columns("split").add_column("split", values)


def _alike(clips: Sequence[Clip]) -> dict[str, str]:
    """{id: the first id with the same words} of text-only clips: in different splits, they would be memorized."""
    firsts: dict[str, str] = {}
    of: dict[str, str] = {}
    for clip in sorted(clips, key=lambda clip: clip.id):
        if clip.words_alone and clip.transcript:
            of[clip.id] = firsts.setdefault(" ".join(clip.transcript.casefold().split()), clip.id)
    return of


def _group_key(name: str, group: str) -> str:
    return group or f"clip {name}"


def _read_groups(data: Path, by: str | None, within: Sequence[str]) -> dict[str, str | None]:
    """{id: group} of every clip; None for a clip that does not take part."""
    import pyarrow as pa

    names = ["id", "split", *([f"group_{by}"] if by else [])]
    columns = pa.schema([(name, pa.string()) for name in names])
    table = with_splits(load_rows(data, columns, "make it again"), data).data
    ids, old_splits = table.column("id").to_pylist(), table.column("split").to_pylist()
    groups = table.column(f"group_{by}").to_pylist() if by else [""] * len(ids)
    for name in within:
        if name not in old_splits:
            raise UserError(f"--within {name}: no clip is in that split; {nearest(name, sorted(set(old_splits)))}")
    return {
        name: (group or "") if not within or split in within else None
        for name, group, split in zip(ids, groups, old_splits, strict=True)
    }


def _write_split(data: Path, out: Path, kind: FolderKind, info: dict[str, Any], splits: dict[str, str]) -> None:
    """Write a dataset folder that shares its rows with `data`."""
    if "counts" in info:
        info["counts"] = {**info["counts"], "splits": dict(sorted(Counter(splits.values()).items()))}
    if "made_from" in info:  # `emit prepare` must refuse this folder, because it would give other splits
        info["made_from"] = {**info["made_from"], "source": info["digest"]}
    with atomic_folder(out) as folder:
        for file in data.iterdir():
            if file.is_dir() and file.name == "data":
                shutil.copytree(file, folder / file.name, copy_function=link_or_copy)
            elif file.suffix == ".csv" and file.name != "splits.csv":
                link_or_copy(file, folder / file.name)
        write_csv(folder / "splits.csv", ["id", "split"], [[name, splits[name]] for name in splits])
        write_description(folder, kind, info)
