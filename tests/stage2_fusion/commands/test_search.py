"""`emit search`: which assignments are drawn, which trials run, and what is kept."""

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from helpers import synthetic_features

from shared import config as configuration
from shared.cli import emit_command
from shared.errors import UserError
from stage2_fusion.commands.search import SearchConfig, search
from stage2_fusion.config import FuseConfig
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.search import trials
from stage2_fusion.search.space import draw_assignments, read_space
from stage2_fusion.train import train

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "f"
    return synthetic_features.write_features(folder, {"train": 32, "valid": 16}, views=0)


def arguments(data, folder, space: dict, *more) -> list[str]:
    base = {"model": "concat", "options": {"width": 8}, "train": {"epochs": 1, "batch_size": 16, "trackers": []}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    argv = ["--config", folder / "base.yaml", "--data", data, "--space", folder / "space.yaml"]
    return [str(argument) for argument in (*argv, "--out", folder / "out", *more)]


def config(*args) -> SearchConfig:
    one_worker = arguments(*args, "--workers", 1)  # trials in this process share torch's generator
    return configuration.parse(SearchConfig, one_worker, prog="emit search", example="")


@pytest.fixture
def started(monkeypatch):
    """Run trials in this process, one after the other; the names of those that were started."""
    names = []

    def run(file, trainings):
        run_folder = Path(yaml.safe_load(file.read_text())["run"])
        if not (run_folder / "metrics.json").exists():
            names.append(file.stem)
            try:
                train(configuration.load(FuseConfig, file))
            except UserError as error:
                return str(error)
        return ""

    monkeypatch.setattr(trials, "run_trial", run)
    return names


def read_results(folder) -> list[dict]:
    with (folder / "out" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def draw(space, seed, count):
    return [values for values, _ in zip(draw_assignments(space, "random", seed), range(count), strict=False)]


def test_draws_lie_in_space_and_never_repeat():
    space = {"a": {"low": 1e-4, "high": 1e-1, "log": True}, "b": {"low": 2, "high": 4}, "c": ["x", "y"]}
    drawn = draw(space, 3, 300)
    assert drawn[:5] == draw(space, 3, 5) != draw(space, 4, 5)
    assert all(1e-4 <= values["a"] <= 1e-1 for values in drawn)
    small = sum(values["a"] < 10**-2.5 for values in drawn)
    assert 120 < small < 180  # uniform in the logarithm: half lie below the middle
    thirds = [sum(values["b"] == b for values in drawn) for b in (2, 3, 4)]
    assert sum(thirds) == 300 and min(thirds) > 70
    assert len(draw({"b": {"low": 2, "high": 4}, "c": ["x", "y"]}, 0, 300)) == 6


def test_grid_is_every_combination_in_order():
    grid = draw_assignments({"a": [1, 2], "b": ["x", "y"]}, "grid", 0)
    assert [(v["a"], v["b"]) for v in grid] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    with pytest.raises(UserError, match="b is a range"):
        list(draw_assignments({"b": {"low": 1, "high": 2}}, "grid", 0))


def test_best_configuration_trains_to_the_same_score(data, tmp_path, started, capsys):
    space = {"train.batch_size": [16, 1000], "train.lr": [1.0e-7, 3.0e-2], "options.width": [8]}
    best = search(config(data, tmp_path, space, "--method", "grid"))
    results = read_results(tmp_path)
    assert [row["trial"] for row in results] == ["1", "0", "2", "3"]
    assert float(results[0]["valid_pcc"]) > float(results[1]["valid_pcc"])
    assert "fewer than one batch of 1000" in results[2]["error"] and not results[2]["valid_pcc"]
    assert "failed" in capsys.readouterr().out
    again = configuration.load(FuseConfig, best, ["--run", str(tmp_path / "again")])
    assert again.train.lr == 3.0e-2 and again.options == {"width": 8} and again.train.batch_size == 16
    metrics = yaml.safe_load((train(again) / "metrics.json").read_text())
    assert metrics["valid"]["pcc"]["mean"] == pytest.approx(float(results[0]["valid_pcc"]), abs=1e-6)


def test_best_configuration_is_repeated_with_other_seeds(data, tmp_path, started):
    space = {"train.lr": [1.0e-7, 3.0e-2], "options.width": [8]}
    search(config(data, tmp_path, space, "--method", "grid", "--repeat", "[3, 4]"))
    assert started == ["000", "001", "repeat_3", "repeat_4"]
    for seed in (3, 4):
        repeat = yaml.safe_load((tmp_path / "out" / "repeats" / str(seed) / "config.yaml").read_text())
        assert repeat["train"]["lr"] == 3.0e-2 and repeat["seed"] == seed
    with pytest.raises(UserError, match=r"--repeat \[3, 3\]: a seed occurs twice"):
        config(data, tmp_path, space, "--repeat", "[3, 3]")


def test_the_configuration_itself_is_the_first_trial_when_asked(data, tmp_path, started):
    space = {"train.lr": [1.0e-7], "options.width": [8, 16]}
    best = search(config(data, tmp_path, space, "--train.lr", "3e-2", "--trials", "2", "--first_as_given", "true"))
    results = {row["trial"]: row for row in read_results(tmp_path)}
    assert started == ["000", "001"] and results["0"]["train.lr"] == "as given" and results["1"]["train.lr"] == "1e-07"
    own = yaml.safe_load((tmp_path / "out" / "configs" / "000.yaml").read_text())
    assert own["train"]["lr"] == 3e-2 and own["options"] == {"width": 8}
    assert float(results["0"]["valid_pcc"]) > float(results["1"]["valid_pcc"])
    assert yaml.safe_load(best.read_text())["train"]["lr"] == 3e-2
    with pytest.raises(UserError, match="holds a search of other options"):
        search(config(data, tmp_path, space, "--train.lr", "3e-2", "--trials", "2"))


@pytest.mark.parametrize("name", MODELS.names())
def test_shipped_space_suits_every_system(data, tmp_path, name):
    given = ["--config", name, "--data", data, "--space", "systems", "--out", tmp_path]
    parsed = configuration.parse(SearchConfig, list(map(str, given)), prog="emit search", example="")
    space = read_space(parsed.space, parsed)
    FusionModel.build(
        name, {**parsed.options, "width": min(space["options.width"])}, FeatureSpec.of(synthetic_features.info())
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train.lr: {low: 1, high: 1e-4}", "low < high"),
        ("train.lr: {low: .nan, high: 1}", "low < high"),
        ("train.lr: {low: 1e-4, high: .inf}", "low < high"),
        ("train.lr: {low: '1e-4', high: 1}", "low < high"),
        ("train.lr: {low: true, high: 2}", "low < high"),
        ("train.lr: {low: 0, high: 1, log: yes}", "above 0 with log"),
        ("train.lr: {low: 1e-4, high: 1, log: maybe}", "low < high"),
        ("train.lr: {low: 1e-4, high: 200}", r"train.lr is 200.0: expected a number above 0 to 100"),
        ("train.lr: [1e-3, -1]", r"train.lr is -1.0: expected a number above 0 to 100"),
        ("train.lr: [1e-3, fast]", r"train.lr is fast: expected a number"),
        ("train.lr: [1e-3, 0.001]", "0.001 is listed twice"),
        ("train.lr: []", "give a list"),
        ("train.lr: 3", "give a list"),
        ("train.lrr: [1]", "did you mean 'lr'"),
        ("loss.memory: [-5]", "loss.memory is -5: expected a whole number from 0"),
        ("options.width: [8, 0]", "options.width is 0: expected a whole number from 1"),
        ("options.wdth: [8]", "concat has no option 'wdth': did you mean 'width'"),
        ("options.modalities: [[vision, tactile]]", r"options.modalities\[1\] is 'tactile': expected one of vision"),
        ("train.lr: [1]\ntrain.lr: [2]", "'train.lr' appears twice, in lines 1 and 2"),
        ("train.lr:\n\t- 1", "indent with spaces"),
        ("- 1", "give options and what they may be"),
        ("", "give options and what they may be"),
        ("train.lr: [1]  # caf\xe9", "not UTF-8"),
    ],
)
def test_impossible_space_is_one_line_before_any_trial(text, told, data, tmp_path, started):
    parsed = config(data, tmp_path, {})
    (tmp_path / "space.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=told) as refused:
        search(parsed)
    assert "\n" not in str(refused.value) and not started and not (tmp_path / "out").exists()


def test_space_reads_numbers_as_people_write_them(data, tmp_path):
    (tmp_path / "space.yaml").write_text("train.lr: {low: 1e-4, high: 3E-3, log: on}\nloss.memory: [0, 5]\n")
    space = read_space(tmp_path / "space.yaml", FuseConfig(data, tmp_path))
    assert space == {"train.lr": {"low": 1e-4, "high": 3e-3, "log": True}, "loss.memory": [0, 5]}
    assert draw(space, 0, 20) and all(1e-4 <= values["train.lr"] <= 3e-3 for values in draw(space, 0, 200))


def test_drawn_number_does_not_leave_its_range_when_it_is_rounded():
    ends = {"low": 0.000123456, "high": 0.000123457}
    assert all(ends["low"] <= values["a"] <= ends["high"] for values in draw({"a": ends}, 0, 2))


def test_search_without_successful_trial_is_an_error(data, tmp_path, started):
    space = {"train.lr": [1.0e-3], "train.batch_size": [1000]}
    with pytest.raises(UserError, match=r"no trial succeeded.*one batch of 1000"):
        search(config(data, tmp_path, space, "--method", "grid"))


def test_finished_trials_are_kept(data, tmp_path, started):
    space = {"train.lr": {"low": 1.0e-3, "high": 1.0e-2, "log": True}}
    search(config(data, tmp_path, space, "--trials", 2))
    first = {row["trial"]: row["train.lr"] for row in read_results(tmp_path)}
    assert started == ["000", "001"]
    search(config(data, tmp_path, space, "--trials", 3))
    assert started == ["000", "001", "002"]
    assert first.items() <= {row["trial"]: row["train.lr"] for row in read_results(tmp_path)}.items()


def test_folder_of_another_search_is_refused(tmp_path, started):
    space = {"train.lr": {"low": 1.0e-3, "high": 1.0e-2, "log": True}}
    counts = {"train": 16, "valid": 8}
    features = synthetic_features.write_features(tmp_path / "f", counts, views=0, seed=0)
    search(config(features, tmp_path, space, "--trials", 1))
    with pytest.raises(UserError, match="another --out"):
        search(config(features, tmp_path, space, "--trials", 2, "--seed", 1))
    shutil.rmtree(features)
    synthetic_features.write_features(features, counts, views=0, seed=1)  # other features at the same path
    with pytest.raises(UserError, match="other options, features, space or seed"):
        search(config(features, tmp_path, space, "--trials", 2))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train.lrr": [1]}, "no option 'train.lrr': did you mean 'lr'"),
        ({"run": ["x"]}, "no option 'run'"),
        ({"train.lr": {"low": 1, "high": 0.1}}, "low < high"),
        ({"train.lr": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"train.lr": 3}, "give a list"),
        ({}, "give options"),
    ],
)
def test_impossible_space_is_refused_in_one_line(space, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        search(config(data, tmp_path, space))


def test_no_trial_begins_once_the_search_ends(data, tmp_path):
    file = tmp_path / "out" / "configs" / "000.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"data": str(data), "run": str(tmp_path / "run")}))
    with trials.Trainings(threads=1) as trainings:
        trainings.terminate()
        assert "ended with status" in trials.run_trial(file, trainings)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stopped_search_resumes_in_real_processes(data, tmp_path):
    """From a folder with a package `shared` of its own, which no process may import."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text("raise ImportError('another package')")
    space = {"train.batch_size": [16, 1000], "train.epochs": [100]}
    command = emit_command("search", *arguments(data, tmp_path, space, "--method", "grid", "--train.patience", 100))
    where = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **where)
    log = tmp_path / "out" / "trials" / "000" / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    epochs = len(log.read_text().splitlines())
    assert not (tmp_path / "out" / "results.csv").exists() and epochs < 100
    done = subprocess.run(command, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    results = read_results(tmp_path)
    assert [row["trial"] for row in results] == ["0", "1"] and results[1]["error"]
    assert "continuing after epoch" in (tmp_path / "out" / "logs" / "000.txt").read_text()
