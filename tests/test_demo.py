"""`emit demo`: real steps, an error that names its step, and no step repeated."""

import json
from typing import Any

import pytest
import yaml
from helpers.stage1_tiny import TOWERS

from shared.commands import demo
from shared.commands.demo import main
from shared.errors import UserError
from shared.pipeline.execute import run_step
from shared.pipeline.expand import CommandLine
from shared.pipeline.plan import PlannedStep, plan_steps
from shared.pipeline.recipe_file import read_recipe


def planned(name: str, *words: object) -> PlannedStep:
    (step,) = plan_steps([CommandLine(name, ("emit", *map(str, words)))])
    return step


def test_interrupted_training_does_not_count_as_done(clips, tmp_path):
    config = tmp_path / "tiny.yaml"
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": {"epochs": 1, "batch_size": 8}}
    config.write_text(yaml.safe_dump(values))
    words = ["align", "--config", config, "--data", clips, "--run", tmp_path / "align"]
    with pytest.raises(UserError, match="the step 'stage 1' was stopped; run demo again"):
        run_step(planned("stage 1", *words, "--max_optimizer_steps", 1), read_recipe("demo"))
    run_step(planned("stage 1", *words), read_recipe("demo"))


def test_demo_prints_its_table_and_is_not_repeated(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the demo sets it and leaves it set
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": {"epochs": 1, "batch_size": 8}}
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": {"epochs": 1, "batch_size": 8}}
    words = ["--out", str(tmp_path / "demo"), "--clips", "24"]
    labels = {**align, "loss": {"pairs": {"vision_labels": 1.0, "audio_labels": 1.0}}}
    for name, config in (("align", align), ("labels", labels), ("fuse", fuse)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        words += [f"--{name}_config", str(tmp_path / f"{name}.yaml")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    shown = capsys.readouterr().out
    assert f"  mean            {metrics['pcc']['mean']:.3f}" in shown and "of it reached" in shown
    assert "  on 2 clips of unmet subject and seed: n/a   2 labeled clips, where a correlation needs 3" in shown
    labeled = json.loads((tmp_path / "demo" / "label_words" / "metrics.json").read_text())
    assert f"  mean with label words in stage 1: {labeled['pcc']['mean']:.3f}" in shown
    assert labeled["made_from"] != metrics["made_from"]
    assert main(words) == 0
    assert capsys.readouterr().out.count("already done") == shown.count("\n== ")


def test_demo_runs_as_many_steps_at_once_as_it_is_told(tmp_path, monkeypatch):
    called: dict[str, Any] = {}
    monkeypatch.setattr(demo, "run_recipe", lambda recipe, given, jobs: called.update(given=given, jobs=jobs))
    assert main(["--out", str(tmp_path / "demo"), "--jobs", "3"]) == 0
    assert called["jobs"] == 3 and set(called["given"]) == set(read_recipe("demo").variables)
