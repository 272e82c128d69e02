"""emit synth: a corpus of real media files whose truth is known.

emit synth --out corpus --clips 1000 --seed 0
"""

from shared import config as configuration
from shared.synth.config import SynthConfig

__all__ = ["SynthConfig", "main"]

EXAMPLE = "emit synth --out corpus --clips 1000 --seed 0"


def main(argv: list[str] | None = None) -> int:
    """Run `emit synth`; 0 when the corpus is complete."""
    config = configuration.parse(SynthConfig, argv, prog="emit synth", example=EXAMPLE)
    from shared.synth.corpus import build

    already = (config.out / "corpus.json").is_file()
    figures = build(config)
    counts, found, ceiling = figures["counts"], figures["baseline"], figures["ceiling"]["test"]["mean"]
    print(
        f"{config.out}: {'already complete: ' if already else ''}{counts['clips']} clips, {counts['subjects']} subjects"
    )
    print(f"  train {counts['train']}, valid {counts['valid']}, test {counts['test']}; digest {figures['digest']}")
    print(f"  ceiling: PCC {ceiling:.3f} on test, of the true intensities with the labels")
    print(
        f"  baseline: PCC {found['pcc']:.3f} on test, {found['share_of_ceiling']:.2f} of the ceiling (ridge regression)"
    )
    return 0
