"""Scores against values computed by hand and against slow, obvious loops."""

import numpy as np
import pytest

from shared import metrics


def test_pcc_matches_hand_computation():
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2)
    assert metrics.pcc([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert metrics.pcc([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)


def test_pcc_ignores_unlabeled_rows():
    assert metrics.pcc([1, 2, 900, 3], [1, 3, np.nan, 2]) == pytest.approx(0.5)
    assert np.isnan(metrics.pcc([1, 2], [np.nan, np.nan]))


def test_unlabeled_dimension_is_left_out_of_mean():
    labels = np.array([[0.1, np.nan], [0.5, np.nan], [0.9, np.nan]])
    scores = metrics.score(labels[:, [0, 0]], labels, ("Joy", "Awe"), resamples=50)
    assert scores.pcc.mean == pytest.approx(1) and scores.pcc.per_dimension["Awe"] is None
    assert scores.pcc.interval[0] > 0.99 or scores.pcc.interval[0] == 0  # a sample of one repeated row counts 0
    assert scores.constant == scores.constant_labels == []
    assert scores.pcc.interval_per_dimension["Awe"] is None
    assert scores.pcc.interval_per_dimension["Joy"] == scores.pcc.interval  # the only dimension in the mean


LABELS = np.array([0.1, 0.4, 0.2, 0.9, 0.3, 0.6, 0.0, 0.5])


@pytest.mark.parametrize(
    ("predictions", "constant"),
    [
        (np.full(8, 0.3), True),
        (np.float32(0.3) + np.float32(3e-8) * np.array([0, 1, -1, 0, 1, 1, 0, -1], np.float32), True),
        (0.3 + np.spacing(0.3) * np.array([0, 1, 2, 0, 1, 2, 0, 1]), True),
        (0.5 + 4e-7 * LABELS, False),
        (0.5 + 1e-12 * LABELS, False),
        ((0.5 + 1e-6 * LABELS).astype(np.float32), False),
        (0.5 + 1e-6 * np.round(LABELS), False),
        (1e-9 * LABELS, False),
        (1e6 + 1e-3 * LABELS, False),
    ],
    ids=["equal", "float32", "float64", "small", "tiny", "small float32", "six digits", "near zero", "large offset"],
)
def test_score_interval_and_remark_agree_on_what_is_constant(predictions, constant):
    """The interval holds the score, and both are 0 exactly where the remark says that predictions are constant."""
    scores = metrics.score(predictions[:, None], LABELS[:, None], ["Joy"], resamples=200)
    x, y = predictions.astype(np.float64), LABELS
    plain = 0.0 if constant else np.corrcoef(x - x[0], y)[0, 1]
    assert scores.pcc.mean == pytest.approx(plain, abs=1e-3) and scores.constant == ["Joy"] * constant
    assert scores.pcc.interval[0] <= scores.pcc.mean + 1e-9 and scores.pcc.mean - 1e-9 <= scores.pcc.interval[1]
    assert (scores.pcc.interval == [0, 0]) == constant == (scores.ccc.mean == 0)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1e4])
def test_bootstrap_sees_small_signals_beside_large_ones(offset):
    """One group is far off, the others differ by 1e-7 of that: in samples without it, a small signal is scored."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 4)
    labels = rng.random((20, 2))
    labels[:8, 1] = np.nan
    predictions = offset + 1e-7 * labels + (groups == 4)[:, None]
    predictions[:, 1] = np.where(groups == 4, predictions[:, 1], offset)  # constant in samples without group 4
    draws = metrics.bootstrap_pcc(predictions, labels, groups, 60, seed=1)
    drawn = np.random.default_rng(1).multinomial(5, np.full(5, 1 / 5), size=60)
    for r in range(60):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(5) for _ in range(drawn[r, g])])
        slow = [metrics.pcc(predictions[rows, k], labels[rows, k]) for k in range(2)]
        np.testing.assert_allclose(draws[r], slow, atol=1e-6)
    assert (drawn[:, 4] == 0).sum() > 5 and (draws[drawn[:, 4] == 0][:, 0] > 0.9).all()


def test_ccc_and_mae_match_hand_computation():
    # covariance 2/3, variances 2/3, means 2 and 3: (4/3) / (4/3 + 1)
    assert metrics.ccc([1, 2, 3], [2, 3, 4]) == pytest.approx((4 / 3) / (7 / 3))
    assert metrics.mae([1, 2, 3], [2, np.nan, 5]) == pytest.approx(1.5)


def test_score_reports_all_rows_and_nonzero_rows():
    rng = np.random.default_rng(0)
    labels = rng.random((40, 2)) * (rng.random((40, 1)) > 0.4)
    labels[3, 0] = np.nan
    predictions = np.stack([rng.random(40), np.full(40, 0.2)], axis=1)
    scores = metrics.score(predictions, labels, ["a", "b"], resamples=50)
    rows = np.nan_to_num(labels).max(axis=1) > 0
    assert 0 < rows.sum() < 40
    assert scores.pcc.per_dimension["a"] == pytest.approx(
        np.corrcoef(np.delete(predictions[:, 0], 3), np.delete(labels[:, 0], 3))[0, 1]
    )
    assert scores.pcc.per_dimension["b"] == 0
    assert scores.pcc.mean == pytest.approx(scores.pcc.per_dimension["a"] / 2)
    assert scores.pcc_nonzero.n == rows.sum()
    assert scores.pcc_nonzero.per_dimension["a"] == pytest.approx(metrics.pcc(predictions[rows, 0], labels[rows, 0]))
    assert scores.constant == ["b"] and scores.constant_labels == []
    low, high = scores.pcc.interval
    assert low < scores.pcc.mean < high
    draws = metrics.bootstrap_pcc(predictions, labels, np.arange(40), 50, 0)
    np.testing.assert_allclose(scores.pcc.interval_per_dimension["a"], np.percentile(draws[:, 0], [2.5, 97.5]))
    assert scores.pcc.interval_per_dimension["b"] == [0, 0]


def test_group_bootstrap_equals_slow_loop():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 7, 60)
    labels = rng.random((60, 3))
    predictions = labels + rng.normal(0, 0.5, labels.shape)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    predictions[:, 2] = 0.7
    draws = metrics.bootstrap_pcc(predictions, labels, groups, 30, seed=5)
    drawn = np.random.default_rng(5).multinomial(7, np.full(7, 1 / 7), size=30)
    for r in range(30):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in range(7) for _ in range(drawn[r, g])])
        slow = [metrics.pcc(predictions[rows, k], labels[rows, k]) for k in range(3)]
        np.testing.assert_allclose(draws[r], slow, atol=1e-12)


def test_bootstrap_sample_with_constant_labels_is_nan():
    """Two of eight groups have a non-zero label: a sample that draws neither must not count as PCC 0."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(8), 6)
    labels = rng.random((48, 2))
    labels[groups > 1, 1] = 0
    predictions = labels + rng.normal(0, 0.05, labels.shape)
    draws = metrics.bootstrap_pcc(predictions, labels, groups, 400, seed=0)
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=400)
    neither = (drawn[:, :2] == 0).all(axis=1)
    assert 20 < neither.sum() < 80 and (np.isnan(draws) == np.stack([np.zeros(400, bool), neither], axis=1)).all()
    means = np.where(neither, draws[:, 0], draws.mean(axis=1))
    np.testing.assert_allclose(metrics.mean_over_dimensions(draws), means)
    scores = metrics.score(predictions, labels, ["a", "b"], groups, resamples=400).pcc
    np.testing.assert_allclose(scores.interval_per_dimension["b"], np.nanpercentile(draws[:, 1], [2.5, 97.5]))
    np.testing.assert_allclose(scores.interval, np.percentile(means, [2.5, 97.5]))
    assert scores.interval_per_dimension["b"][0] > 0.5
    assert metrics.interval(np.full(3, np.nan)) is None
    assert np.isnan(metrics.mean_over_dimensions(np.full((1, 2), np.nan)))
    # Labels that never vary allow no correlation, in bootstrap samples as in the score.
    assert np.isnan(metrics.bootstrap_pcc(predictions, labels * [1, 0], groups, 9, 0)[:, 1]).all()


