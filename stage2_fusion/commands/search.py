"""`emit search`: many runs of `emit fuse`, a table of their validation PCC, and the best configuration.

OUT/search.json     what the search is of; another one is kept out of the folder by it
OUT/configs/007.yaml, OUT/trials/007/, OUT/logs/007.txt     configuration, run folder and output of each trial
OUT/results.csv     one row per trial, best first; what a failed one said stands in the column `error`
OUT/best.yaml       for `emit fuse --config OUT/best.yaml --run NEW`

A trial is a function of the seed and its number. A search that was stopped goes on with the same command: finished
trials are kept, the others started again, and `emit fuse` itself goes on after their last epoch.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from shared import config as configuration
from shared.cli import emit_command
from shared.config import load_yaml
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.files import digest, read_json, write_csv, write_json, write_text
from shared.registry import nearest
from shared.text import one_line
from shared.training.sampling import derive_seed
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.feature_info import read_info


@dataclass(kw_only=True)
class SearchConfig(FuseConfig):
    """Try configurations of `emit fuse` around one (any of its options can be given), in parallel."""

    run: Path = Path()
    """Not given here: each trial has its own below OUT/trials."""
    space: Path
    """YAML of what varies: {train.lr: {low: 1.0e-4, high: 1.0e-2, log: true}, options.width: [32, 64]}. A list is
    chosen from; a range is drawn from evenly, with `log` evenly in the logarithm, in whole numbers where both ends are
    whole."""
    out: Path
    """Folder of the search."""
    trials: int = 20
    """Configurations to try. A search that is finished goes on when this grows."""
    method: Literal["random", "grid"] = "random"
    """random draws each trial; grid goes through all combinations of lists, in order."""
    workers: int = 2
    """Trials at once; the cores are shared out among them."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("trials", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}: it must be at least 1")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SearchConfig,
        argv,
        prog="emit search",
        example="emit search --config stage2_fusion/configs/dual_stage.yaml --data runs/demo/features "
        "--space space.yaml --trials 20 --out runs/search --workers 2",
    )
    search(config)
    return 0


def search(config: SearchConfig) -> Path:
    """Run the trials, print the table, return the best configuration's file. UserError when no trial comes through."""
    given = configuration.to_dict(config)
    base = {field.name: given[field.name] for field in fields(FuseConfig)}
    space = read_space(config.space, config)
    features = read_info(config.data)["digest"]
    _claim(config.out, {"base": base | {"run": ""}, "features": features, "space": space, "method": config.method})
    drawn = list(itertools.islice(draws(space, config.method, config.seed), config.trials))
    files = [_write_trial(config.out, number, base, values) for number, values in enumerate(drawn)]
    threads = max(1, cores() // config.workers)
    errors = _run_all(files, config.workers, threads)
    rows = results(config.out, drawn, errors)
    names = list(space)
    cells = [
        [row["trial"], row["pcc"], row["epoch"], *(row["values"][name] for name in names), row["error"]] for row in rows
    ]
    write_csv(config.out / "results.csv", ["trial", "valid_pcc", "epoch", *names, "error"], cells)
    print(table(rows, names))
    best = rows[0]
    if best["error"]:
        raise UserError(f"{config.out}: no trial came through; the first said: {best['error']}")
    values = load_yaml(_file(config.out, best["trial"]), "choose another --out")
    values.pop("run")
    write_text(config.out / "best.yaml", yaml.safe_dump(values, sort_keys=False))
    print(f"{config.out / 'best.yaml'}: trial {best['trial']}; `emit fuse --config {config.out}/best.yaml --run RUN`")
    return config.out / "best.yaml"


# --- what is tried -------------------------------------------------------------------------------------------------


def read_space(path: Path, config: FuseConfig) -> dict[str, Any]:
    """Option path to list or range; UserError for an option that there is not, or a range that is none."""
    try:
        space = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({one_line(error, 160)})") from None
    if not isinstance(space, dict) or not space:
        raise UserError(f"{path}: give options and what they may be, such as 'options.width: [32, 64]'")
    for option, choice in space.items():
        _check_option(str(option), config, path)
        if isinstance(choice, list) and choice:
            continue
        known = isinstance(choice, dict) and {"low", "high"} <= choice.keys() <= {"low", "high", "log"}
        if not known or not choice["low"] < choice["high"] or (choice.get("log") and choice["low"] <= 0):
            raise UserError(
                f"{path}: {option} is {choice}; give a list, or low and high with low < high (above 0 with log: true)"
            )
    return space


def _check_option(option: str, config: FuseConfig, path: Path) -> None:
    here: Any = config
    for part in option.split("."):
        if isinstance(here, dict):
            return  # names of a model's own options are checked by its trial
        known = [field.name for field in fields(FuseConfig if here is config else here)] if is_dataclass(here) else []
        if part not in known or option == "run":
            raise UserError(f"{path}: `emit fuse` has no option {option!r}: {nearest(part, known or [option])}")
        here = getattr(here, part)


def draws(space: dict[str, Any], method: str, seed: int) -> Iterator[dict[str, Any]]:
    """Different assignments {option: value}, always in the same order."""
    if method == "grid":
        for option, choice in space.items():
            if isinstance(choice, dict):
                raise UserError(f"--method grid: {option} is a range; list its values, or search at random")
        yield from (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))
        return
    seen, since = set(), 0
    for number in itertools.count():
        values = {
            option: _draw(choice, np.random.default_rng(derive_seed("search", seed, number, option)))
            for option, choice in space.items()
        }
        key = json.dumps(values, default=str)
        since = since + 1 if key in seen else 0
        if since > 1000:
            return  # a small space is used up
        if not since:
            seen.add(key)
            yield values


