"""Batches gathered at once are those that are collated clip by clip, to the bit."""

import copy

from helpers import made_up
import numpy as np
import torch

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.batches import Batches
from stage2_fusion.data.features import collate


def equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            equal(value, other[key])
        elif isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key
        else:
            assert value == other[key]


def test_they_equal_collated_ones_also_where_modalities_are_missing():
    samples = made_up.samples({"train": 40}, views=2)
    batches = Batches(copy.deepcopy(samples))
    for rows in (np.arange(120), np.array([5, 5, 77]), [3]):
        equal(batches(rows), collate([samples[row] for row in rows]))
    nothing = [row for row, sample in enumerate(samples) if not len(sample["audio"]["sequence"])]
    equal(batches(nothing), collate([samples[row] for row in nothing]))
    assert len(nothing) > 1


def test_memory_is_taken_once():
    samples = made_up.samples({"train": 10})
    before = copy.deepcopy(samples)
    batches = Batches(samples)
    for name in MODALITIES:
        flat = batches.modalities[name].steps["sequence"]
        for sample, old in zip(samples, before, strict=True):
            np.testing.assert_array_equal(sample[name]["sequence"], old[name]["sequence"])
            if len(old[name]["sequence"]):
                assert np.shares_memory(sample[name]["sequence"], flat.numpy())
