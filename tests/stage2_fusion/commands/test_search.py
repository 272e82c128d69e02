"""`emit search`: what is drawn, what is run, what is kept."""

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
from stage2_fusion import train as trainer
from stage2_fusion.commands import search as searching
from stage2_fusion.config import FuseConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return synthetic_features.write_features(
        tmp_path_factory.mktemp("features") / "f", {"train": 32, "valid": 16}, views=0
    )


def arguments(data, folder, space: dict, *more) -> list[str]:
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    (folder / "base.yaml").write_text(
        yaml.safe_dump(
            {"model": "concat", "options": {"width": 8}, "train": {"epochs": 1, "batch_size": 16, "trackers": []}}
        )
    )
    words = ["--config", folder / "base.yaml", "--data", data, "--space", folder / "space.yaml"]
    return [str(word) for word in (*words, "--out", folder / "out", *more)]


def config(*given) -> searching.SearchConfig:
    one = arguments(*given, "--workers", 1)  # trials in this process share torch's generator
    return configuration.parse(searching.SearchConfig, one, prog="emit search", example="")


@pytest.fixture
def started(monkeypatch):
    """Trials run in this process, one after the other; gives the names of those that were started."""
    names = []

    def run(file, threads, running):
        run_folder = Path(yaml.safe_load(file.read_text())["run"])
        if not (run_folder / "metrics.json").exists():
            names.append(file.stem)
            try:
                trainer.train(configuration.load(FuseConfig, file))
            except UserError as error:
                return str(error)
        return ""

    monkeypatch.setattr(searching, "run_trial", run)
    return names


def rows(folder) -> list[dict]:
    with (folder / "out" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_draws_lie_in_the_space_and_never_repeat():
    space = {"a": {"low": 1e-4, "high": 1e-1, "log": True}, "b": {"low": 2, "high": 4}, "c": ["x", "y"]}
    drawn = [values for values, _ in zip(searching.draws(space, "random", 3), range(300), strict=False)]
    assert drawn[:5] == [values for values, _ in zip(searching.draws(space, "random", 3), range(5), strict=False)]
    assert drawn[:5] != [values for values, _ in zip(searching.draws(space, "random", 4), range(5), strict=False)]
    assert all(1e-4 <= values["a"] <= 1e-1 for values in drawn)
    small = sum(values["a"] < 10**-2.5 for values in drawn)
    assert 120 < small < 180  # even in the logarithm: half lie below the middle
    thirds = [sum(values["b"] == b for values in drawn) for b in (2, 3, 4)]
    assert sum(thirds) == 300 and min(thirds) > 70
    assert len(list(searching.draws({"b": {"low": 2, "high": 4}, "c": ["x", "y"]}, "random", 0))) == 6


def test_a_grid_is_every_combination_in_order():
    grid = searching.draws({"a": [1, 2], "b": ["x", "y"]}, "grid", 0)
    assert [(v["a"], v["b"]) for v in grid] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    with pytest.raises(UserError, match="b is a range"):
        list(searching.draws({"b": {"low": 1, "high": 2}}, "grid", 0))


def test_the_best_comes_first_and_its_file_trains_the_same(data, tmp_path, started, capsys):
    space = {"train.lr": [1.0e-7, 3.0e-2], "options.nonsense": [1]}
    with pytest.raises(UserError, match=r"no trial came through.*nonsense"):
        searching.search(config(data, tmp_path, space, "--method", "grid", "--trials", 1))
    (tmp_path / "a").mkdir()
    space = {"train.lr": [1.0e-7, 3.0e-2, -1.0], "options.width": [8]}
    best = searching.search(config(data, tmp_path / "a", space, "--method", "grid"))
    found = rows(tmp_path / "a")
    assert [row["trial"] for row in found] == ["1", "0", "2"]
    assert float(found[0]["valid_pcc"]) > float(found[1]["valid_pcc"])
    assert "must be above 0" in found[2]["error"] and not found[2]["valid_pcc"]
    assert "failed" in capsys.readouterr().out
    again = configuration.load(FuseConfig, best, ["--run", str(tmp_path / "again")])
    assert again.train.lr == 3.0e-2 and again.options == {"width": 8} and again.train.batch_size == 16
    log = yaml.safe_load((trainer.train(again) / "metrics.json").read_text())
    assert log["valid"]["pcc"]["mean"] == pytest.approx(float(found[0]["valid_pcc"]), abs=1e-6)


def test_finished_trials_are_kept_and_another_search_is_refused(data, tmp_path, started):
    space = {"train.lr": {"low": 1.0e-3, "high": 1.0e-2, "log": True}}
    searching.search(config(data, tmp_path, space, "--trials", 2))
    first = {row["trial"]: row["train.lr"] for row in rows(tmp_path)}
    assert started == ["000", "001"]
    searching.search(config(data, tmp_path, space, "--trials", 3))
    assert started == ["000", "001", "002"]
    assert first.items() <= {row["trial"]: row["train.lr"] for row in rows(tmp_path)}.items()
    with pytest.raises(UserError, match="another --out"):
        searching.search(config(data, tmp_path, space, "--trials", 3, "--seed", 1))
    counts = {"train": 16, "valid": 8}
    mine = synthetic_features.write_features(tmp_path / "f", counts, views=0, seed=0)
    (tmp_path / "moved").mkdir()
    searching.search(config(mine, tmp_path / "moved", space, "--trials", 1))
    shutil.rmtree(mine)
    synthetic_features.write_features(mine, counts, views=0, seed=1)  # other features at the same place
    with pytest.raises(UserError, match="other options, features, space or seed"):
        searching.search(config(mine, tmp_path / "moved", space, "--trials", 2))


@pytest.mark.parametrize(
    "space, said",
    [
        ({"train.lrr": [1]}, "no option 'train.lrr': did you mean 'lr'"),
        ({"run": ["x"]}, "no option 'run'"),
        ({"train.lr": {"low": 1, "high": 0.1}}, "low < high"),
        ({"train.lr": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"train.lr": 3}, "give a list"),
        ({}, "give options"),
    ],
)
def test_a_space_that_is_none_is_one_line(space, said, data, tmp_path):
    with pytest.raises(UserError, match=said):
        searching.search(config(data, tmp_path, space))


@pytest.mark.slow
def test_real_processes_a_stop_and_a_failed_trial(data, tmp_path):
    space = {"options.width": [8, -1], "train.epochs": [100]}
    words = arguments(data, tmp_path, space, "--method", "grid", "--train.patience", 100)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = emit_command("search", *words)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    log = tmp_path / "out" / "trials" / "000" / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    before = len(log.read_text().splitlines())
    assert not (tmp_path / "out" / "results.csv").exists() and before < 100
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path)
    assert [row["trial"] for row in found] == ["0", "1"] and found[1]["error"]
    assert "continuing after epoch" in (tmp_path / "out" / "logs" / "000.txt").read_text()
