"""Trials of a search: each is `emit fuse` in its own process, forked from one that has done the imports."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from shared.config import load_yaml
from shared.files import read_json
from shared.locks import is_held_elsewhere
from shared.pipeline.step_process import read_pipes, start_process
from shared.pipeline.step_server import StepServer, can_fork
from shared.terminal.progress import Progress, progress
from shared.terminal.results import STEP

AS_GIVEN = "as given"
"""Shown in a table for an option that a trial does not change."""
HOW = "choose another --out"


@dataclass(frozen=True)
class Trial:
    """One configuration and its result."""

    number: int
    values: dict[str, Any]
    """{option: value} of the options that the search varies."""
    pcc: float | None = None
    """Validation PCC of the best epoch; None for a failed trial."""
    epoch: int | None = None
    error: str = ""
    """The last line of a failed trial."""

    @property
    def name(self) -> str:
        return f"{self.number:03d}"


def run_trials(files: list[Path], workers: int, threads: int, what: str = "trials") -> list[str]:
    """Run `emit fuse` on each configuration file, `workers` at once with `threads` CPU threads each. Returns the error
    of each trial, "" for success. Control-C or SIGTERM lets running trials finish their epoch."""
    with _sigterm_as_exit(), Trainings(threads) as trainings, ThreadPoolExecutor(workers) as executor:
        try:
            with progress("search", len(files), what) as bar:
                return list(executor.map(lambda file: _counted(bar, run_trial(file, trainings)), files))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            trainings.terminate()
            raise


class Trainings:
    """Starts trainings, from any thread."""

    def __init__(self, threads: int):
        """threads: CPU threads of each."""
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads), STEP: "1"}
        self._server = StepServer(["fuse"], self._environment) if can_fork() else None
        self._lock, self._ended = Lock(), False
        self._running: list[Any] = []

    def __enter__(self) -> "Trainings":
        if self._server is not None:
            self._server.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.__exit__(*exception)

    def run(self, config: Path, log: Path) -> int:
        """Run `emit fuse --config CONFIG` with its output in `log`. Returns its status. None starts after
        `terminate`."""
        with self._lock:
            if self._ended:
                return -signal.SIGTERM
            process = start_process(("fuse", "--config", str(config)), self._environment, self._server)
            self._running.append(process)
        with log.open("wb", buffering=0) as output:
            return read_pipes(process, output.write, output.write)

    def terminate(self) -> None:
        """Ask all running trainings to end; each finishes its epoch."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def _counted(bar: Progress, error: str) -> str:
    bar.update()
    return error


def run_trial(file: Path, trainings: Trainings) -> str:
    """Run one trial unless it is finished. Returns its error, or ""."""
    run = Path(load_yaml(file, HOW)["run"])
    if (run / "metrics.json").exists():
        return ""
    log = file.parents[1] / "logs" / f"{file.stem}.txt"
    log.parent.mkdir(exist_ok=True)
    while is_held_elsewhere(run):  # a trial that outlived its search
        time.sleep(1)
    status = trainings.run(file, log)
    if not status and (run / "metrics.json").exists():
        return ""
    content = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in content.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error: ", "internal error: "))] or lines
    return (errors[-1].removeprefix("error: ") if errors else f"ended with status {status}")[:300]


def read_trials(out: Path, assignments: list[dict[str, Any]], errors: list[str]) -> list[Trial]:
    """The trials with their results, best first, failed ones last."""
    trials = []
    for number, (values, error) in enumerate(zip(assignments, errors, strict=True)):
        trial = Trial(number, values, error=error)
        if not error:
            metrics = read_json(out / "trials" / trial.name / "metrics.json", "metrics", "run the search again")
            trial = Trial(number, values, round(metrics["valid"]["pcc"]["mean"], 6), metrics["epoch"])
        trials.append(trial)
    return sorted(trials, key=lambda trial: (bool(trial.error), -(trial.pcc or 0.0), trial.number))


def trial_table(trials: list[Trial], names: list[str], rows: int = 20) -> str:
    """The first `rows` trials for a terminal; names: the options that vary."""
    cells = [["trial", "valid PCC", "epoch", *names, ""]]
    for trial in trials[:rows]:
        pcc = "failed" if trial.pcc is None else f"{trial.pcc:.4f}"
        epoch = "" if trial.epoch is None else str(trial.epoch)
        cells.append(
            [trial.name, pcc, epoch, *(str(trial.values.get(name, AS_GIVEN)) for name in names), trial.error[:60]]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines + [f"... and {len(trials) - rows} more"] * (len(trials) > rows))


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that trials can end cleanly."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
