"""`emit leaderboard`: seeds of one system, order, references, paired intervals, and notes about flattering scores."""

import csv

import numpy as np
import pytest
from helpers.synthetic_evaluations import fingerprint, write_evaluation

from shared.errors import UserError
from shared.metrics import DimensionScores, pcc
from shared.training.sampling import derive_seed
from stage2_fusion.commands.compare import main as compare
from stage2_fusion.commands.leaderboard import LeaderboardConfig, leaderboard, main
from stage2_fusion.evaluation.ensembling import CROSS_FITTED
from stage2_fusion.evaluation.leak import LeakProbe
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import SeenClips

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 2))


def noisy(noise):
    return LABELS + RNG.normal(0, noise, LABELS.shape)


def mean_pcc(predictions):
    return np.mean([pcc(predictions[:, k], LABELS[:, k]) for k in range(2)])


def build(*evaluations, **options):
    return leaderboard(LeaderboardConfig(list(map(str, evaluations)), **{"bootstrap": 5, **options}))


def row_of(board, system):
    return next(row for row in board.rows if row.system == system)


def drawn_rows(counts):
    """Rows of a bootstrap sample that draws group g counts[g] times; row i is in group i % 5."""
    return np.concatenate([np.flatnonzero(np.arange(40) % 5 == g) for g in range(5) for _ in range(counts[g])])


def test_seeds_are_averaged_and_best_system_comes_first(tmp_path, capsys):
    poor, good = noisy(1.0), [noisy(0.2), noisy(0.3)]
    references = {"ceiling": DimensionScores(0.97, {"d0": 0.96, "d1": 0.98})}
    references["leak_probe"] = LeakProbe(DimensionScores(0.05, {"d0": 0.0, "d1": 0.1}), 0.0, {})
    a = write_evaluation(tmp_path / "poor.json", poor, LABELS, model="concat")
    b = [
        write_evaluation(tmp_path / f"g{i}.json", x, LABELS, model="ours", training_seed=i, **references)
        for i, x in enumerate(good)
    ]
    out = [tmp_path / "board.md", tmp_path / "board.csv"]
    board = build(a, *b, out=out, bootstrap=40)
    assert [row.system for row in board.rows] == [
        "(ceiling of the labels)", "ours", "concat", "(labels of the nearest training transcript)"
    ]  # fmt: skip
    ours, concat = board.rows[1:3]
    each = [mean_pcc(x) for x in good]
    assert ours.seeds == 2 and ours.pcc == pytest.approx(np.mean(each), abs=1e-4)
    assert ours.sd == pytest.approx(np.std(each, ddof=1), abs=1e-4) and concat.sd is None
    assert ours.per_dimension["d1"] == pytest.approx(np.mean([pcc(x[:, 1], LABELS[:, 1]) for x in good]), abs=1e-4)
    draws = []
    for counts in np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=40):
        rows = drawn_rows(counts)
        draws.append(np.mean([pcc(x[rows, k], LABELS[rows, k]) for x in good for k in range(2)]))
    np.testing.assert_allclose(ours.interval, np.percentile(draws, [2.5, 97.5]), atol=1e-4)
    with out[1].open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["pcc"]) for row in table] == pytest.approx([row.pcc for row in board.rows], abs=1e-6)
    assert [row["low"] for row in table][1] == f"{ours.interval[0]:.6f}" and table[0]["seeds"] == ""
    assert out[0].read_text().splitlines()[3].startswith("| ours | 2 | ") and len(board.text()) == 5
    assert main([f"first={b[0]}", f"second={b[1]}"]) == 0
    assert "first" in capsys.readouterr().out


def test_cheap_baselines_head_the_table_whatever_they_score(tmp_path, capsys):
    noises = {"kernel ridge": 0.8, "dual_stage": 0.3, "ridge": 1.0, "concat": 2.0}
    paths = {
        name: write_evaluation(tmp_path / f"{name}.json", noisy(noise), LABELS, model=name)
        for name, noise in noises.items()
    }
    board = build(*paths.values(), against="dual_stage")
    assert [row.system for row in board.rows] == ["kernel ridge", "ridge", "dual_stage", "concat"]
    assert [row.baseline for row in board.rows] == [True, True, False, False] and board.rows[0].difference < 0
    assert [line.split("  ")[0] for line in board.text()[1:4]] == [
        "kernel ridge (baseline)", "ridge (baseline)", "dual_stage"
    ]  # fmt: skip
    assert compare([str(paths["dual_stage"]), str(paths["kernel ridge"]), "--bootstrap", "5"]) == 0
    assert "B is a cheap baseline, kernel ridge" in capsys.readouterr().out


def test_systems_are_named_after_differing_options(tmp_path):
    options = ({"width": 8, "modalities": ["text"]}, {"width": 8, "modalities": ["text", "audio"]})
    paths = [
        write_evaluation(tmp_path / f"{i}.json", noisy(0.5), LABELS, model="m", configuration=o, training_seed=i)
        for i, o in enumerate([*options, options[0]])
    ]
    paths.append(write_evaluation(tmp_path / "n.json", noisy(0.5), LABELS, model="n", configuration={"width": 8}))
    seeds = {row.system: row.seeds for row in build(*paths).rows}
    assert seeds == {"m modalities=text": 2, "m modalities=text+audio": 1, "n": 1}


