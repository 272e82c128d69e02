import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import synthetic_features

from shared.dataset.clip import MODALITIES
from shared.dataset.shards import save_table
from shared.errors import UserError
from shared.saved.checksum import seal
from stage2_fusion.data.batches import Batch, PackedSamples
from stage2_fusion.data.features import FeatureDataset, FeatureSample, ModalityFeatures, feature_table, write


@pytest.fixture
def opened(tmp_path) -> FeatureDataset:
    samples = synthetic_features.samples({"train": 30, "valid": 5}, views=2)
    write(tmp_path / "features", samples, synthetic_features.info())
    return FeatureDataset.open(tmp_path / "features", "train")


def owned(samples: list[FeatureSample]) -> list[FeatureSample]:
    """The same samples, each array in memory of its own."""

    def alone(part: ModalityFeatures) -> ModalityFeatures:
        return ModalityFeatures(*(getattr(part, key).copy() for key in ("sequence", "times", "pooled", "quality")))

    return [replace(sample, **{name: alone(sample.modality(name)) for name in MODALITIES}) for sample in samples]


def assert_same_batches(one: PackedSamples, other: PackedSamples) -> None:
    rows = np.random.default_rng(0).permutation(len(one.samples))
    a, b = one(rows), other(rows)
    assert a.ids == b.ids
    for name in MODALITIES:
        for key, value in vars(a.modality(name)).items():
            assert torch.equal(value, vars(b.modality(name))[key]), (name, key)


def shares_memory(packed: PackedSamples, samples: list[FeatureSample]) -> bool:
    return all(
        np.shares_memory(packed.modalities[name].steps["sequence"].numpy(), sample.modality(name).sequence)
        for name in MODALITIES
        for sample in samples
        if sample.modality(name).steps
    )


def test_a_dataset_is_held_once(opened):
    before = [sample.vision.sequence for sample in opened.samples]
    packed = PackedSamples(opened.samples)
    assert all(sample.vision.sequence is array for sample, array in zip(opened.samples, before, strict=True))
    assert shares_memory(packed, opened.samples)
    assert_same_batches(packed, PackedSamples(owned(opened.samples)))


def test_some_samples_in_another_order_are_where_they_were(opened):
    samples = [opened[row] for row in (40, 3, 3, 77, 0, 89)]
    samples.append(replace(samples[0], view=9))
    packed = PackedSamples(samples)
    assert shares_memory(packed, samples)
    assert_same_batches(packed, PackedSamples(owned(samples)))


def test_a_pickled_sample_does_not_take_the_others_along(opened):
    sample = pickle.loads(pickle.dumps(opened[4]))
    assert sample.vision.place is None and opened[4].vision.place is not None
    assert_same_batches(PackedSamples([sample]), PackedSamples([opened[4]]))
    assert b"PackedSteps" not in pickle.dumps(opened[4])


def test_shortened_sequences_are_held_once(tmp_path):
    rng = np.random.default_rng(0)
    samples = [synthetic_features.sample(rng, steps=(3 + i, 9, 4), id=str(i), split="train") for i in range(9)]
    write(tmp_path / "features", samples, synthetic_features.info())
    data = FeatureDataset.open(tmp_path / "features", max_sequence_steps=5)
    assert max(sample.vision.steps for sample in data.samples) == 5
    packed = PackedSamples(data.samples)
    assert shares_memory(packed, data.samples)
    assert_same_batches(packed, PackedSamples(owned(data.samples)))


@pytest.mark.parametrize(
    "change",
    [
        lambda part: replace(part, sequence=part.sequence.copy()),
        lambda part: replace(part, sequence=part.sequence[::-1]),
        lambda part: replace(part, quality=part.quality.copy()),
        lambda part: replace(part, sequence=part.sequence[1:], times=part.times[:-1], quality=part.quality[:-1]),
    ],
    ids=["copied", "reversed", "copied quality", "other steps"],
)
def test_changed_steps_are_packed_anew(opened, change):
    samples = [opened[row] for row in (4, 8, 15)]
    samples[1] = replace(samples[1], vision=change(samples[1].vision))
    assert samples[1].vision.steps > 1
    assert_same_batches(PackedSamples(samples), PackedSamples(owned(samples)))


def test_samples_with_a_modality_left_out_are_packed_anew(opened):
    samples = [opened[4], opened[8].without("vision"), opened[15]]
    packed = PackedSamples(samples)
    assert packed(range(3)).vision.present.tolist() == [True, False, True]
    assert_same_batches(packed, PackedSamples(owned(samples)))


def test_a_batch_of_samples_of_two_datasets_holds_both(opened, tmp_path):
    other = FeatureDataset.open(tmp_path / "features", "valid")
    samples = [opened[0], other[0], opened[1]]
    batch: Batch = PackedSamples(samples)(range(3))
    for row, sample in enumerate(samples):
        real = batch.vision.x[row, : sample.vision.steps].numpy()
        np.testing.assert_array_equal(real, sample.vision.sequence.astype(np.float32))


def test_steps_that_a_row_only_claims_are_damage_and_take_no_memory(opened, tmp_path):
    folder = tmp_path / "features"
    table = feature_table(folder, opened.info).data.table
    place = table.column_names.index("vision_steps")
    table = table.set_column(place, "vision_steps", pa.array([2**31 - 1] * len(table), pa.int32()))
    shutil.rmtree(folder / "data")
    save_table(table, folder / "data", "other")
    seal(folder)
    with pytest.raises(UserError, match=r"'train000' is damaged"):
        FeatureDataset.open(folder)
