"""A recipe file: what it may say, and the command lines that follow from it."""

import itertools
import shlex

import pytest

from shared.errors import UserError
from shared.pipeline.execute import run_recipe
from shared.pipeline.expand import expand, parse_assignments, resolve
from shared.pipeline.plan import plan_steps
from shared.pipeline.recipe_file import read_recipe, shipped_recipes

HEAD = """
summary: a recipe
variables:
  data: The table of the clips.
  out: { default: runs/x, help: Folder of all results. }
  seeds: { default: [0, 1], help: Seeds. }
  epochs: { default: null, help: Epochs. }
  rate: { default: 0.5, help: A number. }
  ridge: { default: false, help: Whether to score a baseline. }
  run_folder: { default: "{out}/runs", help: A folder in it. }
steps:
"""


def lines(tmp_path, steps: str, *given: str) -> list[str]:
    file = tmp_path / "mine.yaml"
    file.write_text(HEAD + steps)
    recipe = read_recipe(file)
    return [str(line) for line in expand(recipe, resolve(recipe, parse_assignments(recipe, ["data=d.csv", *given])))]


STEP = '  - { name: check, run: "emit check %s" }\n'


def test_loops_conditions_and_empty_values(tmp_path):
    steps = """
  - for: { seed: seeds, view: [a, b] }
    steps:
      - { name: fuse, run: "emit fuse --data {data} --run {run_folder}/{seed}{view} --train.epochs {epochs}" }
  - { name: ridge, if: ridge, run: "emit baseline --data {data} --out {out}/r.json" }
  - { name: none, if: not ridge, run: "emit check {data} --layout_options '{media: path}'" }
  - { name: board, run: "emit leaderboard x={out}/{seeds*}.json --out [{out}/b.md]" }
"""
    assert lines(tmp_path, steps, "seeds=3", "out=o") == [
        "emit fuse --data d.csv --run o/runs/3a",
        "emit fuse --data d.csv --run o/runs/3b",
        "emit check d.csv --layout_options '{media: path}'",
        "emit leaderboard x=o/3.json --out '[o/b.md]'",
    ]
    several = lines(tmp_path, steps, "seeds=[0, 7]", "ridge=yes", "epochs=2")
    assert several[0] == "emit fuse --data d.csv --run runs/x/runs/0a --train.epochs 2"
    assert several[4] == "emit baseline --data d.csv --out runs/x/r.json"
    assert several[5].startswith("emit leaderboard x=runs/x/0.json x=runs/x/7.json ") and len(several) == 6


def test_value_stays_one_word_whatever_it_holds(tmp_path):
    odd = "a b/it's; rm -rf $HOME {out}.csv"
    (tmp_path / "mine.yaml").write_text(HEAD + STEP % "{data}")
    recipe = read_recipe(tmp_path / "mine.yaml")
    (line,) = expand(recipe, resolve(recipe, {"data": odd}))
    assert line.words == ("emit", "check", odd) and tuple(shlex.split(str(line))) == line.words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["sed=1"], "no variable 'sed': did you mean 'seeds'"),
        (["d.csv"], "expected name=value"),
        (["--epochs", "3"], "epochs: variables of a recipe are written epochs=VALUE"),
        (["seeds=0,0"], "a value is listed twice"),
        (["seeds={a: 1}"], "expected a list, such as 0,1"),
        (["seeds=1", "seeds=2"], "given twice"),
        (["rate=fast"], "rate=fast: expected a number"),
        (["ridge=perhaps"], "expected true or false"),
        (["out="], "out= is empty"),
    ],
)
def test_value_that_makes_no_sense_is_refused(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        lines(tmp_path, STEP % "{data}", *given)


def test_null_empties_a_variable_that_has_a_default():
    recipe = read_recipe("demo")
    whole, without = (
        expand(recipe, resolve(recipe, given)) for given in ({}, {"labels_config": "null", "clips": "null"})
    )
    left_out = [line.name for line in whole if "label words" in line.name]
    assert len(left_out) == 5 and [line.name for line in without] == [x.name for x in whole if x.name not in left_out]
    assert "--clips" in whole[0].words and "--clips" not in without[0].words
    assert resolve(recipe, {"out": "null"})["out"] == "null"


def test_home_folder_is_expanded_where_the_shell_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lines(tmp_path, STEP % "{run_folder}", "out=~/x") == [f"emit check {tmp_path}/x/runs"]
    assert lines(tmp_path, STEP % "{out}", "out=~x")[0].endswith("'~x'")


def test_value_that_looks_like_an_option_stays_a_value(tmp_path):
    steps = '  - { name: a, run: "emit prepare {data} --split_by {epochs} --out {out}" }\n'
    assert lines(tmp_path, steps, "epochs=--help") == ["emit prepare d.csv --split_by=--help --out runs/x"]
    with pytest.raises(UserError, match=r"out=-x: is parsed as an option; write a path as \./-x"):
        lines(tmp_path, '  - { name: a, run: "emit check {out}" }\n', "out=-x")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (STEP % "{out}/{seeds}.csv", r"seeds is a list: write \{seeds\*\} to repeat the word"),
        (
            "  - { for: { e: epochs }, steps: [{ name: a, run: emit check x }] }\n",
            "variable epochs is None, not a list",
        ),
    ],
)
def test_list_stands_where_a_list_can_stand(tmp_path, steps, message):
    with pytest.raises(UserError, match=message):
        lines(tmp_path, steps)
    assert lines(tmp_path, STEP % "x --needs {seeds}", "seeds=a")[0].endswith("--needs '[\"a\"]'")