def test_interval_widens_when_rows_of_a_group_repeat():
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.random((12, 1)), 10, axis=0)
    predictions = labels + np.repeat(rng.normal(0, 0.3, (12, 1)), 10, axis=0)
    by_row = metrics.score(predictions, labels, ["a"]).pcc.interval
    by_group = metrics.score(predictions, labels, ["a"], groups=np.repeat(np.arange(12), 10)).pcc.interval
    assert by_group[1] - by_group[0] > 1.5 * (by_row[1] - by_row[0])


@pytest.mark.parametrize("limit", [2**22, 50], ids=["at once", "in blocks"])
def test_crossed_bootstrap_equals_slow_loop(limit, monkeypatch):
    """A row counts as often as its first group was drawn, times how often its second one was."""
    monkeypatch.setattr(metrics, "MAX_WEIGHTS", limit)
    rng = np.random.default_rng(4)
    groups, videos = rng.integers(0, 6, 50), rng.integers(0, 9, 50)
    labels = rng.random((50, 2))
    predictions = labels + rng.normal(0, 0.5, labels.shape)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    draws = metrics.bootstrap_pcc(predictions, labels, groups, 25, seed=3, crossed=videos)
    people = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=25)
    watched = np.random.default_rng([3, 1]).multinomial(9, np.full(9, 1 / 9), size=25)
    for r in range(25):
        rows = [n for n in range(50) for _ in range(people[r, groups[n]] * watched[r, videos[n]])]
        slow = [metrics.pcc(predictions[rows, k], labels[rows, k]) for k in range(2)]
        np.testing.assert_allclose(draws[r], slow, atol=1e-12)
    one = metrics.bootstrap_pcc(predictions, labels, groups, 25, seed=3, crossed=np.zeros(50))
    assert one.shape == (0, 2)  # one video tells nothing about others


