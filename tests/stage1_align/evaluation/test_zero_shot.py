"""Zero-shot scores worked out by hand."""

import numpy as np
import pytest

from stage1_align.evaluation.zero_shot import NONE, intensities, prompts, zero_shot


def test_prompts_are_none_and_then_the_strong_words_of_each_dimension():
    found = prompts(["Joy", "Awe"], "a person showing {emotions}")
    words = ("much", "clear", "strong", "intense")
    said = [NONE, *(f"{word} {name}" for name in ("joy", "awe") for word in words)]
    assert found == [f"a person showing {text}" for text in said]


def test_intensities_by_hand():
    """Two words a dimension: none = (1, 0, 0); joy = mean of (0, 1, 0) twice; awe = (0, 1, 0) and (0, 0, 1), whose
    mean has length 1 / sqrt(2)."""
    texts = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], float)
    clips = np.array([[0, 1, 0], [0.6, 0, 0.8], [1, 0, 0]])
    half = np.sqrt(0.5)
    wanted = [[1, half], [-0.6, 0.8 * half - 0.6], [-1, -1]]
    np.testing.assert_allclose(intensities(clips, texts, 2), wanted, atol=1e-12)


def case(**more):
    """One dimension, words along the second axis, none along the first: the score of (x, y) is y - x."""
    vision = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]])  # -1, 1, 0.2
    audio = np.array([[0, 1], [0, 0], [1, 0], [0.6, 0.8]])  # 1, none, -1, 0.2
    return {
        "vision": vision,
        "audio": audio,
        "has_vision": np.array([True, True, True, False]),
        "has_audio": np.array([True, False, True, True]),
        "more": np.array([[1, 0], [0, 1], [0, 1]], float),
        **more,
    }


def test_correlation_by_hand_over_the_clips_that_have_the_modality():
    labels = np.array([[0.0], [0.9], [0.3], [0.6]])
    found = zero_shot(case(), labels, ["joy"])
    assert found["zero_shot_vision"] == pytest.approx(np.corrcoef([-1, 1, 0.2], [0, 0.9, 0.3])[0, 1])
    assert found["zero_shot_audio"] == pytest.approx(np.corrcoef([1, -1, 0.2], [0, 0.3, 0.6])[0, 1])
    # Clips 0 and 2 alone have both: 0 and -0.8 against 0 and 0.3.
    assert found["zero_shot_both"] == pytest.approx(-1)


def test_rows_and_dimensions_without_labels_take_no_part():
    labels = np.array([[0.1, np.nan], [np.nan, np.nan], [0.4, np.nan], [0.2, np.nan]])
    more = np.array([[1, 0], [0, 1], [1, 0]], float)  # one word each: joy (0, 1), awe (1, 0)
    found = zero_shot(case(more=more), labels, ["joy", "awe"])
    assert found["zero_shot_vision"] == pytest.approx(1)  # -1 and 0.2 with 0.1 and 0.4
    assert zero_shot(case(), np.full((4, 1), np.nan), ["joy"]) == {} == zero_shot(case(), np.zeros((4, 0)), [])


def test_where_no_clip_of_a_modality_is_labelled_it_has_no_score():
    labels = np.array([[np.nan], [np.nan], [np.nan], [0.6]])  # the only labelled clip has no picture
    found = zero_shot(case(), labels, ["joy"])
    assert "zero_shot_vision" not in found and found["zero_shot_audio"] == 0  # one clip is a constant


def test_a_modality_that_is_nowhere_has_no_score():
    labels = np.array([[0.0], [0.9], [0.3], [0.6]])
    found = zero_shot(case(has_audio=np.zeros(4, bool)), labels, ["joy"])
    assert list(found) == ["zero_shot_vision"]