def test_two_evaluations_of_one_seed_are_not_two_seeds(tmp_path):
    a, b = (write_evaluation(tmp_path / f"{i}.json", noisy(0.5), LABELS, training_seed=3) for i in "ab")
    with pytest.raises(UserError, match=r"a\.json and .*b\.json: both synthetic, of the same seed on the same clips"):
        build(a, b)
    assert {row.system: row.seeds for row in build(a, f"other={b}").rows} == {"synthetic": 1, "other": 1}
    fold = write_evaluation(tmp_path / "f.json", noisy(0.5)[:30], LABELS[:30], training_seed=3)
    assert len(build(a, fold).rows) == 1


@pytest.fixture(params=["this version", "an earlier version, without fingerprints"])
def two_corpora(request, tmp_path):
    """Systems a and b, each with one seed on each of two corpora of 40 clips in 5 groups: NAME=PATH of the evaluations,
    labels by corpus, predictions by (system, corpus)."""
    labels = [RNG.random((40, 2)), RNG.random((40, 2))]
    labels[0][:4] = labels[1][2:6] = 0  # both corpora use the same names, and rows of zeros are equal
    arguments, predictions = [], {}
    names = [[f"corpus {i}, clip {row}" for row in range(40)] for i in range(2)]
    prints = [np.stack(list(map(fingerprint, each))) for each in names]  # (40, 3) each
    if request.param != "this version":
        prints = [np.zeros_like(each) for each in prints]
    for system, noise in (("a", 0.3), ("b", 0.5)):
        for i, truth in enumerate(labels):
            predictions[system, i] = np.float32(truth + RNG.normal(0, noise, truth.shape)).round(6)
            path = tmp_path / f"{system}{i}.json"
            write_evaluation(path, predictions[system, i], truth, training_seed=i, fingerprints=prints[i])
            arguments.append(f"{system}={path}")
    return arguments, [np.float32(truth) for truth in labels], predictions


def test_seeds_on_own_clips_have_joint_interval_and_paired_difference(two_corpora, tmp_path):
    arguments, labels, predictions = two_corpora
    out = tmp_path / "board.csv"
    board = build(*arguments, out=[out], against="b", bootstrap=60)
    draws = {"a": np.zeros(60), "b": np.zeros(60)}
    for i in range(2):
        digests = read_evaluation(tmp_path / f"a{i}.json").digests
        rng = np.random.default_rng(derive_seed("clips", 0, *digests))
        for r, counts in enumerate(rng.multinomial(5, np.full(5, 0.2), size=60)):
            rows = drawn_rows(counts)
            for system in "ab":
                each = [pcc(predictions[system, i][rows, k], labels[i][rows, k]) for k in range(2)]
                draws[system][r] += np.mean(each) / 2
    a, b = row_of(board, "a"), row_of(board, "b")
    np.testing.assert_allclose(a.interval, np.percentile(draws["a"], [2.5, 97.5]), atol=1e-4)
    np.testing.assert_allclose(a.difference_interval, np.percentile(draws["a"] - draws["b"], [2.5, 97.5]), atol=1e-4)
    assert a.difference == pytest.approx(a.pcc - b.pcc) and b.difference is None
    assert f"{a.difference:+.3f} (" in board.text()[1]
    with out.open() as file:
        table = list(csv.DictReader(file))
    assert float(table[0]["difference_low"]) == pytest.approx(a.difference_interval[0], abs=1e-6)


def test_difference_has_interval_only_on_the_same_clips(two_corpora, tmp_path):
    arguments, *_ = two_corpora
    one_corpus = build(*arguments[:2], arguments[2], against="b")
    assert row_of(one_corpus, "a").difference_interval is None
    once = [f"once={tmp_path / 'a0.json'}", f"once={tmp_path / 'a1.json'}"]
    twice = build(*arguments, *once, against="once")
    assert row_of(twice, "a").difference_interval == pytest.approx([0, 0])
    with pytest.raises(UserError, match="--against c: no such system; there are a, b"):
        build(*arguments, against="c")


def test_partly_shared_clips_have_no_interval(tmp_path):
    a = [write_evaluation(tmp_path / f"a{n}.json", noisy(0.5)[:n], LABELS[:n]) for n in (40, 30)]
    b = write_evaluation(tmp_path / "b.json", noisy(0.5), LABELS)
    row = row_of(build(f"a={a[0]}", f"a={a[1]}", f"b={b}", against="b"), "a")
    assert row.interval is None and row.difference_interval is None and row.seeds == 2


def test_flattering_scores_are_noted(tmp_path):
    a = write_evaluation(tmp_path / "a.json", noisy(0.5), LABELS, seen=SeenClips(3, 0))
    b = write_evaluation(tmp_path / "b.json", noisy(0.5)[:30], LABELS[:30], seen=SeenClips(0, 3))
    notes = build(f"a={a}", f"b={b}").notes
    assert "Not all systems were scored on the same clips: their rows do not compare." in notes
    assert "a: was trained on clips it is scored on" in notes and "b: was chosen by clips it is scored on" in notes
    c = write_evaluation(tmp_path / "c.json", noisy(0.5), LABELS, made_from={"weights": {"fit": CROSS_FITTED}})
    d = write_evaluation(tmp_path / "d.json", noisy(0.6), LABELS, seen_by_encoders=None, unknown_training="no record")
    e = write_evaluation(tmp_path / "e.json", noisy(0.6), LABELS, seen_by_encoders=0)
    notes = build(f"c={c}", f"d={d}", f"e={e}").notes
    assert "c: its weights were learned on the clips it is scored on, for each group on the others" in notes
    assert "d: not known whether it was trained on scored clips: no record" in notes
    assert not any(note.startswith("e:") for note in notes)


def test_other_file_types_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"written as \.md or \.csv"):
        build(tmp_path / "a.json", out=[tmp_path / "board.txt"])
