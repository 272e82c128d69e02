"""Pickles that run code, in every place of a run folder where a trainer might load one."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

FILES = [
    *("pytorch_model.bin", "optimizer.bin", "scheduler.bin", "sampler.bin", "dl_state_dict.bin", "scaler.pt"),
    *("random_states_0.pkl", "random_states_1.pkl", "custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl"),
    *("pytorch_model_fsdp_0/.metadata", "optimizer_0/.metadata", "pytorch_model/mp_rank_00_model_states.pt"),
]
"""Files of checkpoints as Accelerate, torch.distributed.checkpoint and DeepSpeed write and unpickle them."""


class Code:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def plant(checkpoint: Path, executed: Path) -> None:
    """Write FILES into a checkpoint, half of them as torch writes pickles."""
    for number, name in enumerate(FILES):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        with (checkpoint / name).open("wb") as file:
            (torch.save if number % 2 else pickle.dump)(Code(executed), file)
