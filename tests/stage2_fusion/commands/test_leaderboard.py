"""The table: seeds put together, the best first, references between, and words about scores that flatter."""

import csv

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from shared.errors import UserError
from shared.metrics import pcc
from shared.training.sampling import derive_seed
from stage2_fusion.commands.ensemble import LEARNED_HERE
from stage2_fusion.commands.evidence_config import LeaderboardConfig
from stage2_fusion.commands.leaderboard import leaderboard, main
from stage2_fusion.evaluation.results import read

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 2))


def noisy(noise):
    return LABELS + RNG.normal(0, noise, LABELS.shape)


def mean_pcc(predictions):
    return np.mean([pcc(predictions[:, k], LABELS[:, k]) for k in range(2)])


def test_seeds_are_put_together_and_the_best_comes_first(tmp_path, capsys):
    poor, good = noisy(1.0), [noisy(0.2), noisy(0.3)]
    about = {"ceiling": {"mean": 0.97, "per_dimension": {"d0": 0.96, "d1": 0.98}}}
    about["leak_probe"] = {"pcc": {"mean": 0.05, "per_dimension": {"d0": 0.0, "d1": 0.1}}}
    a = write_evaluation(tmp_path / "poor.json", poor, LABELS, model="concat")
    b = [
        write_evaluation(tmp_path / f"g{i}.json", x, LABELS, model="ours", seeds={"training": i}, **about)
        for i, x in enumerate(good)
    ]
    out = [tmp_path / "board.md", tmp_path / "board.csv"]
    rows, text = leaderboard(LeaderboardConfig([str(a), *map(str, b)], out, bootstrap=40))
    assert [row["system"] for row in rows] == [
        "(ceiling of the labels)", "ours", "concat", "(labels of the nearest training transcript)"
    ]  # fmt: skip
    each = [mean_pcc(x) for x in good]
    assert rows[1]["seeds"] == 2 and rows[1]["pcc"] == pytest.approx(np.mean(each), abs=1e-4)
    assert rows[1]["sd"] == pytest.approx(np.std(each, ddof=1), abs=1e-4) and rows[2]["sd"] is None
    assert rows[1]["per_dimension"]["d1"] == pytest.approx(
        np.mean([pcc(x[:, 1], LABELS[:, 1]) for x in good]), abs=1e-4
    )
    draws = []
    for counts in np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=40):
        chosen = np.concatenate([np.flatnonzero(np.arange(40) % 5 == g) for g in range(5) for _ in range(counts[g])])
        draws.append(np.mean([pcc(x[chosen, k], LABELS[chosen, k]) for x in good for k in range(2)]))
    np.testing.assert_allclose([rows[1]["low"], rows[1]["high"]], np.percentile(draws, [2.5, 97.5]), atol=1e-4)
    with out[1].open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["pcc"]) for row in table] == pytest.approx([row["pcc"] for row in rows], abs=1e-6)
    assert out[0].read_text().splitlines()[3].startswith("| ours | 2 | ") and len(text) == 5
    assert main([f"first={b[0]}", f"second={b[1]}"]) == 0
    assert "first" in capsys.readouterr().out


def test_systems_are_called_after_the_options_in_which_they_differ(tmp_path):
    options = ({"width": 8, "modalities": ["text"]}, {"width": 8, "modalities": ["text", "audio"]})
    paths = [
        write_evaluation(tmp_path / f"{i}.json", noisy(0.5), LABELS, model="m", configuration=o, seeds={"training": i})
        for i, o in enumerate([*options, options[0]])
    ]
    paths.append(write_evaluation(tmp_path / "n.json", noisy(0.5), LABELS, model="n", configuration={"width": 8}))
    rows, _ = leaderboard(LeaderboardConfig(list(map(str, paths)), bootstrap=5))
    found = {row["system"]: row["seeds"] for row in rows}
    assert found == {"m modalities=text": 2, "m modalities=text+audio": 1, "n": 1}


def test_two_of_one_seed_are_not_two_seeds(tmp_path):
    a, b = (write_evaluation(tmp_path / f"{i}.json", noisy(0.5), LABELS, seeds={"training": 3}) for i in "ab")
    with pytest.raises(UserError, match=r"a\.json and .*b\.json: both made_up, of the same seed on the same clips"):
        leaderboard(LeaderboardConfig([str(a), str(b)]))
    rows, _ = leaderboard(LeaderboardConfig([str(a), f"other={b}"], bootstrap=5))
    assert {row["system"]: row["seeds"] for row in rows} == {"made_up": 1, "other": 1}
    fold = write_evaluation(tmp_path / "f.json", noisy(0.5)[:30], LABELS[:30], seeds={"training": 3})
    assert len(leaderboard(LeaderboardConfig([str(a), str(fold)], bootstrap=5))[0]) == 1


