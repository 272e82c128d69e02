import pytest

from shared.training.schedule import cosine_with_warmup, count_warmup_steps


def test_cosine_with_warmup_by_hand():
    factors = [cosine_with_warmup(step, 5, 2) for step in range(6)]  # cosines of 0, 60, 120 and 180 degrees
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25, 0.0])


def test_warmup_steps_are_rounded_down():
    assert [count_warmup_steps(602, fraction) for fraction in (0.0, 0.07143, 0.0732, 1.0)] == [0, 43, 44, 602]
