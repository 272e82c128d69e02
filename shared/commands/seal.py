"""`emit seal`: accept a saved folder that was edited on purpose or written by an earlier version."""

from dataclasses import dataclass
from pathlib import Path

from shared import config as configuration
from shared.options.ranges import CheckedOptions
from shared.terminal.closing import closing
from shared.terminal.results import result


@dataclass
class SealConfig(CheckedOptions):
    """Rewrite the checksums of saved folders: exported encoders, fusion models, clip and feature datasets.

    Loading refuses a folder that changed since it was saved. Seal a folder that you changed on purpose, or that an
    earlier version of EMIT wrote. Results computed with the old encoders or dataset are refused with the changed ones,
    because the digests differ.
    """

    folders: list[Path]
    """Folders with a config.json, dataset.json or features.json of EMIT."""


def main(argv: list[str] | None = None) -> int:
    from shared.saved.checksum import seal

    config = configuration.parse(
        SealConfig, argv, prog="emit seal", example="emit seal runs/demo/encoders", positional=("folders",)
    )
    lines = [seal(folder) for folder in config.folders]
    result("\n".join(lines), lines)
    closing([Path(folder) for folder in config.folders])
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
