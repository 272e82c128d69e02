"""Every fusion system on the same features, over seeds, with ablations, robustness and a ridge baseline.

    python tests/benchmarks/systems.py --corpora '[runs/evidence/seed0, runs/evidence/seed1, runs/evidence/seed2]'

Each folder is written by `emit run evidence`: a corpus, its features, and models trained on them. The other systems are
trained here with the seed of that corpus. Epochs are chosen on the validation split, and all systems are scored on test
subjects that none of them has seen. Writes a board and a table of ablations (.md, .csv: mean and standard deviation
over seeds, the interval, and the difference from dual_stage) and robustness tables. Existing evaluations are kept, so
an interrupted run can be repeated.
"""

import json
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration
from shared.cli import emit_command, run_main

DEMO_RUNS = {
    "dual_stage": "fuse",
    "vision alone": "vision",
    "audio alone": "audio",
    "text alone": "text",
    "uniform weights": "uniform",
}
"""{system: its run folder} of what `emit run evidence` has trained."""
SYSTEMS = {
    name: f"--config {name}"
    for name in ("concat_vad", "lstm_vad", "late_fusion", "concat_lstm", "text_anchored", "concat")
} | {"plain_concat": "--config concat --train.damaged_views false"}
"""{system: options of `emit fuse`}. Like the published systems, plain_concat trains without damaged views; concat
trains with the same views as dual_stage."""
ABLATIONS = {
    "without TCN": "--config dual_stage --options.tcn_layers 0",
    "without BiLSTM": "--config dual_stage --options.lstm_layers 0",
    "mean instead of decoder": "--config dual_stage --options.decoder_layers 0",
    "without shortcut": "--config dual_stage --options.shortcut false",
}
"""{ablation: options of `emit fuse`}."""
ABLATION_TABLE = ("dual_stage", "uniform weights", *ABLATIONS)


@dataclass
class SystemsConfig:
    """Train and compare every fusion system."""

    corpora: list[Path]
    """One folder per seed, written by `emit run evidence`; the seed is that of its corpus."""
    out: Path = Path("runs/systems")
    """Folder of models, evaluations and tables."""
    only: list[str] = field(default_factory=list)
    """Names of systems and ablations; empty: all."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SystemsConfig, argv, prog="systems.py", example="python tests/benchmarks/systems.py --corpora '[runs/seed0]'"
    )
    names = [name for name in (*DEMO_RUNS, *SYSTEMS, *ABLATIONS) if not config.only or name in config.only]
    evaluations = {name: [evaluate_system(config, name, corpus) for corpus in config.corpora] for name in names}
    evaluations["ridge on the same features"] = [
        evaluate_ridge(config.out / "ridge" / f"{number}.json", corpus) for number, corpus in enumerate(config.corpora)
    ]
    write_board(config, "board", {n: paths for n, paths in evaluations.items() if n not in ABLATION_TABLE[1:]})
    write_board(config, "ablations", {n: paths for n, paths in evaluations.items() if n in ABLATION_TABLE})
    for number, corpus in enumerate(config.corpora):
        runs = {name: config.out / name / evaluations[name][number].stem for name in SYSTEMS if name in evaluations}
        runs["dual_stage"] = corpus / "fuse"
        models = " ".join(f"{name}={run}/model" for name, run in runs.items())
        print(emit(f"robustness {models} --data {corpus}/features --out {config.out}/robustness{number}.json"))
    return 0


def evaluate_system(config: SystemsConfig, name: str, corpus: Path) -> Path:
    """Train one system on one corpus, unless `emit run evidence` has, and score it; the JSON file of its evaluation."""
    seed = json.loads((corpus / "corpus" / "corpus.json").read_text())["seed"]
    out = config.out / name.replace(" ", "_") / f"seed{seed}.json"
    features = corpus / "features"
    run = corpus / DEMO_RUNS[name] if name in DEMO_RUNS else out.with_suffix("")
    if not out.exists():
        if name not in DEMO_RUNS:
            options = (SYSTEMS | ABLATIONS)[name]
            emit(f"fuse {options} --data {features} --run {run} --seed {seed} --train.trackers []")
        emit(f"evaluate --model {run}/model --data {features} --truth {corpus}/corpus/truth.csv --out {out}")
    return out


def evaluate_ridge(out: Path, corpus: Path) -> Path:
    """Ridge regression on means and standard deviations of the same features."""
    if not out.exists():
        emit(f"baseline --data {corpus}/features --out {out}")
    return out


def write_board(config: SystemsConfig, name: str, evaluations: dict[str, list[Path]]) -> None:
    """Print and write one table."""
    if evaluations:
        named = " ".join(shlex.quote(f"{system}={path}") for system, paths in evaluations.items() for path in paths)
        against = "--against dual_stage" if "dual_stage" in evaluations else ""
        print(emit(f"leaderboard {named} {against} --out '[{config.out}/{name}.md, {config.out}/{name}.csv]'"))


def emit(arguments: str) -> str:
    """Run `emit ARGUMENTS`; what it prints."""
    print(f"== emit {arguments}", flush=True)
    command = emit_command(*shlex.split(arguments))
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    run_main(main)
