"""Scores of the clips whose people and seed videos training has not met, in every table."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import write_evaluation

from shared.dataset.clip_dataset import ClipDataset
from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions
from shared.pipeline.ending import score_lines
from stage2_fusion.commands.baseline import main as baseline
from stage2_fusion.commands.ensemble import EnsembleConfig, ensemble
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, merge_folds
from stage2_fusion.data.encoder_training import EncoderTraining
from stage2_fusion.data.features import write
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import Unmet
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.evaluation.unmet import find_unmet
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig, TrainedOn

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 2))
KINDS = ["subject", "seed"]
UNMET = Unmet(KINDS, [i % 4 == 0 for i in range(40)])
"""Ten of the clips c000 to c039, of the groups s0 to s4."""
ROWS = np.arange(0, 40, 4)


def write_scores(path, seed, unmet=UNMET, labels=LABELS, **options):
    noise = np.random.default_rng(seed).normal(0, 0.3, labels.shape)
    return write_evaluation(path, labels + noise, labels, unmet=unmet, **options)


def by_hand(evaluation, rows):
    return np.mean([np.corrcoef(evaluation.predictions[rows, k], evaluation.labels[rows, k])[0, 1] for k in range(2)])


def test_clip_is_unmet_if_none_of_its_groups_is_met():
    def clip(subject, seed):
        return {"subject": subject, "seed": seed}

    met = [clip("a", "x"), clip("b", "y")]
    scored = [clip("c", "z"), clip("a", "z"), clip("c", "y"), clip("", "z"), clip("c", ""), clip("z", "a")]
    assert find_unmet(KINDS, scored, met) == Unmet(KINDS, [True, False, False, False, False, True])
    assert find_unmet(["subject"], scored, met) == Unmet(["subject"], [True, False, True, False, True, True])
    assert find_unmet(KINDS, scored, [*met, clip("d", "")]) is None  # of whom nobody knows what they saw
    assert find_unmet(["subject"], scored, [*met, clip("d", "")]) is not None
    assert find_unmet([], scored, met) is None


def test_every_table_shows_the_score_on_unmet_groups(tmp_path):
    a, b = write_scores(tmp_path / "a.json", 1), write_scores(tmp_path / "b.json", 2)
    first, second = read_evaluation(a), read_evaluation(b)
    metrics = json.loads(a.read_text())
    assert first.unmet == UNMET and first.to_json() == metrics
    groups = np.array([f"s{i % 5}" for i in ROWS])

    def draws(evaluation, resamples):
        return mean_over_dimensions(
            bootstrap_pcc(evaluation.predictions[ROWS], evaluation.labels[ROWS], groups, resamples, 0)
        )

    mean, ends = by_hand(first, ROWS), interval(draws(first, 50))
    assert metrics["unmet"]["kinds"] == KINDS and metrics["unmet"]["groups"] == 5 and metrics["unmet"]["why"] == ""
    assert metrics["unmet"]["pcc"]["mean"] == pytest.approx(mean) and metrics["unmet"]["pcc"]["n"] == 10
    assert metrics["unmet"]["pcc"]["interval"] == pytest.approx(ends)
    text = "{:.3f}, 95 % interval {:.3f} to {:.3f} (5 groups".format(mean, *ends)
    assert f"10 clips of unmet subject and seed; mean PCC {text}" in score_table(first)
    shown = "  on 10 clips of unmet subject and seed: {:.3f}   95 % interval {:.3f} to {:.3f}".format(mean, *ends)
    lines = list(score_lines(metrics))
    assert lines[lines.index(shown) - 1].startswith("  mean ")

    out = tmp_path / "board.csv"
    board = leaderboard(LeaderboardConfig([f"a={a}", f"b={b}", f"all={a}", f"all={b}"], [out], bootstrap=100))
    rows = {row.system: row.unmet for row in board.rows}
    assert rows["a"].pcc == pytest.approx(mean) and rows["a"].interval == pytest.approx(ends)
    assert rows["all"].pcc == pytest.approx((mean + by_hand(second, ROWS)) / 2)
    assert rows["all"].interval == pytest.approx(interval((draws(first, 100) + draws(second, 100)) / 2))
    assert "unmet subject and seed" in board.text()[0] and "{:.3f} ({:.3f} to {:.3f})".format(mean, *ends) in (
        board.markdown()
    )
    with out.open(newline="") as file:
        cells = {row["system"]: row for row in csv.DictReader(file)}["a"]
    assert float(cells["unmet"]) == pytest.approx(mean, abs=1e-6) and cells["unmet_clips"] == "10"
    assert float(cells["unmet_low"]) == pytest.approx(ends[0], abs=1e-6) and float(cells["d0"]) != float(cells["d1"])


@pytest.mark.parametrize("rows", [[True] * 40, [False] * 40, None], ids=["all", "none", "not known"])
def test_tables_are_silent_where_all_clips_are_unmet_or_none(tmp_path, rows):
    path = write_scores(tmp_path / "a.json", 1, rows and Unmet(KINDS, rows))
    evaluation = read_evaluation(path)
    assert evaluation.unmet == (rows and Unmet(KINDS, rows)) and "unmet" not in json.loads(path.read_text())
    assert "unmet" not in score_table(evaluation) and "unmet" not in "".join(score_lines(evaluation.to_json()))
    assert "unmet" not in leaderboard(LeaderboardConfig([f"a={path}"])).text()[0]


def test_what_unmet_clips_cannot_tell_is_said(tmp_path):
    two = Unmet(KINDS, [i < 2 for i in range(40)])
    path = write_scores(tmp_path / "a.json", 1, two)
    reason = "2 labeled clips, where a correlation needs 3"
    assert f"2 clips of unmet subject and seed; no PCC: {reason}" in score_table(read_evaluation(path))
    lines = score_lines(json.loads(path.read_text()))
    assert f"  on 2 clips of unmet subject and seed: n/a   {reason}" in lines
    assert "n/a" in leaderboard(LeaderboardConfig([f"a={path}"])).text()[1]
    equal = LABELS.copy()
    equal[ROWS, 1] = 0.5
    part = score_table(read_evaluation(write_scores(tmp_path / "b.json", 1, labels=equal)))
    assert "10 clips of unmet" in part and "over 1 of 2 dimensions" in part


def test_ensemble_has_met_what_a_member_has_and_folds_keep_their_own(tmp_path):
    other = Unmet(KINDS, [i % 8 == 0 or i == 1 for i in range(40)])
    a, b = write_scores(tmp_path / "a.json", 1), write_scores(tmp_path / "b.json", 2, other)
    both = ensemble(EnsembleConfig([a, b], tmp_path / "e.json", bootstrap=0))
    assert both.unmet.rows == [i % 8 == 0 for i in range(40)] and "5 clips of unmet" in score_table(both)
    learned = EnsembleConfig([a, b], tmp_path / "r.json", method="ridge", bootstrap=0)
    assert ensemble(learned).unmet is None  # its weights have met further clips
    c = write_scores(tmp_path / "c.json", 3, other, ids=[f"b{i:03d}" for i in range(40)])
    merged = merge_folds(MergeFoldsConfig([a, c], tmp_path / "m.json", bootstrap=0))
    assert merged.ids[0] == "b000" and merged.unmet.rows == [*other.rows, *UNMET.rows]
    d = write_scores(tmp_path / "d.json", 3, None, ids=[f"d{i:03d}" for i in range(40)])
    assert merge_folds(MergeFoldsConfig([a, d], tmp_path / "n.json", bootstrap=0)).unmet is None


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """Features of 30 training, 10 validation and 20 test clips, of which test000 to test007 show seed videos of their
    own, and test000 to test002 a person that the encoders, trained on test019 too, have met."""
    samples = list(synthetic_features.samples({"train": 30, "valid": 10, "test": 20}, views=0))
    for row, each in enumerate(samples):
        number, test = int(each.id[-3:]), each.split == "test"
        person = (
            f"{each.split}{number % 5}" if not test else f"test{0 if number < 3 or number == 19 else 1 + number % 4}"
        )
        samples[row] = replace(each, groups={"subject": person, "seed": f"own{number}" if test and number < 8 else "v"})
    folder = tmp_path_factory.mktemp("unmet")
    for name, seen in (("plain", []), ("seen", ["test019"])):
        about = synthetic_features.info(views=0, group_names=KINDS, encoder_training=EncoderTraining(seen))
        write(folder / name, samples, about)
    return folder


@pytest.mark.parametrize(("features", "first"), [("plain", 0), ("seen", 3)])
def test_model_and_baseline_know_which_clips_they_have_not_met(crossed, tmp_path, features, first):
    """What encoders have met counts too."""
    rows = list(range(first, 8))
    data = crossed / features
    assert baseline(["--data", str(data), "--out", str(tmp_path / "ridge.json"), "--bootstrap", "20"]) == 0
    ridge = read_evaluation(tmp_path / "ridge.json")
    assert ridge.unmet == Unmet(KINDS, [i in rows for i in range(20)])
    assert ridge.to_json()["unmet"]["pcc"]["mean"] == pytest.approx(by_hand(ridge, rows))

    info = synthetic_features.info(views=0, group_names=KINDS)
    for trained, chosen, expected in (
        ([f"train{i:03d}" for i in range(30)], ["valid000"], rows),
        (["train000", "test000"], [], [3, 4, 5, 6, 7]),  # its person is that of 1 and 2
        (["elsewhere"], [], None),
    ):
        trained_on = TrainedOn(data=info.data.digest, clips=trained, chosen_on=chosen)
        config = FusionConfig.from_features(
            info, model="concat", options={"width": 8}, max_sequence_steps=32, trained_on=trained_on
        )
        model = FusionModel.build(config.model, config.options, FeatureSpec.of(info))
        model.save_pretrained(tmp_path / "model", config, {})
        evaluation = evaluate(EvaluateConfig(tmp_path / "model", data, out=tmp_path / "m.json", bootstrap=0))
        assert evaluation.unmet == (None if expected is None else Unmet(KINDS, [i in expected for i in range(20)]))


def test_media_baseline_knows_which_clips_it_has_not_met(clips, tmp_path):
    splits = ["--train_split", "test", "--split", "train"]  # few clips are met, so that most are not
    out = ["--out", str(tmp_path / "media.json"), "--bootstrap", "0"]
    assert baseline(["--data", str(clips), *splits, *out]) == 0
    data = ClipDataset.open(clips)
    table = list(zip(*(data.column(name) for name in ("id", "split", "group_subject", "group_seed")), strict=True))
    met = {group for _, split, *groups in table if split != "train" for group in groups}
    expected = [not met & set(groups) for _, split, *groups in sorted(table) if split == "train"]
    evaluation = read_evaluation(tmp_path / "media.json")
    assert evaluation.unmet == Unmet(KINDS, expected) and 0 < sum(expected) < len(expected)
