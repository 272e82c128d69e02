"""`emit robustness`: how a score falls as a modality is damaged or missing in more clips."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest, read_json, write_csv, write_json
from shared.options.outputs import OutputRobustness
from shared.options.placeholders import Placeholder, WithCommas
from shared.options.ranges import BatchSize, CheckedOptions, Fraction, Orders, Resamples, Seed
from shared.terminal.closing import closing
from shared.terminal.results import result
from stage2_fusion.evaluation.folds import check_disjoint_folds
from stage2_fusion.evaluation.known_clips import known_to_model
from stage2_fusion.evaluation.results import MARK, parse_named_path
from stage2_fusion.evaluation.robustness import (
    Curves,
    Protocol,
    RobustnessRow,
    Scores,
    join_folds,
    model_curves,
    relative_table,
    robustness_rows,
    robustness_table,
    score_curves,
)
from stage2_fusion.evaluation.same_clips import ClipSet
from stage2_fusion.evaluation.scoring import clip_groups
from stage2_fusion.evaluation.unknown_training import check_known

if TYPE_CHECKING:
    from stage2_fusion.data.feature_info import FeatureInfo
    from stage2_fusion.models.base import FusionModel

COLUMNS = (
    *("model", "seeds", "modality", "how", "share", "clips", "pcc", "low", "high", "fall", "fall_low", "fall_high"),
    *("relative", "relative_low", "relative_high"),
)
"""Columns of the .csv before the dimensions."""


@dataclass
class RobustnessConfig(CheckedOptions):
    """PCC against the share of clips in which one modality is damaged, or missing."""

    models: list[str]
    """Model folders (RUN/model), each PATH or NAME=PATH. Models of one NAME are seeds, over which PCC is averaged."""
    data: Path | None = None
    """Feature dataset; damage means its damaged views (`emit encode --damaged_views`)."""
    folds: Annotated[list[Path], WithCommas(), Placeholder("FEATURES")] = field(default_factory=list)
    """In place of `data`, the folds of a cross-validation (`emit split`), one option per fold. A model is scored on the
    fold that it was trained on; the models of one NAME and training seed are scored as one."""
    split: str = "test"
    """Split to score. "" takes every clip."""
    out: OutputRobustness = Path("robustness.json")
    """JSON file to write; the rows also go beside it as .csv."""
    shares: list[Fraction] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Shares of the clips that get worse; a larger share includes the clips of a smaller one."""
    orders: Orders = 10
    """Random orders in which clips get worse; each PCC is averaged over them, since it matters which clips are
    affected."""
    against: str | None = None
    """Name of a model: the loss of every other model is also stated as a multiple of its loss."""
    groups: str | None = None
    """Kind of group that the bootstrap draws, by default the first one."""
    bootstrap: Resamples = 1000
    """Bootstrap samples behind the 95 % intervals."""
    allow_unknown_training: bool = False
    """Continue if it is unknown whether scored clips were in training; every table then says so."""
    batch_size: BatchSize = 64
    """Clips per forward pass; the scores do not depend on it."""
    seed: Seed = 0
    """Seed of the orders and the bootstrap."""

    def __post_init__(self):
        super().__post_init__()
        if (self.data is None) != bool(self.folds):
            raise UserError("give --data FEATURES, or --folds FEATURES for each fold of a cross-validation")
        if not self.shares:
            raise UserError("--shares is empty: one or more numbers from 0 to 1")
        if len(set(self.shares)) < len(self.shares):
            raise UserError(f"--shares {self.shares}: a share is listed twice; list each once")

    @property
    def parts(self) -> list[Path]:
        """The feature datasets that are scored as one: `data`, or the folds."""
        return self.folds if self.data is None else [self.data]


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
    costs = [] if config.against is None else ["", relative_table(rows, config.against)]
    result("\n".join([robustness_table(rows), *costs, *marks]), content)
    closing([config.out, config.out.with_suffix(".csv")])
    return 0


def robustness(config: RobustnessConfig) -> list[RobustnessRow]:
    """Score every model; write {"data", "split", "shares", "orders", "seed", "bootstrap", "against", "rows"} as JSON,
    and the rows as CSV."""
    from stage2_fusion.data.feature_info import read_info

    infos = [read_info(path) for path in config.parts]
    if config.folds:
        _check_folds(config.folds, infos, config.split)
    unknown: dict[str, str] = {}
    named = _named_models(config.models)
    if config.against is not None and config.against not in named:
        raise UserError(f"--against {config.against}: no such model; there are {', '.join(named)}")
    runs = {name: _run_seeds(name, paths, config, unknown) for name, paths in named.items()}
    rows = []
    for name, run in runs.items():
        other = runs[config.against] if config.against not in (None, name) else None
        if other and other.names != run.names:
            raise UserError(f"--against {config.against}: it predicts other dimensions than {name}")
        rows += robustness_rows(name, run.curves, run.scores, run.names, other.scores if other else None)
    settings = {key: getattr(config, key) for key in ("split", "shares", "orders", "seed", "bootstrap", "against")}
    table = [
        [*(getattr(row, key) for key in COLUMNS), *map(row.per_dimension.get, infos[0].label_names)] for row in rows
    ]
    cells = [["" if value is None else value for value in line] for line in table]
    write_csv(config.out.with_suffix(".csv"), [*COLUMNS, *infos[0].label_names], cells)
    marks = {"unknown_training": unknown} if unknown else {}
    data = [info.digest for info in infos] if config.folds else infos[0].digest
    write_json(config.out, {"data": data, **settings, **marks, "rows": [asdict(row) for row in rows]})
    return rows