def test_seeds_on_clips_of_their_own_have_a_joint_interval_and_a_paired_difference(tmp_path):
    """Two corpora of 40 clips in 5 groups each; groups of each are drawn by themselves, and alike for both systems."""
    labels = [RNG.random((40, 2)), RNG.random((40, 2))]
    labels[0][:4] = labels[1][2:6] = 0  # corpora name their clips alike, and rows of zeros are alike
    given, predicted = [], {}
    for system, noise in (("a", 0.3), ("b", 0.5)):
        for i, truth in enumerate(labels):
            predicted[system, i] = np.float32(truth + RNG.normal(0, noise, truth.shape)).round(6)
            path = tmp_path / f"{system}{i}.json"
            given.append(f"{system}={write_evaluation(path, predicted[system, i], truth, seeds={'training': i})}")
    out = tmp_path / "board.csv"
    rows, text = leaderboard(LeaderboardConfig(given, [out], against="b", bootstrap=60))
    truth = [np.float32(x) for x in labels]
    clips = [read(tmp_path / f"a{i}.json").metrics["clips"] for i in range(2)]
    draws = {"a": np.zeros(60), "b": np.zeros(60)}
    for i, about in enumerate(clips):
        seed = derive_seed("clips", 0, *(about[key] for key in ("digest", "labels_digest", "groups_digest")))
        for r, counts in enumerate(np.random.default_rng(seed).multinomial(5, np.full(5, 0.2), size=60)):
            chosen = np.concatenate(
                [np.flatnonzero(np.arange(40) % 5 == g) for g in range(5) for _ in range(counts[g])]
            )
            for system in "ab":
                one = [pcc(predicted[system, i][chosen, k], truth[i][chosen, k]) for k in range(2)]
                draws[system][r] += np.mean(one) / 2
    row = next(row for row in rows if row["system"] == "a")
    np.testing.assert_allclose([row["low"], row["high"]], np.percentile(draws["a"], [2.5, 97.5]), atol=1e-4)
    np.testing.assert_allclose(
        row["difference_interval"], np.percentile(draws["a"] - draws["b"], [2.5, 97.5]), atol=1e-4
    )
    fewer = leaderboard(LeaderboardConfig([*given[:2], f"b={tmp_path / 'b0.json'}"], against="b", bootstrap=5))[0]
    assert next(row for row in fewer if row["system"] == "a")["difference_interval"] is None  # b is of one corpus alone
    twice = [*given, f"once={tmp_path / 'a0.json'}", f"once={tmp_path / 'a1.json'}", *given[:2]]
    again = leaderboard(LeaderboardConfig(twice, against="once", bootstrap=5))[0]
    assert next(row for row in again if row["system"] == "a")["difference_interval"] == pytest.approx([0, 0])
    other = next(row for row in rows if row["system"] == "b")
    assert row["difference"] == pytest.approx(row["pcc"] - other["pcc"]) and "difference" not in other
    assert f"{row['difference']:+.3f} (" in text[1]
    with out.open() as file:
        table = list(csv.DictReader(file))
    assert float(table[0]["difference_low"]) == pytest.approx(row["difference_interval"][0], abs=1e-6)
    with pytest.raises(UserError, match="--against c: no such system; there are a, b"):
        leaderboard(LeaderboardConfig(given, against="c"))


def test_clips_shared_only_in_part_have_neither(tmp_path):
    a = [write_evaluation(tmp_path / f"a{n}.json", noisy(0.5)[:n], LABELS[:n]) for n in (40, 30)]
    b = write_evaluation(tmp_path / "b.json", noisy(0.5), LABELS)
    rows, _ = leaderboard(LeaderboardConfig([f"a={a[0]}", f"a={a[1]}", f"b={b}"], against="b", bootstrap=5))
    row = next(row for row in rows if row["system"] == "a")
    assert row["low"] is None and row["difference_interval"] is None


def test_what_flatters_is_said(tmp_path):
    a = write_evaluation(tmp_path / "a.json", noisy(0.5), LABELS, seen={"in_training": 3, "in_choosing": 0})
    b = write_evaluation(tmp_path / "b.json", noisy(0.5)[:30], LABELS[:30], seen={"in_training": 0, "in_choosing": 3})
    _, text = leaderboard(LeaderboardConfig([f"a={a}", f"b={b}"], bootstrap=5))
    assert "Not all systems were scored on the same clips: their rows do not compare." in text
    assert "a: was trained on clips it is scored on" in text and "b: was chosen by clips it is scored on" in text
    c = write_evaluation(tmp_path / "c.json", noisy(0.5), LABELS, made_from={"weights": {"fit": LEARNED_HERE}})
    d = write_evaluation(tmp_path / "d.json", noisy(0.6), LABELS, seen_by_encoders=None)
    e = write_evaluation(tmp_path / "e.json", noisy(0.6), LABELS, seen_by_encoders=0)
    _, text = leaderboard(LeaderboardConfig([f"c={c}", f"d={d}", f"e={e}"], bootstrap=5))
    assert "c: its weights were learned on the clips it is scored on, each group's on the others" in text
    assert "d: whether its encoders have met clips it is scored on is not known" in text
    assert not any(line.startswith("e:") for line in text)
    rows, _ = leaderboard(LeaderboardConfig([f"a={a}", f"a={b}"], bootstrap=5))
    assert rows[0]["low"] is None and rows[0]["seeds"] == 2
    with pytest.raises(UserError, match=r"written as \.md or \.csv"):
        leaderboard(LeaderboardConfig([str(a)], [tmp_path / "board.txt"]))
