"""What a report says repeats a run."""

import shlex

import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.files import write_json
from stage2_fusion.report.content import Code
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.repeat import exported, repeat_blocks, shown


@pytest.fixture
def folder(tmp_path):
    """An evaluation and the note of the recipe that made it."""
    labels = [[0.1], [0.4], [0.6], [0.9]]
    write_evaluation(tmp_path / "metrics.json", labels, labels)
    steps = {
        name: {"command": f"emit {command}", "outputs": {name: "0"}, "done": True, "run": run}
        for name, command, run in (
            ("encoders", "export align --which last --out encoders", "emit run own data=a.csv"),
            ("metrics.json", "evaluate --model fuse/model", "emit run own 'data=my clips.csv' fuse_epochs=30"),
        )
    }
    write_json(tmp_path / "recipe.json", {"steps": steps})
    return tmp_path


def codes(folder) -> list[str]:
    return [block.text for block in repeat_blocks(Inputs.of([folder])) if isinstance(block, Code)]


def test_a_run_of_a_recipe_is_repeated_by_its_line_and_shows_its_steps_as_they_ran(folder):
    line, steps = codes(folder)
    assert shlex.split(line) == ["emit", "run", "own", "data=my clips.csv", "fuse_epochs=30"]
    assert steps.splitlines() == ["emit export align --which last --out encoders", "emit evaluate --model fuse/model"]


def test_a_run_whose_recipe_line_was_not_noted_shows_its_steps(folder):
    import json

    content = json.loads((folder / "recipe.json").read_text())
    for step in content["steps"].values():
        del step["run"]
    write_json(folder / "recipe.json", content)
    assert "--which last" in codes(folder)[0] and len(codes(folder)) == 1


@pytest.mark.parametrize("content", [None, [], {"steps": 1}, {"steps": {"metrics.json": {"command": 3}}}])
def test_without_a_note_that_can_be_read_there_are_commands(folder, content):
    write_json(folder / "recipe.json", content)
    assert codes(folder)[0].endswith(f"emit report {shlex.quote(shown(folder))}")


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_exported_model_is_known_by_its_digest(tmp_path, which):
    class Found:
        align_run = tmp_path
        features_info = type("Info", (), {"encoders": type("Encoders", (), {"kept": which * 4})})

    for name in ("best", "last"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", {"digest": name * 4})
    assert exported(Found()) == which


def test_paths_are_relative_below_the_current_folder_and_whole_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(tmp_path / "here" / "runs") == "runs"
    assert shown(tmp_path / "other") == str(tmp_path / "other")
