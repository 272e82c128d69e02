"""The trainer on real files: it learns, it resumes to the bit, it exports what it trained."""

import json
from pathlib import Path

import pytest
import yaml
from stage1_tiny import TOWERS

from shared import config as configuration
from shared.errors import UserError
from stage1_align.config import AlignConfig
from stage1_align.encoders import AlignedEncoders
from stage1_align.export import main as export
from stage1_align.train import train


@pytest.fixture
def settings(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    values["train"] = {"epochs": 2, "batch_size": 8, "mixed_precision": "no"}
    path.write_text(yaml.safe_dump(values))
    return path


def run(settings, clips, folder, *overrides):
    arguments = ["--data", str(clips), "--run", str(folder), *overrides]
    return train(configuration.load(AlignConfig, settings, arguments))


def losses(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {r["step"]: r["loss"] for r in records if "loss" in r}


def test_a_stopped_run_continues_to_the_bit(settings, clips, tmp_path):
    whole = run(settings, clips, tmp_path / "whole")
    run(settings, clips, tmp_path / "stopped", "--max_steps", "2")  # in the middle of the first epoch
    with (tmp_path / "stopped" / "log.jsonl").open("a") as log:  # killed after more steps than were saved
        log.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')
    stopped = run(settings, clips, tmp_path / "stopped")
    run(settings, clips, tmp_path / "between", "--max_steps", "3")  # with the first epoch's last step
    assert run(settings, clips, tmp_path / "between").is_dir()
    assert len(losses(whole)) == 6
    assert losses(whole) == losses(stopped) == losses(tmp_path / "between")
    for which in ("best", "last"):
        folders = (whole, stopped, tmp_path / "between")
        assert len({AlignedEncoders.from_pretrained(folder / which).digest for folder in folders}) == 1


def test_a_finished_run_is_left_alone_and_another_configuration_refused(settings, clips, tmp_path, capsys):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "0")
    run(settings, clips, folder, "--train.epochs", "0")
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="another configuration"):
        run(settings, clips, folder, "--train.epochs", "1")


def test_export_writes_the_trained_encoders(settings, clips, tmp_path, capsys):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "1")
    assert export([str(folder), "--out", str(tmp_path / "encoders")]) == 0
    exported = AlignedEncoders.from_pretrained(tmp_path / "encoders")
    assert exported.digest == AlignedEncoders.from_pretrained(folder / "best").digest
    assert "mean_recall" in exported.config["training"]["metrics"]
    assert export([str(folder), "--out", str(tmp_path / "encoders")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_export_never_replaces_what_is_not_its_own(settings, clips, tmp_path):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "0")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"):
        export([str(folder), "--out", str(tmp_path / "mine")])
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_unknown_names_of_pairs_and_towers_are_refused(settings, clips, tmp_path):
    with pytest.raises(UserError, match="did you mean 'audio'"):
        run(settings, clips, tmp_path / "run", "--train.tower_lr", "{audoi: 0.5}")


def test_export_of_an_unfinished_run_says_so(settings, clips, tmp_path):
    folder = run(settings, clips, tmp_path / "run", "--max_steps", "1")
    with pytest.raises(UserError, match="no finished stage-1 run"):
        export([str(folder), "--out", str(tmp_path / "encoders")])


def test_contrast_is_learnt(settings, clips, tmp_path):
    """Sixty steps on the same few clips bring the loss well under that of guessing."""
    folder = run(
        settings, clips, tmp_path / "run", "--train.epochs", "20", "--train.lr", "3e-3", "--pairs.augment", "false"
    )
    curve = losses(folder)
    assert sum(list(curve.values())[-5:]) < 0.8 * sum(list(curve.values())[:5])


@pytest.mark.parametrize("path", sorted(Path("stage1_align/configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads_and_builds(path, tmp_path):
    config = configuration.load(AlignConfig, path, ["--data", "x", "--run", "y"])
    towers = configuration.to_dict(config.towers)
    AlignedEncoders.build({m: towers[m] for m in ("vision", "audio", "text") if towers[m]}, towers["embed_dim"])