def _draw(choice: list | dict, rng: np.random.Generator) -> Any:
    if isinstance(choice, list):
        return choice[int(rng.integers(len(choice)))]
    low, high = choice["low"], choice["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    ends = (low - 0.5, high + 0.5) if whole else (low, high)
    ends = np.log(np.maximum(ends, 1e-300)) if choice.get("log") else ends
    value = float(rng.uniform(*ends))
    value = float(np.exp(value)) if choice.get("log") else value
    return int(np.clip(round(value), low, high)) if whole else float(f"{value:.4g}")


# --- trying it -----------------------------------------------------------------------------------------------------


def _run_all(files: list[Path], workers: int, threads: int) -> list[str]:
    """What each trial said when it failed, else "". Control-C or a SIGTERM lets running trials finish their epoch."""
    running: list[subprocess.Popen] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                return list(pool.map(lambda file: run_trial(file, threads, running), files))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def run_trial(file: Path, threads: int, running: list[subprocess.Popen]) -> str:
    """`emit fuse` on a trial's configuration, in a process of its own; what it said when it failed, else ""."""
    run = Path(load_yaml(file, "choose another --out")["run"])
    if (run / "metrics.json").exists():
        return ""
    log = file.parents[1] / "logs" / f"{file.stem}.txt"
    log.parent.mkdir(exist_ok=True)
    command = emit_command("fuse", "--config", file)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        running.append(process)
        status = process.wait()
    if not status and (run / "metrics.json").exists():
        return ""
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (said[-1].removeprefix("error: ") if said else f"ended with status {status}")[:300]


def results(out: Path, drawn: list[dict], errors: list[str]) -> list[dict]:
    """{"trial", "values", "pcc", "epoch", "error"} of each trial, best first, failed ones last."""
    rows = []
    for number, (values, error) in enumerate(zip(drawn, errors, strict=True)):
        row = {"trial": number, "values": values, "pcc": "", "epoch": "", "error": error}
        if not error:
            metrics = read_json(out / "trials" / f"{number:03d}" / "metrics.json", "metrics", "run the search again")
            row |= {"pcc": round(metrics["valid"]["pcc"]["mean"], 6), "epoch": metrics["epoch"]}
        rows.append(row)
    return sorted(rows, key=lambda row: (bool(row["error"]), -(row["pcc"] or 0.0), row["trial"]))


def table(rows: list[dict], names: list[str], most: int = 20) -> str:
    """The best `most` rows for a terminal."""
    cells = [["trial", "valid PCC", "epoch", *names, ""]]
    for row in rows[:most]:
        pcc = "failed" if row["error"] else f"{row['pcc']:.4f}"
        values = (str(row["values"][name]) for name in names)
        cells.append([f"{row['trial']:03d}", pcc, str(row["epoch"]), *values, row["error"][:60]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines + [f"... and {len(rows) - most} more"] * (len(rows) > most))


def _claim(out: Path, made_from: dict) -> None:
    stamp, mine = out / "search.json", {"search": digest(made_from), **made_from}
    if stamp.exists():
        if read_json(stamp, "search", "choose another --out")["search"] != mine["search"]:
            raise UserError(f"{out}: holds a search of other options, features, space or seed; choose another --out")
    elif out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out}: holds something else than a search; choose another --out")
    else:
        write_json(stamp, json.loads(json.dumps(mine, default=str)))


def _file(out: Path, number: int) -> Path:
    return out / "configs" / f"{number:03d}.yaml"


def _write_trial(out: Path, number: int, base: dict, values: dict[str, Any]) -> Path:
    trial = json.loads(json.dumps(base)) | {"run": str(out / "trials" / f"{number:03d}")}
    for option, value in values.items():
        *rooms, last = option.split(".")
        here = trial
        for room in rooms:
            here = here.setdefault(room, {})
        here[last] = value
    write_text(_file(out, number), yaml.safe_dump(trial, sort_keys=False))
    return _file(out, number)


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