def test_variable_without_default_is_required(tmp_path):
    (tmp_path / "mine.yaml").write_text(HEAD + STEP % "{data}")
    with pytest.raises(UserError, match=r"data is missing: give data=VALUE \(The table of the clips\)"):
        resolve(read_recipe(tmp_path / "mine.yaml"), {})


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("  - { name: a, run: emit check x, when: y }\n", "no key 'when' here"),
        (STEP % "{dta}", "no variable 'dta': did you mean 'data'"),
        ("  - { name: a, run: emit chek x }\n", "is no emit command; did you mean 'check'"),
        ("  - { name: a, run: rm -rf x }\n", "is no emit command"),
        ("  - { name: a, run: emit run demo }\n", "runs no recipe"),
        ("  - { name: a, if: sed, run: emit check x }\n", "no variable 'sed'"),
        ("  - { for: { seed: sed }, steps: [{ name: a, run: emit check x }] }\n", "no variable 'sed'"),
        ("  - { for: { data: seeds }, steps: [{ name: a, run: emit check x }] }\n", "'data' is taken"),
        ('  - { name: a, run: "emit check \'x" }\n', "not readable as a command"),
        ("  - emit check x\n", "names with values are expected"),
        ("  - { name: a, run: emit check x }\nscor: x\n", "no key 'scor' here: did you mean 'score'"),
        ('  - { name: a, run: emit check x }\nnext: "emit predict {modl}"\n', "no variable 'modl'"),
        ('  - { name: a, run: emit check x }\nnext: "predict {data}"\n', "next: 'predict {data}' is no emit command"),
        ('  - { name: a, run: emit check x }\noffline: "yes"\n', "offline: is 'yes': expected true or false"),
        (STEP % "{Data}", "no variable 'Data': did you mean 'data'"),
        ("  - { name: a, if: ridge, run: emit check x }\n", "no step to run with these variables"),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path, steps, message):
    with pytest.raises(UserError, match=message) as caught:
        lines(tmp_path, steps)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml")) and "\n" not in str(caught.value)


def test_published_weights_have_a_license(tmp_path):
    variable = "  w: { default: null, checkpoint: a/b, help: W }\n  out:"
    (tmp_path / "mine.yaml").write_text(HEAD.replace("  out:", variable) + STEP % "{data}")
    with pytest.raises(UserError, match=r"variables\.w: 'license' is missing"):
        read_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ('  - { name: a, run: "emit check {data} --headers 0" }\n', "step 'a': --headers is 0: expected"),
        (
            '  - { name: a, run: "emit check {data} --hedders 3" }\n',
            "no option called 'hedders': did you mean 'headers'",
        ),
        (
            "  - { name: a, run: emit check nowhere.csv }\n",
            "nowhere.csv: no such file or folder, needed by the step 'a'",
        ),
        (
            "  - name: a\n    run: \"emit fuse --data {data} --run {out}/r --init '{text: nowhere/model}'\"\n",
            "nowhere/model: no such file or folder, needed by the step 'a'",
        ),
        (
            "".join(f'  - {{ name: {n}, run: "emit check {{data}} --out {{out}}/x" }}\n' for n in "ab"),
            "the step 'b' writes .*, as 'a' does",
        ),
        *(
            (
                f'  - {{ name: a, run: "emit {a}" }}\n  - {{ name: b, run: "emit {b}" }}\n',
                "the step 'b' writes .*, and 'a' .*: neither folder may lie in the other",
            )
            for a, b in itertools.permutations(
                ("fuse --data {data} --run {out}/x", "encode --encoders {data} --data {data} --out {out}/x/y")
            )
        ),
    ],
)
def test_options_are_checked_before_the_first_step(tmp_path, steps, message):
    data, marker = tmp_path / "d.csv", tmp_path / "first.json"
    data.write_text("path\na.mp4\n")
    (tmp_path / "mine.yaml").write_text(
        HEAD + f'  - {{ name: first, run: "emit check {{data}} --out {marker}" }}\n' + steps
    )
    recipe = read_recipe(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=message):
        run_recipe(recipe, {"data": str(data), "out": str(tmp_path / "out")})
    assert not marker.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_accepted_by_its_commands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(name)
    given = {key: str(tmp_path) for key, variable in recipe.variables.items() if variable.required}
    assert plan_steps(expand(recipe, resolve(recipe, given)))


def test_block_of_an_encoder_may_be_the_mix_of_all(tmp_path, monkeypatch):
    """As the help of the variable says: its default, a number, is a text."""
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("ravdess_av")
    given = {key: str(tmp_path) for key, variable in recipe.variables.items() if variable.required}
    for layer, expected in (("weighted", "weighted"), ("3", 3), (None, 2)):
        lines = expand(recipe, resolve(recipe, given | ({"layer": layer} if layer else {})))
        towers = plan_steps(lines[:2])[1]
        assert towers.config.towers.audio.options["layer"] == expected
