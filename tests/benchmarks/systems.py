"""Every fusion system on the same features, over seeds, with ablations, robustness and a linear baseline.

    python tests/benchmarks/systems.py --corpora '[runs/evidence/seed0, runs/evidence/seed1, runs/evidence/seed2]'

Each folder is one that demo_evidence.py leaves: corpus, features, and the models it trained on them. Here the other
systems are trained at each folder's own seed, chosen on the validation split, and all are scored on test subjects that
none of them met. Writes board and ablations (.md, .csv: mean +- sd over seeds, its interval, and the difference from
dual_stage) and robustness tables; evaluations that are there are kept, so an interrupted run goes on.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration

FUSE = "emit fuse --config stage2_fusion/configs"
OURS = f"{FUSE}/dual_stage.yaml"
THERE = {
    "dual_stage": "fuse",
    "vision alone": "vision",
    "audio alone": "audio",
    "text alone": "text",
    "without stage 1": "untrained",
    "uniform weights": "uniform",
}
"""Models that demo_evidence.py has trained, by their folder."""
SYSTEMS = {
    name: f"{FUSE}/{name}.yaml"
    for name in ("concat_vad", "lstm_vad", "late_fusion", "concat_lstm", "text_anchored", "concat")
} | {"plain_concat": f"{FUSE}/concat.yaml --train.damaged_views false"}
"""plain_concat has met no damage, as the published systems have not; concat has met what dual_stage has."""
PARTS = {
    "without TCN": f"{OURS} --options.tcn_layers 0",
    "without BiLSTM": f"{OURS} --options.lstm_layers 0",
    "mean instead of decoder": f"{OURS} --options.decoder_layers 0",
    "without shortcut": f"{OURS} --options.shortcut false",
}
ABLATIONS = ("dual_stage", "without stage 1", "uniform weights", *PARTS)


@dataclass
class SystemsConfig:
    """Train and compare every fusion system."""

    corpora: list[Path]
    """One folder a seed, as demo_evidence.py leaves it; the seed is that of its corpus."""
    out: Path = Path("runs/systems")
    """Folder of models, evaluations and tables."""
    only: list[str] = field(default_factory=list)
    """Names of systems and ablations; empty: all."""


def emit(command: str) -> str:
    from shared.commands.demo import executable

    print(f"== {command}", flush=True)
    done = subprocess.run(executable(shlex.split(command)), check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def evaluated(config: SystemsConfig, name: str, corpus: Path) -> Path:
    """Train (where nobody has) and score one system on one corpus; the JSON file of its evaluation."""
    seed = json.loads((corpus / "corpus" / "corpus.json").read_text())["seed"]
    out = config.out / name.replace(" ", "_") / f"seed{seed}.json"
    features = corpus / ("features_untrained" if name == "without stage 1" else "features")
    run = corpus / THERE[name] if name in THERE else out.with_suffix("")
    if not out.exists():
        if name not in THERE:
            command = (SYSTEMS | PARTS)[name]
            emit(f"{command} --data {features} --run {run} --seed {seed} --train.trackers []")
        emit(f"emit evaluate --model {run}/model --data {features} --truth {corpus}/corpus/truth.csv --out {out}")
    return out


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SystemsConfig, argv, prog="systems.py", example="python tests/benchmarks/systems.py --corpora '[runs/seed0]'"
    )
    names = [name for name in (*THERE, *SYSTEMS, *PARTS) if not config.only or name in config.only]
    scores = {name: [evaluated(config, name, corpus) for corpus in config.corpora] for name in names}
    scores["ridge on the same features"] = [
        baseline(config.out / "ridge" / f"{number}.json", corpus) for number, corpus in enumerate(config.corpora)
    ]
    board(config, "board", {name: paths for name, paths in scores.items() if name not in ABLATIONS[1:]})
    board(config, "ablations", {name: paths for name, paths in scores.items() if name in ABLATIONS})
    for number, corpus in enumerate(config.corpora):
        runs = {name: config.out / name / scores[name][number].stem for name in SYSTEMS if name in scores}
        runs["dual_stage"] = corpus / "fuse"
        named = " ".join(f"{name}={run}/model" for name, run in runs.items())
        print(emit(f"emit robustness {named} --data {corpus}/features --out {config.out}/robustness{number}.json"))
    return 0


def baseline(out: Path, corpus: Path) -> Path:
    """Ridge regression on means and deviations of the same features."""
    if not out.exists():
        emit(f"emit baseline --data {corpus}/features --out {out}")
    return out


def board(config: SystemsConfig, name: str, scores: dict[str, list[Path]]) -> None:
    """One table, printed and written."""
    if scores:
        named = " ".join(shlex.quote(f"{system}={path}") for system, paths in scores.items() for path in paths)
        against = "--against dual_stage" if "dual_stage" in scores else ""
        print(emit(f"emit leaderboard {named} {against} --out '[{config.out}/{name}.md, {config.out}/{name}.csv]'"))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from shared.cli import run_main

    run_main(main)
