"""Comparison of two computations that add the same float32 terms in a different order."""

import torch


def assert_same_up_to_rounding(actual: torch.Tensor, expected: torch.Tensor, share: float = 1e-5) -> None:
    """Equal within `share` of the largest value of `expected`.

    The error of a float32 sum is a few of 1.2e-7 of its largest terms, also where the terms cancel; the processor and
    the number of threads decide how many. So the tolerance depends on the scale of the tensor, not on each element.
    """
    atol = share * expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)
