"""`emit synth`: a corpus of real media files with known truth."""

from shared import config as configuration
from shared.synth.config import SynthConfig
from shared.terminal.closing import closing, unused
from shared.terminal.results import result
from shared.text import counted


def main(argv: list[str] | None = None) -> int:
    """Run `emit synth`; 0 when the corpus is complete."""
    config = configuration.parse(
        SynthConfig, argv, prog="emit synth", example="emit synth --out corpus --clips 1000 --seed 0"
    )
    from shared.synth.corpus import build

    already = "already complete: " if (config.out / "corpus.json").is_file() else ""
    figures = build(config)
    counts, ceiling = figures["counts"], figures["ceiling"]["test"]["mean"]
    lines = [
        f"{config.out}: {already}{counted(counts['clips'], 'clip')}, {counted(counts['subjects'], 'subject')}",
        f"  train {counts['train']}, valid {counts['valid']}, test {counts['test']}; digest {figures['digest']}",
    ]
    if config.unmet_videos:
        lines.append(f"  {counted(counts['unmet_test'], 'test clip')} with people and videos in no other split")
    if config.labels == "withheld":
        lines.append("  labels withheld: for stage 1")
    else:
        lines.append(f"  ceiling: PCC {_number(ceiling)} on test, between expected labels and labels")
    result("\n".join(lines), figures)
    closing([config.out], [("prepare", config.out, "--out", unused(config.out.parent / "clips"))])
    return 0


def _number(value: float | None) -> str:
    return "n/a (too few clips)" if value is None else f"{value:.3f}"
