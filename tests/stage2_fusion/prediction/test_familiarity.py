"""How far clips are from the training clips: the distance by hand, false alarms, what must be found."""

import tracemalloc

import numpy as np
import pytest

from stage2_fusion.prediction import distances as distances_of_views
from stage2_fusion.prediction.distances import UsualDistances, ViewReference, out_of_fold
from stage2_fusion.prediction.familiarity import FALSE_ALARMS, KEYS, NEEDED_GROUPS, WORDS, Familiarity, present_in

WIDTH = 20


def clips(rng: np.random.Generator, people: int, each: int = 6) -> dict[str, np.ndarray]:
    """Summaries of clips of `people`, who differ along four directions that all share."""
    directions = np.random.default_rng(0).normal(size=(len(KEYS), 4, WIDTH))
    summaries = {}
    for name, basis in zip(KEYS, directions, strict=True):
        person = np.repeat(rng.normal(size=(people, 4)), each, axis=0)
        own = rng.normal(0, 0.5, (people * each, 4))
        noise = rng.normal(0, 0.1, (people * each, WIDTH))
        summaries[name] = ((person + own) @ basis + noise).astype(np.float32)
    return summaries


def fit(people: int = 60, **changes: np.ndarray) -> Familiarity:
    """Of 200 training people and `people` validation people; `changes` replace training summaries."""
    training, validation = clips(np.random.default_rng(1), 200), clips(np.random.default_rng(2), people)
    for name, values in changes.items():
        training[name] = values
    return Familiarity.fit(
        training, [f"t{i // 6}" for i in range(1200)], validation, [str(i // 6) for i in range(people * 6)]
    )


def test_distance_is_that_of_mahalanobis_where_components_hold_everything():
    x = np.random.default_rng(0).normal(size=(500, 3)) * [3.0, 1.0, 0.5]
    reference = ViewReference.fit(x)
    assert reference.components.shape == (2, 3)
    covariance = np.cov(x.T, bias=True)
    offsets = x[:5] - x.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets) / 3)
    np.testing.assert_allclose(reference.distances(x[:5]), expected, rtol=1e-4)


def test_unmet_people_are_called_unlike_as_often_as_stated():
    familiarity = fit(people=100)
    judged = familiarity.judge(familiarity.measure(clips(np.random.default_rng(3), 300)))
    assert familiarity.false_alarms == FALSE_ALARMS
    assert np.mean([bool(clip.unlike) for clip in judged]) == pytest.approx(FALSE_ALARMS, abs=0.008)
    percentiles = [clip.percentile for clip in judged]
    assert np.mean(percentiles) == pytest.approx(50, abs=4) and 0 <= min(percentiles) <= max(percentiles) <= 100


@pytest.mark.parametrize("key", KEYS)
def test_what_the_model_never_saw_is_called_unlike_by_its_modality(key):
    familiarity, usual = fit(), clips(np.random.default_rng(3), 5)
    name = key.partition(".")[0]
    other = KEYS[KEYS.index(key) - 1]
    for values in (usual[other], np.random.default_rng(4).normal(0, 3, usual[key].shape)):
        judged = familiarity.judge(familiarity.measure({**usual, key: values.astype(np.float32)}))
        assert all(WORDS[name] in clip.unlike and clip.distances[name] > 2 for clip in judged)
        assert all(clip.percentile == 100 for clip in judged)


def test_modality_that_nearly_all_training_clips_have_is_missed_and_one_that_none_has_is_noticed():
    usual, training = clips(np.random.default_rng(3), 3), clips(np.random.default_rng(1), 200)
    absent = {key: np.full_like(values, np.nan) for key, values in usual.items() if key.startswith("audio")}
    familiarity = fit()
    judged = familiarity.judge(familiarity.measure({**usual, **absent}), present_in({**usual, **absent}))
    assert all("no sound" in clip.unlike and list(clip.distances) == ["vision", "text"] for clip in judged)
    familiarity = fit(**{key: np.full_like(training[key], np.nan) for key in absent})
    judged = familiarity.judge(familiarity.measure(usual), present_in(usual))
    assert all("has sound" in clip.unlike and "audio" not in clip.distances for clip in judged)


