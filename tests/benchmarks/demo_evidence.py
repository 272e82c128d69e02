"""The demo at three seeds, and what each part of it is worth.

    make evidence        or        python tests/benchmarks/demo_evidence.py --seeds [0,1,2] --out runs/evidence

For each seed: a corpus, the demo, then the same stage 2 on untrained frozen encoders, on each single modality, and
with uniform instead of learned weights. All models see the same clips; scores are on subjects none of them met.
Everything it calls skips what is done, so an interrupted run goes on.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from shared import config as configuration
from shared.cli import emit_command
from shared.files import write_json

FUSE = "emit fuse --config dual_stage"


@dataclass
class EvidenceConfig:
    """Repeat the demo over seeds, with its ablations."""

    out: Path = Path("runs/evidence")
    """Folder of all runs."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Each decides its own corpus and trainings."""
    clips: int = 2000
    """Clips of each corpus."""


def emit(command: str) -> None:
    print(f"== {command}", flush=True)
    subprocess.run(emit_command(*command.split()[1:]), check=True, stdout=subprocess.DEVNULL)


def score(model: str, folder: Path, features: str) -> dict:
    out = folder / f"metrics_{model}.json"
    emit(
        f"emit evaluate --model {folder}/{model}/model --data {folder}/{features} "
        f"--truth {folder}/corpus/truth.csv --out {out}"
    )
    return json.loads(out.read_text())


def one_seed(config: EvidenceConfig, seed: int) -> dict[str, dict]:
    folder = config.out / f"seed{seed}"
    emit(f"emit demo --out {folder} --clips {config.clips} --seed {seed}")
    align = "emit align --config tiny --train.epochs 0"
    emit(f"{align} --data {folder}/clips --run {folder}/align_untrained --seed {seed}")
    emit(f"emit export {folder}/align_untrained --out {folder}/encoders_untrained")
    encode = f"emit encode --data {folder}/clips --damaged_views 1"
    emit(f"{encode} --encoders {folder}/encoders_untrained --out {folder}/features_untrained")
    variants = {
        "untrained": ("features_untrained", ""),
        "vision": ("features", '--options.modalities ["vision"]'),
        "audio": ("features", '--options.modalities ["audio"]'),
        "text": ("features", '--options.modalities ["text"]'),
        "uniform": ("features", "--options.weighting uniform"),
    }
    corpus = json.loads((folder / "corpus" / "corpus.json").read_text())
    scores = {"fuse": score("fuse", folder, "features"), "baseline": corpus["baseline"]}
    for name, (features, extra) in variants.items():
        emit(f"{FUSE} --data {folder}/{features} --run {folder}/{name} --seed {seed} {extra}")
        scores[name] = score(name, folder, features)
    return scores


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EvidenceConfig, argv, prog="demo_evidence.py", example="python tests/benchmarks/demo_evidence.py --seeds [0]"
    )
    results = {seed: one_seed(config, seed) for seed in config.seeds}
    write_json(config.out / "summary.json", results)
    report(results)
    return 0


def report(results: dict[int, dict[str, dict]]) -> None:
    """One line a figure: mean over seeds, and the value at each seed."""

    def line(name: str, of) -> None:
        values = [of(scores) for scores in results.values()]
        each = "  ".join(f"{value:.3f}" for value in values)
        spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"{name:<58} {statistics.mean(values):.3f}{spread}   ({each})")

    def pcc(model: str):
        return lambda scores: scores[model]["pcc"]["mean"]

    def fall(model: str, modality: str | None = None):
        def of(scores) -> float:
            part = scores[model]["damaged_on_purpose"]
            part = part["by_modality"][modality] if modality else part
            return part["pcc_undamaged"] - part["pcc_damaged"]

        return of

    def found(modality: str):
        return lambda scores: scores["fuse"]["damaged_on_purpose"]["damage"][modality]["auc"]

    print(f"\nseeds {', '.join(map(str, results))}; PCC on held-out subjects, mean +- standard deviation (each)")
    line("ceiling", lambda scores: scores["fuse"]["ceiling"]["mean"])
    line("ridge regression on simple statistics, share of it", lambda scores: scores["baseline"]["share_of_ceiling"])
    line("two stages", pcc("fuse"))
    line("  share of the ceiling", lambda scores: scores["fuse"]["share_of_ceiling"])
    line("same stage 2 on untrained frozen encoders", pcc("untrained"))
    for modality in ("vision", "audio", "text"):
        line(f"{modality} alone", pcc(modality))
    line("uniform weights", pcc("uniform"))
    for modality in ("vision", "audio"):
        line(f"damage done on purpose found, {modality}, ROC AUC", found(modality))
    for weights, model in (("learned", "fuse"), ("uniform", "uniform")):
        line(f"fall of PCC when a modality is damaged, {weights} weights", fall(model))
        for modality in ("vision", "audio", "text"):
            line(f"  {modality}", fall(model, modality))


if __name__ == "__main__":
    sys.exit(main())
