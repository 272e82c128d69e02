"""How far clips are from the training clips: the distance by hand, false alarms, what must be found."""

import numpy as np
import pytest

from stage2_fusion.prediction.familiarity import FALSE_ALARMS, KEYS, WORDS, Familiarity, ViewReference, present_in

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
    return Familiarity.fit(training, validation, [str(i // 6) for i in range(people * 6)])


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
    assert np.mean([bool(clip.unlike) for clip in judged]) == pytest.approx(FALSE_ALARMS, abs=0.012)
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


def test_few_validation_people_state_the_rate_that_they_allow():
    familiarity = fit(people=4)
    assert familiarity.false_alarms == pytest.approx(1 / 5)
    judged = familiarity.judge(familiarity.distances)
    assert not any(clip.unlike for clip in judged), "the farthest validation clip is the limit"