def _check_folds(folds: list[Path], infos: "list[FeatureInfo]", split: str) -> None:
    """UserError when a fold is given twice, or two of them share clips of the split. infos: their features.json."""
    from stage2_fusion.data.features import read_clips

    if len({info.digest for info in infos}) < len(folds):
        raise UserError("--folds: a fold occurs twice; give each once")
    scored = [[clip for clip in read_clips(path) if split in ("", clip.split)] for path in folds]
    check_disjoint_folds(list(zip(folds, map(ClipSet.encoded, scored, infos), strict=True)))


@dataclass(frozen=True)
class _Run:
    """What the seeds of one model predict, and its dimensions."""

    curves: Curves
    scores: Scores
    names: list[str]


def _run_seeds(name: str, paths: list[Path], config: RobustnessConfig, unknown: dict[str, str]) -> _Run:
    """unknown: receives the reason under this name if it is unknown whether the clips were in training."""
    from stage2_fusion.inference import best_device
    from stage2_fusion.models.base import FusionModel

    models = [FusionModel.from_pretrained(path).to(best_device()) for path in paths]
    names, longest = models[0].config.label_names, models[0].config.max_sequence_steps
    for path, model in zip(paths, models, strict=True):
        if (model.config.label_names, model.config.max_sequence_steps) != (names, longest):
            raise UserError(f"{path}: not the model of {paths[0]}: it predicts other dimensions or reads other lengths")
    folds = _by_fold(name, models, config) if config.folds else {config.parts[0]: models}
    each = [_fold_curves(name, data, seeds, config, unknown) for data, seeds in folds.items()]
    protocol = Protocol(config.shares, config.orders, config.bootstrap, config.seed)
    curves = join_folds(each) if config.folds else each[0]
    return _Run(curves, score_curves(name, curves, protocol), names)


def _by_fold(name: str, models: "list[FusionModel]", config: RobustnessConfig) -> "dict[Path, list[FusionModel]]":
    """The models that were trained on each fold, in the order of their seeds. UserError unless each seed has a model in
    each fold."""
    from stage2_fusion.data.feature_info import read_info

    folds = {read_info(path).digest: path for path in config.folds}
    found: dict[Path, dict[int | None, FusionModel]] = {path: {} for path in folds.values()}
    for model in models:
        trained_on = model.config.trained_on
        place = folds.get(trained_on.features)
        if place is None:
            raise UserError(f"{model.folder}: was trained on none of the folds; give its fold with --folds")
        if trained_on.seed in found[place]:
            raise UserError(f"{name}: two models of seed {trained_on.seed} were trained on {place}; leave one out")
        found[place][trained_on.seed] = model
    seeds = sorted({seed for of in found.values() for seed in of}, key=str)
    for place, of in found.items():
        if missing := [seed for seed in seeds if seed not in of]:
            raise UserError(f"{name}: no model of seed {missing[0]} was trained on {place}; give one of each fold")
    return {place: [of[seed] for seed in seeds] for place, of in found.items()}


def _fold_curves(
    name: str, data: Path, models: "list[FusionModel]", config: RobustnessConfig, unknown: dict[str, str]
) -> Curves:
    """The predictions of the seeds of one model for the clips of one feature dataset."""
    from stage2_fusion.data.feature_info import read_info
    from stage2_fusion.data.features import FeatureDataset, FeatureSample
    from stage2_fusion.data.usable_clips import scorable_dimensions
    from stage2_fusion.inference import run_model

    names, longest = models[0].config.label_names, models[0].config.max_sequence_steps
    for model in models:
        model.config.check_features(read_info(data), data)
    features = FeatureDataset.open(data, config.split, max_sequence_steps=longest).select(names)
    clips = [views for views in features.by_clip() if 0 in views and not np.isnan(views[0].labels).all()]
    if not clips:
        raise UserError(f"{data}: no clip of split {config.split!r} is labeled")
    scorable_dimensions(np.stack([views[0].labels for views in clips]), names, f"{data}, split {config.split!r}")
    ids = [views[0].id for views in clips]
    for model in models:
        known = known_to_model(data, features.info, model.config.trained_on, model.training_clips)
        if why := check_known(data, features.info, ids, known.unknown, config.allow_unknown_training):
            unknown[name] = why
    _, groups = clip_groups([views[0] for views in clips], config.groups, features.info.group_names)

    def predict(model: "FusionModel", samples: list[FeatureSample]) -> np.ndarray:
        return run_model(model, samples, config.batch_size).predictions

    return model_curves([partial(predict, model) for model in models], clips, groups)


def _named_models(arguments: list[str]) -> dict[str, list[Path]]:
    """Name to folders of PATH or NAME=PATH; a folder called `model` is named after its run."""
    models: dict[str, list[Path]] = {}
    given = list(map(parse_named_path, arguments))
    for place, (name, path) in enumerate(given):
        own = name or (path.resolve().parent.name if path.name == "model" else path.name)
        if own in models and not name:
            raise UserError(f"two models have the same name, {own}; give them as NAME=PATH, seeds with one NAME")
        for _, other in given[:place]:
            if _same_model(path, other):
                raise UserError(f"{path}: the same model as {other}; give each once")
        models.setdefault(own, []).append(path)
    return models


def _same_model(a: Path, b: Path) -> bool:
    """Whether two model folders hold the same weights."""
    files = [folder / "model.safetensors" for folder in (a, b)]
    if not all(file.is_file() for file in files):
        return False  # the reader reports what is missing
    return files[0].samefile(files[1]) or digest(files[0]) == digest(files[1])


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
