"""Conformal intervals over whole groups: the quantile by hand, coverage for groups that were never met."""

import numpy as np
import pytest

from stage2_fusion.evaluation.conformal import (
    ConformalIntervals,
    fewest_groups,
    group_quantile,
    independent_clips,
    number_groups,
    unbounded_line,
)


def test_quantile_is_that_of_hand_computed_weights():
    # Groups {1, 2}, {3}, {4, 5, 6}. At these quantiles all clips of a group are on the same side, so that the clip to
    # come weighs as much as a group: 1/4 each, shared by its clips.
    scores, groups = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 1, 2, 2, 2])
    assert group_quantile(scores, groups, 0.24) == 2  # 1/8, 1/4
    assert group_quantile(scores, groups, 0.5) == 3
    assert group_quantile(scores, groups, 0.76) == np.inf  # 3/4 are not enough


@pytest.mark.parametrize(("coverage", "groups"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_fewest_groups_are_those_of_which_one_more_may_lie_anywhere(coverage, groups):
    assert fewest_groups(coverage) == groups
    rng = np.random.default_rng(0)
    for count, bounded in ((groups, True), (groups - 1, False)):
        quantile = group_quantile(rng.random(50 * count), np.repeat(np.arange(count), 50), coverage)
        assert np.isfinite(quantile) == bounded


def test_clips_of_a_group_count_as_one_if_they_are_alike_and_as_many_if_they_are_not():
    groups = np.repeat(np.arange(40), 5)
    alike = np.repeat(np.arange(40) % 4 > 0, 5)
    assert independent_clips(alike, groups) == pytest.approx(40)
    assert independent_clips(np.arange(200) % 5 > 0, groups) == pytest.approx(200)
    assert independent_clips(np.arange(200) % 5 > 0, np.arange(200)) == 200


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("people", [12, 50])
def test_intervals_cover_unmet_people_as_often_as_asked(people, between):
    """Residuals with an effect of each person, as large as that of each clip or none."""
    rng, clips = np.random.default_rng(people), 6
    covered = []
    for _ in range(300):
        effect = rng.normal(0, between, (people + 200, 1))
        scores = np.abs(effect + rng.normal(size=(people + 200, clips)))
        groups = np.repeat(np.arange(people), clips)
        covered.append(np.mean(scores[people:] <= group_quantile(scores[:people].ravel(), groups, 0.9)))
    assert np.mean(covered) == pytest.approx(0.905, abs=0.012)


def intervals(rng: np.random.Generator, clips: int = 400, people: int = 40) -> tuple[ConformalIntervals, np.ndarray]:
    """Of labels whose spread grows with the prediction; the last training and held-out clips of dimension 1 have no
    label. And predictions (N, 2)."""
    predictions = rng.random((2 * clips, 2))
    labels = np.clip(predictions + rng.normal(0, 0.02 + 0.2 * predictions), 0, 1)
    labels[clips - 50 : clips, 1] = labels[-50:, 1] = np.nan
    groups = [f"p{i % people}" for i in range(clips)]
    split = predictions[:clips], labels[:clips], predictions[clips:], labels[clips:], groups
    return ConformalIntervals.fit(*split), predictions


def test_intervals_are_narrow_where_the_model_is_rarely_wrong_and_stay_in_range():
    fitted, _ = intervals(np.random.default_rng(0))
    low, high = fitted.bounds(np.array([[0.05, 0.05], [0.5, 0.5], [0.98, 0.98]]), 0.9)
    assert (low >= 0).all() and (high <= 1).all()
    width = high - low
    assert (width[0] < 0.15).all() and (width[1] > 0.3).all()
    wider = np.subtract(*fitted.bounds(np.array([[0.3, 0.3]]), 0.95)[::-1])
    assert (wider > np.subtract(*fitted.bounds(np.array([[0.3, 0.3]]), 0.8)[::-1])).all()


def test_dimension_of_too_few_people_has_the_whole_range_and_is_named():
    rng = np.random.default_rng(0)
    fitted, predictions = intervals(rng, people=10)
    fitted.scores[fitted.groups >= 5, 1] = np.nan
    low, high = fitted.bounds(predictions, 0.9)
    assert (low[:, 1] == 0).all() and (high[:, 1] == 1).all() and (high - low)[:, 0].max() < 1
    line = unbounded_line(fitted, 0.9, ["a", "b"])
    assert "needs 9 validation groups" in line and "b (5)" in line and "a (" not in line
    assert unbounded_line(fitted, 0.8, ["a", "b"]) == ""


def test_groups_are_numbered_by_name():
    assert number_groups(["b", "a", "b"]).tolist() == [1, 0, 1]
