"""Two processes on processors that differ train in the precision that the main process decides and writes down."""

import functools
import json
from pathlib import Path

import pytest
import torch
from helpers.two_processes import on_two_processes
from torch import nn

from shared.training.distributed import start_accelerator
from shared.training.precision import Hardware
from shared.training.run_folder import RunFolder
from shared.training.startup import settle_precision


def work(folder: Path, first_has_bf16: bool, rank: int, world: int) -> tuple[str, str]:
    """The precision of the Accelerator, and that of a product in the prepared model."""
    fast = (rank == 0) == first_has_bf16
    Hardware.here = lambda: Hardware(gpu=False, gpu_bf16=False, amx=False, avx512_bf16=fast)
    run = RunFolder(folder, start_accelerator("auto"))
    assert run.accelerator.num_processes == world
    settle_precision(run, "auto", nn.Linear(300, 300))
    layer = nn.Linear(2, 2)
    computed = []
    layer.register_forward_hook(lambda module, inputs, output: computed.append(str(output.dtype)))
    run.accelerator.prepare(nn.Sequential(layer))(torch.ones(1, 2))
    return run.accelerator.mixed_precision, computed[0]


@pytest.mark.parametrize("first_has_bf16", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_main_process_decides_for_all(first_has_bf16: bool, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "made_from.json").write_text("{}")
    results = on_two_processes(functools.partial(work, tmp_path, first_has_bf16), tmp_path / "out")
    expected = ("bf16", "torch.bfloat16") if first_has_bf16 else ("no", "torch.float32")
    assert results == [expected, expected]
    assert json.loads((tmp_path / "made_from.json").read_text()) == {"precision": expected[0]}
