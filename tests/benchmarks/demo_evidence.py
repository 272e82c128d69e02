"""The demo at several seeds, and what each part of it contributes.

    make evidence        or        python tests/benchmarks/demo_evidence.py --seeds [0,1,2] --out runs/evidence

For each seed: a corpus, the demo, then the same stage 2 on untrained frozen encoders, on each single modality, and with
uniform instead of learned weights. All models see the same clips; scores are on subjects that none of them has seen.
Every step skips what is done, so an interrupted run can be repeated.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.cli import emit_command
from shared.files import write_json

VARIANTS = {
    "untrained": "",
    "vision": '--options.modalities ["vision"]',
    "audio": '--options.modalities ["audio"]',
    "text": '--options.modalities ["text"]',
    "uniform": "--options.weighting uniform",
}
"""{ablation: options of `emit fuse`}."""

Metrics = dict[str, Any]
"""A metrics.json."""


@dataclass
class EvidenceConfig:
    """Repeat the demo over seeds, with its ablations."""

    out: Path = Path("runs/evidence")
    """Folder of all runs."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Each decides its own corpus and trainings."""
    clips: int = 2000
    """Clips of each corpus."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EvidenceConfig, argv, prog="demo_evidence.py", example="python tests/benchmarks/demo_evidence.py --seeds [0]"
    )
    results = {seed: run_seed(config, seed) for seed in config.seeds}
    write_json(config.out / "summary.json", results)
    report(results)
    return 0


def run_seed(config: EvidenceConfig, seed: int) -> dict[str, Metrics]:
    """{model: its metrics} of the demo ("fuse") and its ablations, and the "baseline" of the corpus."""
    folder = config.out / f"seed{seed}"
    emit(f"demo --out {folder} --clips {config.clips} --seed {seed}")
    align = "align --config tiny --train.epochs 0"
    emit(f"{align} --data {folder}/clips --run {folder}/align_untrained --seed {seed}")
    emit(f"export {folder}/align_untrained --out {folder}/encoders_untrained")
    encode = f"encode --data {folder}/clips --damaged_views 1"
    emit(f"{encode} --encoders {folder}/encoders_untrained --out {folder}/features_untrained")
    corpus = json.loads((folder / "corpus" / "corpus.json").read_text())
    metrics = {"fuse": evaluate("fuse", folder, "features"), "baseline": corpus["baseline"]}
    for name, options in VARIANTS.items():
        features = "features_untrained" if name == "untrained" else "features"
        fuse = f"fuse --config dual_stage --data {folder}/{features} --run {folder}/{name}"
        emit(f"{fuse} --seed {seed} {options}")
        metrics[name] = evaluate(name, folder, features)
    return metrics


def evaluate(model: str, folder: Path, features: str) -> Metrics:
    out = folder / f"metrics_{model}.json"
    emit(
        f"evaluate --model {folder}/{model}/model --data {folder}/{features} --truth {folder}/corpus/truth.csv "
        f"--out {out}"
    )
    return json.loads(out.read_text())


def emit(arguments: str) -> None:
    print(f"== emit {arguments}", flush=True)
    subprocess.run(emit_command(*arguments.split()), check=True, stdout=subprocess.DEVNULL)


def report(results: dict[int, dict[str, Metrics]]) -> None:
    """One line per figure: the mean over seeds, and the value at each seed."""

    def line(name: str, value_of: Callable[[dict[str, Metrics]], float]) -> None:
        values = [value_of(metrics) for metrics in results.values()]
        each = "  ".join(f"{value:.3f}" for value in values)
        spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"{name:<58} {statistics.mean(values):.3f}{spread}   ({each})")

    def pcc(model: str) -> Callable[[dict[str, Metrics]], float]:
        return lambda metrics: metrics[model]["pcc"]["mean"]

    def fall(model: str, modality: str | None = None) -> Callable[[dict[str, Metrics]], float]:
        def value_of(metrics: dict[str, Metrics]) -> float:
            views = metrics[model]["damaged_on_purpose"]
            views = views["by_modality"][modality] if modality else views
            return views["pcc_undamaged"] - views["pcc_damaged"]

        return value_of

    def detection(modality: str) -> Callable[[dict[str, Metrics]], float]:
        return lambda metrics: metrics["fuse"]["damaged_on_purpose"]["damage"][modality]["auc"]

    print(f"\nseeds {', '.join(map(str, results))}; PCC on held-out subjects, mean +- standard deviation (each)")
    line("ceiling", lambda metrics: metrics["fuse"]["ceiling"]["mean"])
    line("ridge regression on simple statistics, share of it", lambda metrics: metrics["baseline"]["share_of_ceiling"])
    line("two stages", pcc("fuse"))
    line("  share of the ceiling", lambda metrics: metrics["fuse"]["share_of_ceiling"])
    line("same stage 2 on untrained frozen encoders", pcc("untrained"))
    for modality in ("vision", "audio", "text"):
        line(f"{modality} alone", pcc(modality))
    line("uniform weights", pcc("uniform"))
    for modality in ("vision", "audio"):
        line(f"damage done on purpose found, {modality}, ROC AUC", detection(modality))
    for weights, model in (("learned", "fuse"), ("uniform", "uniform")):
        line(f"fall of PCC when a modality is damaged, {weights} weights", fall(model))
        for modality in ("vision", "audio", "text"):
            line(f"  {modality}", fall(model, modality))


if __name__ == "__main__":
    sys.exit(main())