@pytest.mark.parametrize(("people", "rate"), [(60, 0.02), (30, 1 / 31), (NEEDED_GROUPS, 0.05)])
def test_few_validation_people_state_the_rate_that_they_allow(people, rate):
    familiarity = fit(people=people)
    assert familiarity.false_alarms == pytest.approx(rate) and not familiarity.not_known


def test_with_too_few_validation_people_nothing_is_flagged_and_that_is_said():
    familiarity = fit(people=NEEDED_GROUPS - 1)
    strange = {key: np.full((4, WIDTH), 50, np.float32) for key in KEYS}
    judged = familiarity.judge(familiarity.measure(strange))
    assert all(not clip.unlike and clip.reasons == "not known" for clip in judged)
    assert familiarity.not_known == "not known (18 people or groups in validation; 19 are needed)"


def test_encoders_that_know_their_training_people_too_well_do_not_lower_the_limit():
    training = {key: values * 0.5 for key, values in clips(np.random.default_rng(1), 200).items()}
    familiarity = fit(people=100, **training)
    judged = familiarity.judge(familiarity.measure(clips(np.random.default_rng(3), 300)))
    assert np.mean([bool(clip.unlike) for clip in judged]) == pytest.approx(FALSE_ALARMS, abs=0.015)


def test_training_distances_are_from_clips_of_other_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    summaries = (rng.normal(size=(40, 8))[groups] + 0.01 * rng.normal(size=(200, 8))).astype(np.float32)
    within = ViewReference.fit(summaries).logs(summaries)
    unmet = (rng.normal(size=(500, 8))).astype(np.float32)
    expected = ViewReference.fit(summaries).logs(unmet).mean()
    assert within.mean() < out_of_fold(summaries, groups).mean()
    assert out_of_fold(summaries, groups).mean() == pytest.approx(expected, abs=0.1)
    np.testing.assert_allclose(out_of_fold(summaries, np.zeros(200)), within)


def test_what_is_usual_depends_on_the_signals():
    signals = np.repeat([0.0, 1.0], 200)[:, None]
    distances = np.concatenate([np.linspace(0, 1, 200), np.linspace(2, 3, 200)])
    usual = UsualDistances.fit(signals, distances)
    clear, damaged = usual.scores(np.array([2.5, 2.5]), np.array([[0.0], [1.0]]))
    assert clear > 4 and abs(damaged) < 0.3
    without = UsualDistances.fit(signals[:, :0], distances)
    assert without.scores(np.array([1.5, np.quantile(distances, 0.9)]), np.zeros((2, 0))) == pytest.approx([0, 1])


def test_training_clips_are_not_compared_with_their_own_group(monkeypatch):
    """6 clips of 3 groups, in chunks of 4; there are fewer than NEIGHBORS, so that all clips of other groups count."""
    signals, groups = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])[:, None], np.array([0, 0, 1, 1, 2, 2])
    distances = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(distances_of_views, "CHUNK", 4)
    found = UsualDistances.fit(signals, distances).scores(distances, signals, groups)
    for i, score in enumerate(found):
        others = np.quantile(distances[groups != groups[i]], [0.5, 0.9])
        assert score == pytest.approx((distances[i] - others[0]) / (others[1] - others[0]))


def test_fitting_takes_less_memory_than_all_pairs_of_clips(monkeypatch):
    training, validation = clips(np.random.default_rng(1), 500), clips(np.random.default_rng(2), 20)
    monkeypatch.setattr(distances_of_views, "CHUNK", 16)
    names = [str(i // 6) for i in range(3000)]
    tracemalloc.start()
    try:
        Familiarity.fit(training, names, validation, [f"v{i // 6}" for i in range(120)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(names) ** 2 / 2


def test_many_clips_without_sound_make_its_absence_usual():
    training = clips(np.random.default_rng(1), 200)
    some = {key: values.copy() for key, values in training.items() if key.startswith("audio")}
    for values in some.values():
        values[::50] = np.nan
    familiarity, usual = fit(**some), clips(np.random.default_rng(3), 3)
    silent = {**usual, **{key: np.full_like(usual[key], np.nan) for key in some}}
    judged = familiarity.judge(familiarity.measure(silent), present_in(silent))
    assert not any("no sound" in clip.unlike for clip in judged), "2 % of the training clips would be called unlike"
