"""`accelerate launch` with the shipped two-process configuration against one process: same losses, same encoders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.stage1_tiny import TOWERS

ROOT = Path(__file__).parents[2]


LONE = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def launch(arguments, script):
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments, "stage1_align/train.py", *script]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture
def script(clips, tmp_path):
    towers = json.loads(json.dumps(TOWERS))
    towers["audio"]["options"]["drop_path"] = 0.0  # random depth and dropout differ between processes by design
    towers["text"]["options"]["model_cfg"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    values = {"towers": {**towers, "embed_dim": 8}, "pairs": {"frames": 2}}
    values["train"] = {"epochs": 1, "batch_size": 8, "mixed_precision": "no"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["--config", str(path), "--data", str(clips)]


def losses(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(r["loss"], r["grad_norm"], r["scale_vision_text"], r["scale_audio_text"]) for r in records if "loss" in r]


def test_the_shipped_configuration_starts_two_and_they_equal_one(script, tmp_path):
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
    assert b[0] == pytest.approx(a[0], rel=1e-5)  # before rounding has had a step to grow


def test_one_process_where_two_were_asked_for_is_refused(script, tmp_path):
    asked = ["--cpu", *LONE, "--num_processes", "2"]
    result = launch(asked, [*script, "--run", str(tmp_path / "run")])
    assert result.returncode != 0
    assert "2 processes were asked for but one was started" in result.stderr
