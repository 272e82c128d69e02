"""Stage 2 under `accelerate launch`: two processes train the model of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import synthetic_features
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]

OPTIONS = {
    "options.width": 16,
    "options.steps": 8,
    "options.dropout": 0,  # drawn per process
    "options.modality_dropout": 0,
    "loss.memory": 20,
    "loss.pcc": 1.0,
    "train.epochs": 2,
    "train.batch_size": 16,
}


def test_two_processes_train_the_model_of_one(tmp_path: Path):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 32, "valid": 10})
    weights, logs = [], []
    for config in ("cpu", "cpu_2_processes"):
        command = [sys.executable, "-m", "accelerate.commands.launch"]
        command += ["--config_file", f"accelerate_configs/{config}.yaml", "stage2_fusion/train.py"]
        command += ["--data", str(data), "--run", str(tmp_path / config)]
        command += [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        weights.append(load_file(tmp_path / config / "model" / "model.safetensors"))
        logs.append([json.loads(line) for line in (tmp_path / config / "log.jsonl").open()])
    for one, two in zip(*logs, strict=True):
        for name in ("loss", "mse", "pcc", "quality", "grad_norm", "valid_pcc"):
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
    # AdamW makes a full step of a gradient that is a rounding error, so that single weights may differ.
    one, two = (torch.cat([value.flatten() for value in model.values()]) for model in weights)
    assert (one - two).abs().mean() < 1e-5
