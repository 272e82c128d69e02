"""`emit demo`: real steps, an error that names its step, and no step repeated."""

import json

import pytest
import yaml
from helpers.stage1_tiny import TOWERS

from shared.commands.demo import main, run
from shared.errors import UserError


def test_failed_step_is_named_after_its_own_error(tmp_path, capsys):
    with pytest.raises(UserError, match="the step 'export' failed"):
        run("export", ["emit", "export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "encoders")])
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"the step 'corpus' failed \(status 2\)"):
        run("corpus", ["emit", "synth", "--out", str(tmp_path / "corpus"), "--clips", "none"])
    with pytest.raises(UserError, match=r"the step 'stage 2' failed \(status 1\)"):
        run("stage 2", ["emit", "fuse", "--data", str(tmp_path), "--run", str(tmp_path / "fuse")])
    assert str(tmp_path) in capsys.readouterr().err


def test_interrupted_training_does_not_count_as_done(clips, tmp_path):
    config = tmp_path / "tiny.yaml"
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": {"epochs": 1, "batch_size": 8}}
    config.write_text(yaml.safe_dump(values))
    words = ["--config", str(config), "--data", str(clips), "--run", str(tmp_path / "align")]
    with pytest.raises(UserError, match="the step 'stage 1' was stopped; run the demo again"):
        run("stage 1", ["emit", "align", *words, "--max_optimizer_steps", "1"])
    run("stage 1", ["emit", "align", *words])


@pytest.mark.slow
def test_demo_prints_its_table_and_is_not_repeated(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the demo sets it and leaves it set
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": {"epochs": 1, "batch_size": 8}}
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": {"epochs": 1, "batch_size": 8}}
    words = ["--out", str(tmp_path / "demo"), "--clips", "40"]
    for name, config in (("align", align), ("fuse", fuse)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        words += [f"--{name}_config", str(tmp_path / f"{name}.yaml")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert f"  mean            {metrics['pcc']['mean']:.3f}" in capsys.readouterr().out
    assert (tmp_path / "demo" / "predictions.csv").read_text().count("\n") == 5
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
