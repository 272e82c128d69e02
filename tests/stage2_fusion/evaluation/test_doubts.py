"""Lines about scores and predictions that mean little."""

import numpy as np
import pytest

from stage2_fusion.evaluation.doubts import few_validation_line, flat_line


def test_flat_dimensions_are_named_and_others_are_not():
    labels = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, np.nan], [1.0, 0.0], [0.5, 1.0]])
    predictions = 0.5 + np.array([[0.01, 0.1], [-0.01, -0.1]] * 2 + [[0.0, 0.0]])
    line = flat_line(predictions, ["joy", "awe"], labels)
    assert line is not None and "(joy)" in line and "--train.patience 20" in line
    assert flat_line(predictions * [10, 1], ["joy", "awe"], labels) is None


def test_without_labels_the_range_decides():
    predictions = np.tile([[4.0], [4.02], [3.98]], (2, 1))
    assert flat_line(predictions, ["joy"], span=np.array([6.0])) is not None
    assert flat_line(predictions, ["joy"], span=np.array([0.6])) is None
    assert flat_line(predictions[:4], ["joy"], span=6.0) is None


@pytest.mark.parametrize(("count", "chance"), [(3, "1.00"), (12, "0.57"), (49, "0.28"), (50, None)])
def test_few_validation_clips_are_said_with_what_chance_reaches(count, chance):
    line = few_validation_line(count, "valid")
    assert (line is None) if chance is None else (line is not None and f"PCC of {chance} among" in line)
