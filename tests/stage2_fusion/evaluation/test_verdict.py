"""Whether a model beats a cheap baseline is said in one line."""

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation

from stage2_fusion.evaluation.verdict import baseline_verdict

LABELS = np.linspace(0.0, 1.0, 40)
NOISE = np.tile([1.0, -1.0], 20)


@pytest.mark.parametrize(
    ("model", "baseline", "groups", "said"),
    [
        (-LABELS, LABELS, 5, "do not use this model"),
        (LABELS + NOISE, LABELS, 5, "not better"),
        (LABELS + 0.01 * NOISE, LABELS + NOISE, 5, "better, beyond chance"),
        (LABELS + 0.01 * NOISE, LABELS + NOISE, 1, "1 subject cannot tell whether that is chance"),
        (-LABELS + NOISE, -LABELS, 5, "not above zero: do not use this model"),
    ],
)
def test_verdict_follows_from_the_paired_difference(tmp_path, model, baseline, groups, said):
    names = [f"s{i % groups}" for i in range(40)]
    paths = [
        write_evaluation(tmp_path / f"{name}.json", values, LABELS, groups=names)
        for name, values in (("model", model), ("ridge", baseline))
    ]
    line = baseline_verdict(*paths)
    assert said in line and "\n" not in line
    assert f"reaches {np.corrcoef(baseline, LABELS)[0, 1]:.3f}" in line


def test_other_clips_are_not_compared(tmp_path):
    a = write_evaluation(tmp_path / "a.json", LABELS, LABELS)
    b = write_evaluation(tmp_path / "b.json", LABELS[:30], LABELS[:30])
    assert "is not compared" in baseline_verdict(a, b)
