"""`emit robustness`: how a score falls as a modality is damaged or missing in more and more clips."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest, read_json, write_csv, write_json
from shared.options.outputs import OutputRobustness
from shared.options.ranges import BatchSize, CheckedOptions, Fraction, Orders, Resamples, Seed
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.results import MARK, parse_named_path
from stage2_fusion.evaluation.robustness import Protocol, RobustnessRow, robustness_rows, robustness_table
from stage2_fusion.evaluation.scoring import clip_groups
from stage2_fusion.evaluation.unknown_training import check_known

COLUMNS = ("model", "modality", "how", "share", "clips", "pcc", "low", "high", "fall", "fall_low", "fall_high")
"""Columns of the .csv before the dimensions."""


@dataclass
class RobustnessConfig(CheckedOptions):
    """PCC against the share of clips in which one modality is damaged, or missing."""

    models: list[str]
    """Model folders (RUN/model), each PATH or NAME=PATH."""
    data: Path = field()
    """Feature dataset; damage means its damaged views (`emit encode --damaged_views`)."""
    split: str = "test"
    """Split to score. "" takes every clip."""
    out: OutputRobustness = Path("robustness.json")
    """JSON file to write; the rows also go beside it as .csv."""
    shares: list[Fraction] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Shares of the clips; the clips of a smaller share are among those of a larger one."""
    orders: Orders = 10
    """Orders in which clips become worse, over which each PCC is averaged: it matters which clips are affected."""
    groups: str | None = None
    """Kind of group that the bootstrap draws, by default the first one."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % intervals."""
    allow_unknown_training: bool = False
    """Go on where it is not known whether scored clips were trained on; every table says so then."""
    batch_size: BatchSize = 64
    """Clips per forward pass; the scores do not depend on it."""
    seed: Seed = 0
    """Decides the orders and the bootstrap."""

    def __post_init__(self):
        super().__post_init__()
        if not self.shares:
            raise UserError("--shares is empty: one or more numbers from 0 to 1")
        if len(set(self.shares)) < len(self.shares):
            raise UserError(f"--shares {self.shares}: a share is there twice; give each once")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        RobustnessConfig,
        argv,
        prog="emit robustness",
        example="emit robustness learned=runs/a/model uniform=runs/b/model --data runs/features",
        positional=("models",),
    )
    rows = robustness(config)
    content = read_json(config.out, "robustness", "run it again")
    marks = [f"{name}: {MARK}: {why}" for name, why in content.get("unknown_training", {}).items()]
    result("\n".join([robustness_table(rows), *marks]), content)
    closing([config.out, config.out.with_suffix(".csv")])
    return 0


def robustness(config: RobustnessConfig) -> list[RobustnessRow]:
    """Score every model; write {"data", "split", "shares", "orders", "seed", "bootstrap", "rows"} as JSON, and the rows
    as CSV."""
    from stage2_fusion.data.feature_info import read_info

    features = read_info(config.data)
    unknown: dict[str, str] = {}
    rows = [row for name, path in _named_models(config.models) for row in _score_model(name, path, config, unknown)]
    settings = {key: getattr(config, key) for key in ("split", "shares", "orders", "seed", "bootstrap")}
    table = [
        [*(getattr(row, key) for key in COLUMNS), *map(row.per_dimension.get, features.label_names)] for row in rows
    ]
    cells = [["" if value is None else value for value in line] for line in table]
    write_csv(config.out.with_suffix(".csv"), [*COLUMNS, *features.label_names], cells)
    marks = {"unknown_training": unknown} if unknown else {}
    write_json(config.out, {"data": features.digest, **settings, **marks, "rows": [asdict(row) for row in rows]})
    return rows


def _score_model(name: str, path: Path, config: RobustnessConfig, unknown: dict[str, str]) -> list[RobustnessRow]:
    """unknown: gets the reason under this name if it is not known whether the clips were trained on."""
    from stage2_fusion.data.feature_info import read_info
    from stage2_fusion.data.features import FeatureDataset, FeatureSample
    from stage2_fusion.data.usable_clips import scorable_dimensions
    from stage2_fusion.inference import best_device, run_model
    from stage2_fusion.models.base import FusionModel

    model = FusionModel.from_pretrained(path).to(best_device())
    assert model.config is not None
    model.config.check_features(read_info(config.data), config.data)
    data = FeatureDataset.open(config.data, config.split, max_sequence_steps=model.config.max_sequence_steps)
    names = model.config.label_names
    data = data.select(names)
    clips = [views for views in data.by_clip() if 0 in views and not np.isnan(views[0].labels).all()]
    if not clips:
        raise UserError(f"{config.data}: no clip of split {config.split!r} is labeled")
    scorable_dimensions(np.stack([views[0].labels for views in clips]), names, f"{config.data}, split {config.split!r}")
    ids, trained_on = [views[0].id for views in clips], model.config.trained_on
    if why := check_known(config.data, data.info, ids, trained_on, config.allow_unknown_training):
        unknown[name] = why
    _, groups = clip_groups([views[0] for views in clips], config.groups, data.info.group_names)

    def predict(samples: list[FeatureSample]) -> np.ndarray:
        return run_model(model, samples, config.batch_size).predictions

    protocol = Protocol(config.shares, config.orders, config.bootstrap, config.seed)
    return robustness_rows(name, predict, clips, groups, names, protocol)


def _named_models(arguments: list[str]) -> list[tuple[str, Path]]:
    """(name, folder) of PATH or NAME=PATH; a folder called `model` is named after its run."""
    models = []
    for name, path in map(parse_named_path, arguments):
        models.append((name or (path.resolve().parent.name if path.name == "model" else path.name), path))
    if len({name for name, _ in models}) < len(models):
        raise UserError("two models have the same name; give them as NAME=PATH")
    for place, (_, path) in enumerate(models):
        for _, other in models[:place]:
            if _same_model(path, other):
                raise UserError(f"{path}: the same model as {other}; give each once")
    return models


def _same_model(a: Path, b: Path) -> bool:
    """Whether two model folders hold the same weights."""
    files = [folder / "model.safetensors" for folder in (a, b)]
    if not all(file.is_file() for file in files):
        return False  # what is missing is reported by its reader
    return files[0].samefile(files[1]) or digest(files[0]) == digest(files[1])


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
