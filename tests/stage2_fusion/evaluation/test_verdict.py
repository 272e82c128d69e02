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
        (-LABELS, LABELS, 5, "no better than chance and worse than the ridge baseline: do not use it."),
        (LABELS + NOISE, LABELS, 5, "This model is worse than the ridge baseline, which is cheap: do not use it."),
        (LABELS + 0.01 * NOISE, LABELS + NOISE, 5, "above it, beyond chance (paired interval +"),
        (LABELS + 0.01 * NOISE, LABELS + NOISE, 1, "above it; 1 subject cannot tell whether that is chance."),
        (-LABELS + NOISE, -LABELS, 5, "This model is no better than chance: do not use it."),
    ],
)
def test_verdict_follows_from_the_paired_difference(tmp_path, model, baseline, groups, said):
    names = [f"s{i % groups}" for i in range(40)]
    paths = [
        write_evaluation(tmp_path / f"{name}.json", values, LABELS, groups=names, model=name)
        for name, values in (("model", model), ("ridge", baseline))
    ]
    line = baseline_verdict(*paths)
    assert said in line and "\n" not in line
    assert f"reaches {np.corrcoef(baseline, LABELS)[0, 1]:.3f}" in line


def test_other_clips_are_not_compared(tmp_path):
    a = write_evaluation(tmp_path / "a.json", LABELS, LABELS)
    b = write_evaluation(tmp_path / "b.json", LABELS[:30], LABELS[:30])
    assert "is not compared" in baseline_verdict(a, b)
