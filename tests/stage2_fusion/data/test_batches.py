"""Batches equal a slow reference bit for bit, however they are made."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from helpers import synthetic_features

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.batches import Batch, ModalityBatch, PackedSamples, collate
from stage2_fusion.data.features import FeatureSample


def reference(samples: Sequence[FeatureSample]) -> Batch:
    """A padded batch, one sample and one modality at a time."""
    parts = {}
    for name in MODALITIES:
        features = [sample.modality(name) for sample in samples]
        steps = max([1, *(len(part.sequence) for part in features)])
        parts[name] = ModalityBatch(
            x=padded([part.sequence for part in features], steps),
            mask=torch.tensor([[t < len(part.sequence) for t in range(steps)] for part in features]),
            times=padded([part.times for part in features], steps),
            pooled=torch.stack([torch.tensor(part.pooled).float() for part in features]),
            quality=padded([part.quality for part in features], steps),
            present=torch.tensor([len(part.sequence) > 0 for part in features]),
        )
    damaged = [[bool(s.damage[name]) and s.modality(name).steps > 0 for name in MODALITIES] for s in samples]
    return Batch(
        ids=[sample.id for sample in samples],
        duration=torch.tensor([sample.duration for sample in samples]),
        labels=torch.stack([torch.tensor(sample.labels) for sample in samples]),
        damaged=torch.tensor(damaged),
        **parts,
    )


def padded(arrays: list[np.ndarray], steps: int) -> torch.Tensor:
    rows = [np.concatenate([a, np.zeros((steps - len(a), *a.shape[1:]))]).astype(np.float32) for a in arrays]
    return torch.from_numpy(np.stack(rows))


def assert_equal(value: Batch | ModalityBatch, expected: Batch | ModalityBatch) -> None:
    for field in dataclasses.fields(expected):
        a, b = getattr(value, field.name), getattr(expected, field.name)
        if isinstance(b, ModalityBatch):
            assert_equal(a, b)
        elif isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a == b


def test_batches_equal_the_reference():
    samples = synthetic_features.samples({"train": 40}, views=2)
    packed = PackedSamples(samples)
    no_audio = [row for row, sample in enumerate(samples) if not sample.audio.steps]
    assert len(no_audio) > 1
    for rows in (np.arange(120), np.array([5, 5, 77]), [3], no_audio):
        expected = reference([samples[row] for row in rows])
        assert_equal(packed(rows), expected)
        assert_equal(collate([samples[row] for row in rows]), expected)


def test_collate_leaves_the_samples_alone():
    samples = synthetic_features.samples({"train": 3})
    arrays = [sample.modality(name).sequence for sample in samples for name in MODALITIES]
    collate(samples)
    assert all(
        a is b for a, b in zip(arrays, [s.modality(n).sequence for s in samples for n in MODALITIES], strict=True)
    )


def test_a_batch_moves_with_everything_in_it():
    batch = collate(synthetic_features.samples({"train": 2}))
    batch.raw = {"text": {"inputs": torch.zeros(1)}}
    moved = batch.to("meta")
    assert moved.ids == batch.ids and moved.raw["text"]["inputs"].is_meta
    tensors = [moved.duration, moved.labels, moved.damaged]
    tensors += [getattr(moved.vision, field.name) for field in dataclasses.fields(ModalityBatch)]
    assert all(tensor.is_meta for tensor in tensors)