def test_crossed_interval_is_as_wide_as_the_spread_over_new_people_and_videos():
    """Noise of people and of videos, one row for each of both: the crossed interval has the width of the scores of new
    samples of both, which that over people alone falls short of."""
    rng = np.random.default_rng(0)

    def sample():
        truth = rng.normal(size=(24, 24))
        noise = rng.normal(size=(24, 1)) * 0.3 + rng.normal(size=(1, 24)) + 0.3 * rng.normal(size=(24, 24))
        return (truth + noise).reshape(-1, 1), truth.reshape(-1, 1)

    scores = [metrics.pcc(*(side[:, 0] for side in sample())) for _ in range(300)]
    low, high = np.percentile(scores, [2.5, 97.5])
    widths = {"people": [], "both": []}
    people, videos = np.repeat(np.arange(24), 24), np.tile(np.arange(24), 24)
    for _ in range(8):
        predictions, labels = sample()
        found = metrics.score(predictions, labels, ["Joy"], people, 300, crossed=videos)
        widths["people"].append(np.ptp(found.pcc.interval))
        widths["both"].append(np.ptp(found.crossed.interval))
        assert found.crossed.groups == 24
    assert np.mean(widths["people"]) < 0.6 * (high - low) < 0.75 * np.mean(widths["both"])
    assert np.mean(widths["both"]) < 1.5 * (high - low)


def test_roc_auc_counts_ties_half():
    assert metrics.roc_auc([3, 2, 1], [True, False, False]) == 1
    assert metrics.roc_auc([1, 1, 1, 1], [True, False, True, False]) == 0.5
    # pairs (positive, negative): (2, 2) tie, (2, 1) won, (0, 2) lost, (0, 1) lost
    assert metrics.roc_auc([2, 0, 2, 1], [True, True, False, False]) == pytest.approx(1.5 / 4)
    assert np.isnan(metrics.roc_auc([1, 2], [True, True]))
    # within strata: (3 against 4) lost, (1 against 0) and (2 against 0) won; (3 against 0) is not a pair
    scores, strata = [3, 4, 1, 2, 0], ["a", "a", "b", "b", "b"]
    assert metrics.roc_auc(scores, [True, False, True, True, False], strata) == pytest.approx(2 / 3)
    assert np.isnan(metrics.roc_auc([1, 2], [True, False], ["a", "b"]))


def test_recall_counts_equal_texts_as_hits_and_ties_as_misses():
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.2, 0.1, 0.3]])
    recalls = [metrics.recall_at(similarity, [0, 1, 2], [0, 1, 2], k) for k in (1, 2, 3)]
    assert recalls == [2 / 3, 2 / 3, 1.0]
    assert metrics.recall_at(similarity, ["t", "t", "u"], ["t", "t", "u"], 1) == 1
    same = np.ones((4, 4))
    assert [metrics.recall_at(same, range(4), range(4), k) for k in (1, 3, 4)] == [0, 0, 1]
    assert metrics.recall_at(np.full((2, 2), np.nan), [0, 1], [0, 1], 2) == 0
    assert metrics.recall_at(np.eye(2), [0, 7], [0, 1], 1) == 1  # row 7 has no right column
    assert metrics.recall_at(np.zeros((0, 0)), [], [], 1) == 0


def test_recall_equals_slow_loop():
    rng = np.random.default_rng(3)
    similarity = rng.integers(0, 6, (40, 30)).astype(float)  # many ties
    rows, columns = rng.integers(0, 12, 40), rng.integers(0, 12, 30)
    for k in (1, 3):
        hits = []
        for i in range(40):
            right = [similarity[i, j] for j in range(30) if columns[j] == rows[i]]
            wrong = [similarity[i, j] for j in range(30) if columns[j] != rows[i]]
            if right:
                hits.append(sum(value >= max(right) for value in wrong) < k)
        assert metrics.recall_at(similarity, rows, columns, k) == pytest.approx(np.mean(hits))
