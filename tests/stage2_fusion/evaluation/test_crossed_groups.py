"""Intervals over people and seed videos at once, in every table, where clips of one video are of several people."""

import csv

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions
from stage2_fusion.commands.compare import CompareConfig, compare
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.evaluation.comparison import comparison_table
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.scoring import crossed_kind, score_table

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 2))
PEOPLE, VIDEOS = [f"s{i % 8}" for i in range(40)], [f"v{i % 5}" for i in range(40)]


def write(path, seed, **options):
    noise = np.random.default_rng(seed).normal(0, 0.3, LABELS.shape)
    return write_evaluation(path, LABELS + noise, LABELS, groups=PEOPLE, crossed=VIDEOS, **options)


def test_kind_is_crossed_where_both_have_groups_in_several_of_the_other():
    people, videos = ["a", "a", "b", "b"], ["x", "y", "x", "z"]
    sessions, own = ["a1", "a2", "b1", "b1"], ["1", "2", "3", "4"]
    groups = {"subject": people, "session": sessions, "clip": own, "seed": videos}
    assert crossed_kind(groups, "subject") == "seed" and crossed_kind(groups, "seed") == "subject"
    assert crossed_kind({"subject": people, "session": sessions}, "subject") is None  # sessions lie within people
    assert crossed_kind({"subject": people, "seed": ["x", "", "", "z"]}, "subject") is None
    assert crossed_kind(groups, None) is None


def test_every_table_shows_both_intervals(tmp_path):
    a, b = write(tmp_path / "a.json", 1), write(tmp_path / "b.json", 2)
    first, second = read_evaluation(a), read_evaluation(b)
    assert first.crossed == VIDEOS and first.info.crossed_group == "seed" and first.scores.crossed.groups == 5

    def draws(evaluation, resamples, seed=0):
        data = evaluation.predictions, evaluation.labels, np.array(PEOPLE)
        return mean_over_dimensions(bootstrap_pcc(*data, resamples, seed, np.array(VIDEOS)))

    expected = interval(draws(first, 50))
    assert first.scores.crossed.interval == pytest.approx(expected)
    line = "95 % interval over subject (8) and seed (5) at once: {:.3f} to {:.3f}".format(*expected)
    assert line in score_table(first)

    comparison = compare(CompareConfig(a, b, bootstrap=100))
    assert comparison.mean.crossed_interval == pytest.approx(interval(draws(first, 100) - draws(second, 100)))
    assert "over groups and seed at once: 95 % interval" in comparison_table(comparison)

    out = tmp_path / "board.csv"
    board = leaderboard(LeaderboardConfig([f"a={a}", f"b={b}"], [out], against="b", bootstrap=100))
    row = next(row for row in board.rows if row.system == "a")
    assert row.crossed_interval == first.scores.crossed.interval
    assert row.difference_crossed == pytest.approx(comparison.mean.crossed_interval)
    assert "both kinds of groups" in board.text()[0] and "(both: " in board.markdown()
    with out.open(newline="") as file:
        cells = next(row for row in csv.DictReader(file) if row["system"] == "a")
    assert float(cells["crossed_low"]) == pytest.approx(expected[0], abs=1e-6)
    assert float(cells["difference_crossed_high"]) == pytest.approx(row.difference_crossed[1], abs=1e-6)
    seeds = leaderboard(LeaderboardConfig([f"a={a}", f"a={b}"], bootstrap=100)).rows[0]
    assert seeds.crossed_interval == pytest.approx(interval((draws(first, 100) + draws(second, 100)) / 2))

    both = ensemble(EnsembleConfig([a, b], tmp_path / "e.json", bootstrap=50))
    assert both.info.crossed_group == "seed" and both.scores.crossed.interval
    c = write(tmp_path / "c.json", 3, ids=[f"d{i:03d}" for i in range(40)])
    assert merge_folds(MergeFoldsConfig([a, c], tmp_path / "m.json", bootstrap=50)).crossed == [*VIDEOS, *VIDEOS]


def test_tables_without_a_second_kind_stay_as_they_are(tmp_path):
    a = write_evaluation(tmp_path / "a.json", LABELS, LABELS, groups=PEOPLE)
    assert read_evaluation(a).scores.crossed is None and "at once" not in score_table(read_evaluation(a))
    board = leaderboard(LeaderboardConfig([f"a={a}"], bootstrap=20))
    assert "both kinds of groups" not in board.text()[0]
    mixed = merge_folds(
        MergeFoldsConfig([a, write(tmp_path / "b.json", 2, ids=[f"d{i:03d}" for i in range(40)])], tmp_path / "m.json")
    )
    assert mixed.scores.crossed is None
