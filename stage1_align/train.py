"""Stage 1: align a vision, an audio and a text encoder by contrastive training.

    accelerate launch stage1_align/train.py --config stage1_align/configs/tiny.yaml --data DIR --run RUN
    accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml stage1_align/train.py --config ...
    accelerate launch -m stage1_align.train --config ...
    emit align --config ...

An unfinished run in RUN is resumed with bitwise identical results; a finished one is not changed. The training loop is
in trainer.py.
"""

import contextlib
import sys
from pathlib import Path
from signal import SIGTERM

if __name__ == "__main__":  # launched as a file: import from the repository, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared import config as configuration
from shared.terminal.closing import closing, unused
from shared.training.signals import SigtermHandler
from stage1_align.config import AlignConfig


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        AlignConfig,
        argv,
        prog="emit align",
        example="emit align --config tiny --data runs/demo/clips --run runs/demo/align",
    )
    with SigtermHandler() as sigterm:
        train(config, sigterm)
    finished = (config.run / "metrics.json").exists()
    if finished:
        closing(
            [config.run / "best", config.run / "last"],
            [("export", config.run, "--out", unused(config.run.parent / "encoders"))],
        )
    return 128 + SIGTERM if sigterm.requested and not finished else 0


def train(config: AlignConfig, sigterm: SigtermHandler | None = None) -> Path:
    """Train to the end, to `max_optimizer_steps` or until SIGTERM, which `sigterm` records if given. Returns the run
    folder; after a finished run, it contains the encoders best/ and last/."""
    from shared.training.distributed import peer_failure_guard
    from stage1_align.trainer import start_trainer

    with contextlib.nullcontext(sigterm) if sigterm else SigtermHandler() as stop, peer_failure_guard(config.run):
        trainer = start_trainer(config, stop)
        if trainer:
            trainer.train()
    return config.run


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
