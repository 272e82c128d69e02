"""`emit search`: many runs of `emit fuse`, a table of their validation PCC, and the best configuration.

OUT/search.json     what the search covers; another search in the same folder is refused
OUT/configs/007.yaml, OUT/trials/007/, OUT/logs/007.txt     configuration, run folder and output of each trial
OUT/results.csv     one row per trial, best first; the column `error` holds the last line of a failed one
OUT/best.yaml       for `emit fuse --config OUT/best.yaml --run NEW`
OUT/repeats/3/      run folder of the best configuration with seed 3, with --repeat [3]

A trial is a function of the seed and its number. The same command resumes a stopped search: finished trials are kept,
the others are started again and resume after their last epoch.
"""

import itertools
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from shared import config as configuration
from shared.config import load_yaml
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.files import digest, read_json, write_csv, write_json, write_text
from shared.locks import hold, release
from shared.options.outputs import OutputFolder
from shared.options.ranges import Seed, Trials, Workers
from shared.options.yaml_files import dump_yaml
from shared.terminal.closing import closing, unused
from shared.terminal.results import result
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.search.space import SHIPPED_SPACES, Choice, assign, draw_assignments, read_space
from stage2_fusion.search.trials import AS_GIVEN, HOW, Trial, read_trials, run_trials, trial_table


@dataclass(kw_only=True)
class SearchConfig(FuseConfig):
    """Try variations of one `emit fuse` configuration in parallel; all options of `emit fuse` are accepted."""

    COMMON: ClassVar[tuple[str, ...]] = ("trials", "method", "workers", "model", "options", "train.epochs", "seed")

    run: Path = Path()
    """Not an option here: each trial has its own folder in OUT/trials."""
    space: Path
    """YAML of what varies: {train.lr: {low: 1e-4, high: 1e-2, log: true}, options.width: [32, 64]}. From a list one
    value is chosen; from a range one is drawn uniformly (with `log`, uniformly in the logarithm), as a whole number if
    both ends are. The shipped space systems suits every model."""
    out: OutputFolder
    """Folder of the search."""
    trials: Trials = 20
    """Configurations to try. A finished search continues if this is raised."""
    method: Literal["random", "grid"] = "random"
    """random draws each trial; grid goes through all combinations of lists, in order."""
    first_as_given: bool = False
    """The first trial is the unchanged configuration, without the space: the search then cannot end worse than it
    began."""
    workers: Workers = 2
    """Trials at once; the cores are divided among them."""
    repeat: list[Seed] = field(default_factory=list)
    """Seeds with which the best configuration is trained again after the search, in OUT/repeats."""

    def __post_init__(self):
        super().__post_init__()
        if not self.space.exists():
            self.space = SHIPPED_SPACES.get(str(self.space), self.space)
        if len(set(self.repeat)) < len(self.repeat):
            raise UserError(f"--repeat {self.repeat}: a seed occurs twice; give it once")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SearchConfig,
        argv,
        prog="emit search",
        example="emit search --config dual_stage --data runs/demo/features "
        "--space space.yaml --trials 20 --out runs/search --workers 2",
    )
    best = search(config)
    closing(
        [best, config.out / "results.csv"], [("fuse", "--config", best, "--run", unused(config.out.parent / "fuse"))]
    )
    return 0


def search(config: SearchConfig) -> Path:
    """Run the trials, print the table, return the best configuration's file. UserError when every trial fails."""
    values = configuration.to_dict(config)
    base = {field.name: values[field.name] for field in fields(FuseConfig)}
    space = read_space(config.space, config)
    features = read_info(config.data).digest
    made_from = {"base": base | {"run": ""}, "features": features, "space": space, "method": config.method}
    _claim(config.out, made_from | ({"first_as_given": True} if config.first_as_given else {}))
    hold(config.out, config.out)
    try:
        return _search(config, base, space)
    finally:
        release(config.out)


def _search(config: SearchConfig, base: dict[str, Any], space: dict[str, Choice]) -> Path:
    draws = draw_assignments(space, config.method, config.seed)
    draws = itertools.chain([{}], draws) if config.first_as_given else draws
    assignments = list(itertools.islice(draws, config.trials))
    files = [_write_config(config.out, Trial(i, drawn), base) for i, drawn in enumerate(assignments)]
    errors = run_trials(files, config.workers, threads=max(1, cores() // config.workers))
    trials, names = read_trials(config.out, assignments, errors), list(space)
    _write_results(config.out / "results.csv", trials, names)
    best = _write_best(config.out, trials[0])
    text = f"{trial_table(trials, names)}\n{best}: trial {trials[0].number}"
    result(text, {"best": best, "trials": trials})
    _train_repeats(config, best)
    return best


def _train_repeats(config: SearchConfig, best: Path) -> None:
    """Train the best configuration with each seed. UserError for the first run that fails, for example because it
    belongs to another configuration, which was the best before more trials ran."""
    files = []
    for seed in config.repeat:
        run = config.out / "repeats" / str(seed)
        files.append(config.out / "configs" / f"repeat_{seed}.yaml")
        write_text(files[-1], dump_yaml(load_yaml(best, HOW) | {"run": str(run), "seed": seed}))
    errors = run_trials(files, config.workers, threads=max(1, cores() // config.workers), what="repeats")
    for seed, error in zip(config.repeat, errors, strict=True):
        if error:
            raise UserError(f"{config.out}: the repeat with seed {seed} failed: {error}")


def _claim(out: Path, made_from: dict[str, Any]) -> None:
    """Write OUT/search.json. UserError when the folder holds anything other than this search."""
    stamp, content = out / "search.json", {"search": digest(made_from), **made_from}
    if stamp.exists():
        if read_json(stamp, "search", HOW)["search"] != content["search"]:
            raise UserError(f"{out}: holds a search of other options, features, space or seed; {HOW}")
    elif out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: holds something other than a search; {HOW}")
    else:
        write_json(stamp, json.loads(json.dumps(content, default=str)))


def _config_file(out: Path, trial: Trial) -> Path:
    return out / "configs" / f"{trial.name}.yaml"


def _write_config(out: Path, trial: Trial, base: dict[str, Any]) -> Path:
    config = assign(base | {"run": str(out / "trials" / trial.name)}, trial.values)
    write_text(_config_file(out, trial), dump_yaml(config))
    return _config_file(out, trial)


def _write_results(path: Path, trials: list[Trial], names: list[str]) -> None:
    rows = [[t.number, t.pcc, t.epoch, *(t.values.get(name, AS_GIVEN) for name in names), t.error] for t in trials]
    write_csv(path, ["trial", "valid_pcc", "epoch", *names, "error"], rows)


def _write_best(out: Path, best: Trial) -> Path:
    if best.error:
        raise UserError(f"{out}: no trial succeeded; the first error: {best.error}")
    values = load_yaml(_config_file(out, best), HOW)
    values.pop("run")
    write_text(out / "best.yaml", dump_yaml(values))
    return out / "best.yaml"


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
