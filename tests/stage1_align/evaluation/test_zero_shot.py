"""Zero-shot scores by hand."""

import numpy as np
import pytest

from stage1_align.evaluation.retrieval import ValidationEmbeddings
from stage1_align.evaluation.zero_shot import NONE, intensities, prompts, zero_shot


def test_prompts_are_the_one_for_none_and_the_strong_degrees_of_each_dimension():
    degrees = ("much", "clear", "strong", "intense")
    phrases = [NONE, *(f"{degree} {name}" for name in ("joy", "awe") for degree in degrees)]
    expected = [f"a person showing {phrase}" for phrase in phrases]
    assert prompts(["Joy", "Awe"], "a person showing {emotions}") == expected


def test_intensities_by_hand():
    """Two texts per dimension: none = (1, 0, 0); joy = mean of (0, 1, 0) twice; awe = (0, 1, 0) and (0, 0, 1), whose
    mean has length 1 / sqrt(2)."""
    texts = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], float)
    clips = np.array([[0, 1, 0], [0.6, 0, 0.8], [1, 0, 0]])
    half = np.sqrt(0.5)
    expected = [[1, half], [-0.6, 0.8 * half - 0.6], [-1, -1]]
    np.testing.assert_allclose(intensities(clips, texts, 2), expected, atol=1e-12)


def embeddings(prompts=((1, 0), (0, 1), (0, 1)), audio_present=(True, False, True, True)) -> ValidationEmbeddings:
    """One dimension, its texts along the second axis, none along the first: the score of (x, y) is y - x."""
    vision = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]])  # -1, 1, 0.2
    audio = np.array([[0, 1], [0, 0], [1, 0], [0.6, 0.8]])  # 1, none, -1, 0.2
    present = {"vision": np.array([True, True, True, False]), "audio": np.array(audio_present)}
    return ValidationEmbeddings({"vision": vision, "audio": audio}, present, [], np.array(prompts, float))


def test_pcc_by_hand_over_the_clips_that_have_the_modality():
    labels = np.array([[0.0], [0.9], [0.3], [0.6]])
    metrics = zero_shot(embeddings(), labels, ["joy"])
    assert metrics["zero_shot_vision"] == pytest.approx(np.corrcoef([-1, 1, 0.2], [0, 0.9, 0.3])[0, 1])
    assert metrics["zero_shot_audio"] == pytest.approx(np.corrcoef([1, -1, 0.2], [0, 0.3, 0.6])[0, 1])
    assert "zero_shot_both" not in metrics  # only clips 0 and 2 have both: the PCC of two clips is 1 or -1
    both = zero_shot(embeddings(audio_present=[True] * 4), np.array([[0.0], [0.9], [0.3], [np.nan]]), ["joy"])
    # Sums of clips 0, 1 and 2: -1 + 1, 1 + 0, 0.2 - 1.
    assert both["zero_shot_both"] == pytest.approx(np.corrcoef([0, 1, -0.8], [0, 0.9, 0.3])[0, 1])


def test_clips_and_dimensions_without_labels_are_left_out():
    labels = np.array([[0.1, np.nan], [np.nan, np.nan], [0.4, np.nan], [0.2, np.nan]])
    embedded = embeddings(prompts=[[1, 0], [0, 1], [1, 0]])  # one text each: joy (0, 1), awe (1, 0)
    metrics = zero_shot(embedded, labels, ["joy", "awe"])
    assert metrics["zero_shot_audio"] == pytest.approx(np.corrcoef([1, -1, 0.2], [0.1, 0.4, 0.2])[0, 1])
    assert "zero_shot_vision" not in metrics  # two labeled clips
    assert zero_shot(embeddings(), np.full((4, 1), np.nan), ["joy"]) == {}
    assert zero_shot(embeddings(), np.zeros((4, 0)), []) == {}


def test_modality_without_a_labeled_clip_has_no_score():
    labels = np.array([[np.nan], [np.nan], [np.nan], [0.6]])  # the only labeled clip has no picture
    assert zero_shot(embeddings(), labels, ["joy"]) == {}  # and one clip has no PCC


def test_modality_without_any_clip_has_no_score():
    labels = np.array([[0.0], [0.9], [0.3], [0.6]])
    assert list(zero_shot(embeddings(audio_present=[False] * 4), labels, ["joy"])) == ["zero_shot_vision"]
