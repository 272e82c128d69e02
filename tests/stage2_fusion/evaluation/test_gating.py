"""A gate over predictions: it follows the quality of what each system reads, and never what is absent."""

import numpy as np
import pytest

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.evaluation.gating import Calibration, held_out_groups, learn_gate, read_modalities
from stage2_fusion.evaluation.stacks import Stack


def clips(count, seed):
    """Labels (N, 2) and two systems: of each clip one is right and one is noise, and a quality signal says which."""
    rng = np.random.default_rng(seed)
    labels, good = rng.random((count, 2)), rng.integers(0, 2, count)
    predictions = rng.random((count, 2, 2))
    predictions[np.arange(count), :, good] = 0.3 + 0.4 * labels + rng.normal(0, 0.03, labels.shape)
    quality = [
        np.stack([np.where(good == m, 0.9, 0.4) + rng.normal(0, 0.05, count), rng.random(count)], axis=1)
        for m in range(2)
    ]
    return labels, Stack(predictions, quality, np.ones((count, 2), bool))


def mean_pcc(predictions, labels):
    return np.mean([pcc(predictions[:, k], labels[:, k]) for k in range(2)])


@pytest.fixture(scope="module")
def learned():
    labels, stack = clips(500, 0)
    labels[7, 0] = np.nan
    groups = [f"s{i % 25}" for i in range(500)]
    return learn_gate(stack, labels, groups), stack, labels, groups


def test_gate_follows_the_quality_of_each_clip(learned):
    gate, *_ = learned
    labels, stack = clips(300, 1)
    average = mean_pcc(stack.predictions.mean(axis=2), labels)
    assert mean_pcc(gate(stack), labels) > average + 0.1
    assert gate.weights.shape == (2, 2) and np.allclose(gate.weights.sum(axis=1), 1, atol=1e-5)


def test_gate_is_the_same_for_the_same_seed_and_labels_that_it_is_not_given_decide_nothing(learned):
    gate, stack, labels, groups = learned
    np.testing.assert_array_equal(learn_gate(stack, labels, groups)(stack), gate(stack))


def test_absent_modality_has_no_influence(learned):
    gate, *_ = learned
    _, stack = clips(20, 2)
    stack.present[:10, 0] = stack.present[3, 1] = False  # of clip 3 there is nothing
    before = gate(stack)
    stack.predictions[:10, :, 0] = 0.0
    stack.quality[0][:10] = 99.0
    after = gate(stack)
    rows = [row for row in range(20) if row != 3]
    np.testing.assert_allclose(after[rows], before[rows])
    assert np.isfinite(before).all() and not np.allclose(before[:3], before[10:13])


def test_calibration_is_least_squares_with_slopes_of_at_least_zero():
    labels, stack = clips(40, 3)
    stack.predictions[:, 0, 1] = 1 - labels[:, 0]  # the wrong way round
    stack.present[:5, 0] = False
    labels[9, 1] = np.nan
    fitted = Calibration.fit(stack.predictions, labels, stack.present)
    rows = [row for row in range(5, 40) if row != 9]
    slope, offset = np.polyfit(stack.predictions[rows, 1, 0], labels[rows, 1], 1)
    assert fitted.slopes[1, 0] == pytest.approx(slope) and fitted.offsets[1, 0] == pytest.approx(offset)
    assert fitted.slopes[0, 1] == 0 and fitted.offsets[0, 1] == pytest.approx(labels[:, 0].mean())


@pytest.mark.parametrize("part", ["teach the gate", "choose the epoch of the gate"])
@pytest.mark.parametrize("value", [0.5, np.nan], ids=["all equal", "none"])
def test_labels_that_teach_nothing_make_no_gate(part, value):
    labels, stack = clips(60, 4)
    groups = [f"s{i % 10}" for i in range(60)]
    labels[held_out_groups(groups) == (part != "teach the gate")] = value
    with pytest.raises(UserError, match=f"the clips that {part} have too few labels, or all equal ones"):
        learn_gate(stack, labels, groups)


@pytest.mark.parametrize("change", ["constant", "absent", "without signals"])
def test_a_member_that_says_nothing_leaves_finite_predictions(change):
    labels, stack = clips(60, 5)
    quality = stack.quality
    if change == "constant":
        stack.predictions[:, :, 0] = 0.25
    elif change == "absent":
        stack.present[:, 0] = False
    else:
        quality = [stack.quality[0][:, :0], stack.quality[1]]
    stack = Stack(stack.predictions, quality, stack.present)
    gate = learn_gate(stack, labels, [f"s{i % 10}" for i in range(60)])
    assert np.isfinite(gate(stack)).all() and np.isfinite(gate.weights).all()
    assert (gate.weights[:, 0] == 0).all() == (change == "absent")


def test_what_is_no_fusion_model_is_refused():
    assert read_modalities("lstm_vad", {"modalities": ["text", "audio"]}, "x") == ["audio"]
    with pytest.raises(UserError, match="ridge is not a fusion model"):
        read_modalities("ridge", {"modalities": ["text"]}, "x")
