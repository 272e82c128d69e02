"""The order of steps: what a recipe says with the names of its files, and nothing more."""

import json
import re
import shlex
from pathlib import Path

import pytest

from shared.pipeline import plan
from shared.pipeline.expand import CommandLine, expand, resolve
from shared.pipeline.order import dependencies
from shared.pipeline.plan import plan_steps
from shared.pipeline.recipe_file import read_recipe, shipped_recipes

WRITTEN = ("--out", "--run", "--figures")


def closure(waits: list[set[int]]) -> list[set[int]]:
    """For each step all that it waits for, directly or through others."""
    all_of: list[set[int]] = []
    for direct in waits:
        all_of.append(direct.union(*(all_of[j] for j in direct)))
    return all_of


def written_in(line: str) -> list[str]:
    words = shlex.split(line)
    named = [words[i + 1] for i, word in enumerate(words) if word in WRITTEN]
    return [path for name in named for path in (json.loads(name) if name.startswith("[") else [name])]


def waits_by_text(lines: list[str]) -> list[set[int]]:
    """A line waits for another whose output it mentions, or a folder around it as a whole word."""
    waits: list[set[int]] = []
    for i, line in enumerate(lines):
        waits.append(set())
        for j, earlier in enumerate(lines[:i]):
            for path in written_in(earlier):
                mentioned = re.search(rf"{re.escape(path)}(?![\w.-])", line)
                around = [word for word in shlex.split(line) if path.startswith(f"{word}/")]
                if mentioned or around:
                    waits[i].add(j)
    return waits


def lines_of(name: str, folder: Path) -> list[CommandLine]:
    """The lines of a shipped recipe, with two values of each list."""
    recipe = read_recipe(name)
    given = {}
    for key, variable in recipe.variables.items():
        if variable.required or variable.checkpoint:
            given[key] = str(folder / "given")
        elif isinstance(variable.default, list):
            given[key] = ",".join(map(str, variable.default[:2]))
    return expand(recipe, resolve(recipe, {**given, "out": str(folder / "results")}))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_steps_of_a_shipped_recipe_wait_for_what_their_lines_mention_and_for_nothing_else(name, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "needed_paths", lambda step: [])  # what they are given need not be there
    lines = lines_of(name, tmp_path)
    expected = closure(waits_by_text([str(line) for line in lines]))
    found = closure(dependencies(plan_steps(lines)))
    assert [line.name for line in lines] and found == expected


def test_baseline_of_the_demo_runs_beside_both_stages(tmp_path):
    lines = lines_of("demo", tmp_path)
    names = [line.name for line in lines]
    waits = [{names[j] for j in each} for each in closure(dependencies(plan_steps(lines)))]
    assert waits[names.index("media baseline")] == {"corpus", "prepare"}
    assert "media baseline" not in waits[names.index("evaluate")]
    assert waits[names.index("report")] == set(names) - {"report"}


def order_of(*lines: str) -> list[set[int]]:
    return dependencies(plan_steps([CommandLine(line, ("emit", *shlex.split(line))) for line in lines]))


def test_every_way_to_name_a_file_makes_a_step_wait(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "link").symlink_to("made")
    fuse = "fuse --data clips --run"
    base = "check clips --out made/it.json"
    for line in (
        "evaluate --model made/it.json --data clips --out o.json",  # a path
        "evaluate --model=link/it.json --data clips --out o.json",  # through a link
        f"evaluate --model {tmp_path}/made/../made/it.json --data clips --out o.json",
        "leaderboard a=made/it.json --out [b.md]",  # in a text, after a name
        "leaderboard 'a, b=made/it.json' --out [b.md]",
        "encode --precomputed made --data clips --out f",  # the folder around it
        "ensemble clips made/it.json --out o.json",  # in a list
        f"{fuse} r --options '{{x: made/it.json}}'",  # deep in the options
        "prepare clips --out p --layout csv --layout_options '{media: made/it.json}'",
    ):
        assert order_of(base, line) == [set(), {0}], line
    for text in ("made/it", "made/it.json2", "it.json"):
        assert order_of(base, f"{fuse} r --options '{{x: {text}}}'") == [set(), set()], text


def test_tables_beside_an_output_are_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    evaluate = "evaluate --model clips --data clips --out m.json"
    assert order_of(evaluate, "submit clips --predictions m_predictions.csv --out s.csv") == [set(), {0}]


def test_step_does_not_write_what_an_earlier_one_reads_or_writes(tmp_path, monkeypatch):
    """A report in the middle of a recipe shows what comes before it, and no half of what comes after it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    report = "report made --out r.html"
    assert order_of("check clips --out made/1.json", report, "check clips --out made/2.json") == [set(), {0}, {1}]
    assert order_of("check clips --out a.json", "split clips --out clips/fold") == [set(), {0}]
    assert order_of("split clips --out a", "split clips --out a/b", "split clips --out c") == [set(), {0}, set()]


def test_file_of_a_configuration_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "best.yaml").write_text("seed: 1\n")
    search = "search --data clips --space systems --out made"
    for option in ("--config made/best.yaml", "--config=made/best.yaml"):
        assert order_of(search, f"fuse {option} --data clips --run r") == [set(), {0}]


def test_search_reads_what_it_is_given_and_not_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    search = "search --data clips --space systems --out s"
    assert order_of("check clips --out a.json", search, "check clips --out b.json") == [set()] * 3
