"""`emit split`: a clip or feature dataset with the same rows and the splits of one fold."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDatasetInfo
from shared.dataset.splits import split_dataset
from shared.errors import UserError
from shared.options.outputs import OutputFolder
from shared.options.ranges import CheckedOptions, Folds, NonNegativeInt, Seed, Share
from shared.saved.checksum import CLIPS, FEATURES
from shared.terminal.closing import closing, fuse_options, unused


@dataclass
class SplitConfig(CheckedOptions):
    """Re-split a clip or feature dataset for one fold: each whole group goes to test, valid or train."""

    data: Path
    """Clip dataset (`emit prepare`) or feature dataset (`emit encode`). Stage 1 sees the labels and words of its
    training clips: to keep test clips out of it, split the clip dataset and align in each fold."""
    out: OutputFolder
    """Output folder: the same rows with other splits, as hard links if the disk allows them."""
    by: str | None = None
    """Group to keep whole, by default the first: subject tests on unseen people, seed on unseen seed videos;
    subject,seed on both at once, which leaves out the clips of unseen people with seen videos and vice versa."""
    folds: Folds = 4
    """Number of folds; each clip is test in one of them."""
    fold: NonNegativeInt = 0
    """Number of the fold, from 0."""
    valid_share: Share = 0.15
    """Fraction of the clips outside the fold that are used for validation."""
    within: list[str] = field(default_factory=list)
    """Splits to draw the folds from, such as ["train", "valid"] if the labels of test are hidden; other clips are in no
    split. By default all clips."""
    seed: Seed = 0
    """Seed that assigns groups to folds."""

    def __post_init__(self):
        super().__post_init__()
        if self.fold >= self.folds:
            raise UserError(f"--fold {self.fold} of --folds {self.folds}: folds are counted from 0")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SplitConfig,
        argv,
        prog="emit split",
        example="emit split runs/clips --by subject --folds 4 --fold 0 --out runs/clips_fold0",
        positional=("data",),
    )
    split_dataset(
        config.data,
        config.out,
        by=config.by,
        folds=config.folds,
        fold=config.fold,
        valid_share=config.valid_share,
        within=config.within,
        seed=config.seed,
    )
    if (config.out / CLIPS.description).is_file():
        name, options = "align", ClipDatasetInfo.read(config.out).align_options
    else:
        name, options = "fuse", fuse_options(json.loads((config.out / FEATURES.description).read_text())["widths"])
    run = unused(config.out.with_name(f"{config.out.name}_{name}"))
    closing([config.out], [(name, *options, "--data", config.out, "--run", run)] if options else [])
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
