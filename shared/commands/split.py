"""`emit split`: other splits for a clip dataset or a feature dataset, which keeps its stored rows."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration
from shared.dataset.splits import fold_of, with_splits
from shared.errors import UserError
from shared.files import atomic_folder, digest, link_or_copy, read_json, write_csv, write_json
from shared.registry import nearest
from shared.text import one_line

DESCRIPTIONS = {"dataset.json": "emit-clips/", "features.json": "emit-features/"}
"""What describes each kind of dataset, and how its format begins."""


@dataclass
class SplitConfig:
    """Give a clip dataset or a feature dataset the splits of one fold: whole groups are test, valid or train."""

    data: Path
    """Clip dataset (`emit prepare`) or feature dataset (`emit encode`). Stage 1 sees the labels and words of its
    training clips, so for folds nobody can fault split the clip dataset and align in each fold."""
    out: Path
    """Folder of the same rows with other splits; hard links where the disk allows them."""
    by: str | None = None
    """Group that is never torn, by default the first there is: subject for unmet people, seed for unmet seed videos."""
    folds: int = 4
    """How many; each clip is test in one of them."""
    fold: int = 0
    """Which one, from 0."""
    valid_share: float = 0.15
    """Share of the clips outside the fold that choose the epoch."""
    within: list[str] = field(default_factory=list)
    """Splits whose clips take part, such as ["train", "valid"] where the labels of test are hidden; the others are in
    no split. By default all clips."""
    seed: int = 0
    """Decides which groups fall together."""

    def __post_init__(self):
        if self.folds < 2 or not 0 <= self.fold < self.folds:
            raise UserError(
                f"--fold {self.fold} of --folds {self.folds}: there must be two folds or more, counted from 0"
            )
        if not 0 < self.valid_share < 1:
            raise UserError(f"--valid_share {self.valid_share}: it must lie between 0 and 1")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SplitConfig,
        argv,
        prog="emit split",
        example="emit split runs/clips --by subject --folds 4 --fold 0 --out runs/clips_fold0",
        positional=("data",),
    )
    split(config)
    return 0


def split(config: SplitConfig) -> None:
    """Write the folder; leave it alone when it is there; refuse to replace something else."""
    description, info = describe(config.data)
    by = config.by or next(iter(info["group_names"]), None)
    if by is not None and by not in info["group_names"]:
        raise UserError(f"--by {by}: the clips have no such group; {nearest(by, info['group_names'])}")
    splits = _splits(config, by)
    settings = {"by": by, "within": config.within, "from": info["digest"]}
    settings |= {name: getattr(config, name) for name in ("folds", "fold", "valid_share", "seed")}
    old, info = info["digest"], {**info, "split": settings, "digest": digest([info["digest"], sorted(splits.items())])}
    if (config.out / description).exists() and describe(config.out)[1].get("digest") == info["digest"]:
        print(f"{config.out}: already holds these splits; nothing to do")
        return
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise UserError(f"{config.out}: holds something else; choose another --out or delete it")
    counts = Counter(splits.values())
    if "counts" in info:
        info["counts"] = {**info["counts"], "splits": {name: counts[name] for name in sorted(counts)}}
    if "made_from" in info:  # `emit prepare` into this folder would give other splits: it is to say so
        info["made_from"] = {**info["made_from"], "source": info["digest"]}
    with atomic_folder(config.out) as folder:
        for file in config.data.iterdir():
            if file.is_dir() and file.name == "data":
                shutil.copytree(file, folder / file.name, copy_function=link_or_copy)
            elif file.suffix == ".csv" and file.name != "splits.csv":
                link_or_copy(file, folder / file.name)
        write_csv(folder / "splits.csv", ["id", "split"], [[name, splits[name]] for name in splits])
        write_json(folder / description, info)
    each = ", ".join(f"{counts[name]} {name}" for name in ("train", "valid", "test"))
    kept = f"groups of {by!r} are whole" if by else "there are no groups, so each clip stands alone"
    print(f"{config.out}: fold {config.fold} of {config.folds}, {each}; {kept}; digest {info['digest']} (was {old})")
    if description == "features.json":
        print("the encoders stay as they were: if they were trained on clips that are now test, align in each fold")


def describe(path: Path) -> tuple[str, dict]:
    """The name of the file that describes a dataset, and what it says; UserError when `path` is none."""
    for name, form in DESCRIPTIONS.items():
        if (Path(path) / name).is_file():
            info = read_json(Path(path) / name, "dataset", "make it again")
            if str(info.get("format", "")).startswith(form):
                return name, info
    raise UserError(
        f"{path}: neither a clip dataset nor a feature dataset; make one with `emit prepare` or `emit encode`"
    )


def _splits(config: SplitConfig, by: str | None) -> dict[str, str]:
    """{id: split} of every clip."""
    import datasets

    try:
        table = with_splits(datasets.load_from_disk(str(config.data / "data")), config.data).data
    except UserError:
        raise
    except Exception as error:  # the library raises what its readers happen to raise
        reason = one_line(error, 200)
        raise UserError(f"{config.data}/data: missing or damaged ({reason}); make it again") from None
    ids, before = table.column("id").to_pylist(), table.column("split").to_pylist()
    groups = table.column(f"group_{by}").to_pylist() if by else [""] * len(ids)
    for name in config.within:
        if name not in before:
            raise UserError(f"--within {name}: no clip is in that split; {nearest(name, sorted(set(before)))}")
    part = {
        name: group or ""
        for name, group, split in zip(ids, groups, before, strict=True)
        if not config.within or split in config.within
    }
    return dict.fromkeys(ids, "") | fold_of(part, config.folds, config.fold, config.valid_share, config.seed)


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
