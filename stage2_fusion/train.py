"""Stage 2: train a fusion model on the features of frozen encoders.

    accelerate launch stage2_fusion/train.py --config stage2_fusion/configs/dual_stage.yaml --data DIR --run RUN
    accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml stage2_fusion/train.py --config ...
    accelerate launch -m stage2_fusion.train --config ...
    emit fuse --config ...

An unfinished run in RUN is resumed, bit for bit; a finished one stays as it is. The best model is in RUN/model (its
files: models/saving.py). The training loop is in trainer.py.
"""

import contextlib
import sys
from pathlib import Path
from signal import SIGTERM

if __name__ == "__main__":  # launched as a file: imports start at the repository, not at this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared import config as configuration
from shared.terminal.closing import closing
from shared.training.signals import SigtermHandler
from stage2_fusion.config import FuseConfig


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        FuseConfig,
        argv,
        prog="emit fuse",
        example="emit fuse --config dual_stage --data runs/demo/features --run runs/demo/fuse",
    )
    with SigtermHandler() as sigterm:
        train(config, sigterm)
    finished = (config.run / "metrics.json").exists()
    if finished:
        then = ("evaluate", "--model", config.run / "model", "--data", config.data, "--split", _scored_split(config))
        closing([config.run / "model"], [then])
    return 128 + SIGTERM if sigterm.requested and not finished else 0


def _scored_split(config: FuseConfig) -> str:
    """The split to score next: test if its clips have labels, otherwise the validation split."""
    import numpy as np

    from stage2_fusion.data.features import read_clips

    labeled = {clip.split for clip in read_clips(config.data) if not np.isnan(clip.labels).all()}
    return "test" if "test" in labeled else config.valid_split


def train(config: FuseConfig, sigterm: SigtermHandler | None = None) -> Path:
    """Train to the end, or until a SIGTERM, which `sigterm` records if given. Returns the model folder."""
    from shared.training.distributed import peer_failure_guard
    from stage2_fusion.trainer import start_trainer

    with contextlib.nullcontext(sigterm) if sigterm else SigtermHandler() as stop, peer_failure_guard(config.run):
        trainer = start_trainer(config, stop)
        if trainer:
            trainer.train()
    return config.run / "model"


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
