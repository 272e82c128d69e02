"""Stage 1 under `accelerate launch`: the shipped two-process configuration gives the losses of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.trainers import ROOT, write_settings

DEFAULTS = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def launch(arguments: list[str], script: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments, "stage1_align/train.py", *script]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture
def script(clips: Path, tmp_path: Path) -> list[str]:
    return ["--config", str(write_settings(tmp_path / "tiny.yaml", epochs=1)), "--data", str(clips)]


def losses(folder: Path) -> list[tuple[float, ...]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(r["loss"], r["grad_norm"], r["scale_vision_text"], r["scale_audio_text"]) for r in records if "loss" in r]


def test_two_processes_have_the_losses_of_one(script: list[str], tmp_path: Path):
    one = launch(["--config_file", "accelerate_configs/cpu.yaml"], [*script, "--run", str(tmp_path / "one")])
    two = launch(
        ["--config_file", "accelerate_configs/cpu_2_processes.yaml"], [*script, "--run", str(tmp_path / "two")]
    )
    assert one.returncode == 0, one.stderr[-2000:]
    assert two.returncode == 0, two.stderr[-2000:]
    a, b = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(a) == len(b) >= 3
    for x, y in zip(a, b, strict=True):
        assert y == pytest.approx(x, rel=2e-4)
    assert b[0] == pytest.approx(a[0], rel=1e-5)  # before rounding errors grow


def test_one_process_instead_of_two_is_refused(script: list[str], tmp_path: Path):
    arguments = ["--cpu", *DEFAULTS, "--num_processes", "2"]
    result = launch(arguments, [*script, "--run", str(tmp_path / "run")])
    assert result.returncode != 0
    assert "2 processes were asked for but one was started" in result.stderr
