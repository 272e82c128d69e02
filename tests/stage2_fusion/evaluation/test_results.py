"""The files of an evaluation: they restore it exactly, and a changed table is noticed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.files import digest
from shared.metrics import DimensionScores
from stage2_fusion.commands.compare import CompareConfig, compare
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.evaluation.damage_detection import DamageDetection, DamagedPcc, DamagedViewScores, DamageReport
from stage2_fusion.evaluation.leak import LeakProbe
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import FoldPart, SeenClips

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 3))
LABELS[RNG.random(LABELS.shape) < 0.1] = np.nan
LABELS[:, 2] = np.nan
GOOD = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.3, LABELS.shape)
POOR = np.nan_to_num(LABELS, nan=0.5) + RNG.normal(0, 0.9, LABELS.shape)


def test_reading_restores_evaluation(tmp_path):
    scores = DimensionScores(0.5, {"d0": 0.5, "d1": None, "d2": None})
    report = DamageReport.of(DamageDetection(0.75, 3, {"blur": 0.75, "dark": None}), None, None)
    info = {
        "training_seed": [1, 2],
        "seen": SeenClips(3, 4),
        "seen_by_encoders": None,
        "ceiling": scores,
        "leak_probe": LeakProbe(scores, 0.25, {"subject": 0.0}),
        "damage": report,
        "damaged_on_purpose": DamagedViewScores(0.5, 0.4, 8, {"vision": DamagedPcc(0.5, 0.4, 8)}, report),
        "parts": [FoldPart("a.json", 20, 0.5, {"model_digest": "d"})],
        "sections": {"strength": 0.5},
    }
    path = write_evaluation(tmp_path / "a.json", GOOD, LABELS, **info)
    evaluation = read_evaluation(path)
    np.testing.assert_array_equal(evaluation.labels, LABELS.astype(np.float32))
    np.testing.assert_array_equal(evaluation.predictions, GOOD)
    assert all(getattr(evaluation.info, name) == value for name, value in info.items())
    assert evaluation.to_json() == json.loads(path.read_text())


def test_small_signals_survive_the_files(tmp_path):
    """What is not constant when it is scored is not constant when it is compared."""
    small = 0.5 + 4e-9 * np.nan_to_num(LABELS, nan=0.5)
    paths = [write_evaluation(tmp_path / name, x, LABELS) for name, x in (("a.json", small), ("b.json", GOOD))]
    again = read_evaluation(paths[0])
    assert again.mean_pcc == pytest.approx(1) and not again.scores.constant
    assert compare(CompareConfig(*paths, bootstrap=50)).mean.a == pytest.approx(1)


def test_predictions_of_six_digits_of_older_versions_are_read(tmp_path):
    path = write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    evaluation, content = read_evaluation(path), json.loads(path.read_text())
    table = tmp_path / "a_predictions.csv"
    header, *_ = table.read_text().splitlines()
    rows = [[f"{value:.6f}" for value in row] for row in evaluation.predictions]
    table.write_text("\n".join([header, *(",".join([i, *r]) for i, r in zip(evaluation.ids, rows, strict=True))]))
    content["predictions_digest"] = digest([evaluation.ids, rows])
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(read_evaluation(path).predictions, GOOD, atol=1e-6)


def test_changed_table_is_refused(tmp_path):
    a = write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    table = tmp_path / "a_labels.csv"
    text = table.read_text()
    table.write_text(text.replace(text.splitlines()[1].split(",")[2], "0.77"))
    with pytest.raises(UserError, match=r"a\.json: the tables beside it are of other clips or labels"):
        read_evaluation(a)
    write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    write_evaluation(tmp_path / "b.json", POOR, LABELS)
    (tmp_path / "b_predictions.csv").replace(tmp_path / "a_predictions.csv")  # another run on the same clips
    with pytest.raises(UserError, match=r"a\.json: the predictions beside it are not the scored ones"):
        read_evaluation(a)
    table.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        read_evaluation(a)
    a.write_text("{}")
    with pytest.raises(UserError, match="not an evaluation"):
        read_evaluation(a)


def test_missing_key_is_one_line(tmp_path):
    path = write_evaluation(tmp_path / "a.json", GOOD, LABELS)
    metrics = json.loads(path.read_text())
    for key in ("ccc", "model", "predictions_digest", "seeds"):
        path.write_text(json.dumps({name: value for name, value in metrics.items() if name != key}))
        with pytest.raises(UserError, match=r"a\.json: its tables are damaged .*; evaluate again"):
            read_evaluation(path)


def test_evaluation_given_twice_is_refused_whatever_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.linspace(0, 1, 20)
    for name, seed in (("a", 0), ("b", 1)):
        write_evaluation(tmp_path / f"{name}.json", rows * 0.9, rows, training_seed=seed)
    for table in ("_predictions.csv", "_labels.csv", ".json"):
        shutil.copy(f"a{table}", f"copy{table}")
        (tmp_path / f"link{table}").symlink_to(f"a{table}")
    for again in ("a.json", "./a.json", "copy.json", "link.json"):
        for run in (
            lambda path: compare(CompareConfig(Path("a.json"), path)),
            lambda path: ensemble(EnsembleConfig([Path("a.json"), Path("b.json"), path], Path("e.json"))),
            lambda path: merge_folds(MergeFoldsConfig([Path("a.json"), path], Path("m.json"))),
            lambda path: leaderboard(LeaderboardConfig(["ours=a.json", "ours=b.json", f"ours={path}"])),
        ):
            with pytest.raises(UserError, match=rf"{Path(again)}: the same evaluation as a.json; give each once"):
                run(Path(again))
    compare(CompareConfig(Path("a.json"), Path("b.json"), bootstrap=5))  # two seeds may predict the same
