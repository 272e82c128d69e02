"""The feature dataset on disk, and batches of it."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import synthetic_features

from shared.dataset.clip import MODALITIES
from shared.dataset.shards import save_table, write_shard
from shared.errors import UserError
from shared.saved.checksum import FEATURES, seal, write_description
from stage2_fusion import FeatureDataset
from stage2_fusion.data.batches import collate
from stage2_fusion.data.feature_info import EncoderInfo, FeatureInfo, read_info
from stage2_fusion.data.features import (
    FINGERPRINTS,
    ModalityFeatures,
    read_clips,
    read_samples,
    shorten,
    write,
    write_samples,
)


def test_written_samples_are_read_back(tmp_path):
    samples = synthetic_features.samples({"train": 5, "test": 2}, k=3, views=2)
    samples[0].labels[1] = np.nan
    info = write(tmp_path / "f", samples, synthetic_features.info(3))
    data = FeatureDataset.open(tmp_path / "f")
    assert data.info == info == read_info(tmp_path / "f") and len(data) == 21
    for before, after in zip(samples, data.samples, strict=True):
        for key in ("id", "view", "split", "groups", "damage"):
            assert getattr(before, key) == getattr(after, key)
        np.testing.assert_array_equal(before.labels, after.labels)
        np.testing.assert_array_equal(before.fingerprints, after.fingerprints)
        assert before.fingerprints.all() and after.fingerprints.dtype == np.uint64
        for name in MODALITIES:
            for key in ("sequence", "times", "pooled", "quality"):
                value, stored = getattr(before.modality(name), key), getattr(after.modality(name), key)
                np.testing.assert_array_equal(value, stored)
                assert value.dtype == stored.dtype
    labels = data.labels()
    assert labels.shape == (21, 3) and labels.dtype == np.float32 and np.isnan(labels[0, 1])


def test_splits_and_views_are_selected(tmp_path):
    path = synthetic_features.write_features(tmp_path / "f", {"train": 4, "test": 3}, views=2)
    assert len(FeatureDataset.open(path, "test")) == 9
    clean = FeatureDataset.open(str(path), split="test", views=(0,))
    assert [sample.view for sample in clean] == [0, 0, 0]
    assert repr(clean) == "FeatureDataset(3 samples of 3 clips, labels ['d0', 'd1'])"
    assert [sorted(clip) for clip in FeatureDataset.open(path, "test").by_clip()] == [[0, 1, 2]] * 3
    with pytest.raises(UserError, match=r"no clips of split 'dev'; there are: test, train"):
        FeatureDataset.open(path, "dev")


def test_clips_are_read_without_their_features(tmp_path):
    samples = synthetic_features.samples({"train": 2, "test": 1}, views=1)
    write(tmp_path / "f", samples, synthetic_features.info())
    clean = [sample for sample in samples if sample.view == 0]
    for clip, sample in zip(read_clips(tmp_path / "f"), clean, strict=True):
        assert (clip.id, clip.split, clip.groups) == (sample.id, sample.split, sample.groups)
        np.testing.assert_array_equal(clip.labels, sample.labels)
        np.testing.assert_array_equal(clip.fingerprints, sample.fingerprints)


def test_shards_that_an_earlier_version_began_are_continued_without_fingerprints(tmp_path):
    """The first shard has no such column."""
    info, shards = synthetic_features.info(views=0), [tmp_path / "0.arrow", tmp_path / "1.arrow"]
    samples = synthetic_features.samples({"train": 5}, views=0)
    for shard, part in zip(shards, (samples[:2], samples[2:]), strict=True):
        write_samples(shard, part, info)
    older = read_samples(shards[:1]).drop_columns(FINGERPRINTS)
    shards[0].unlink()
    with write_shard(shards[0]) as path, pa.ipc.new_stream(str(path), older.schema) as writer:
        writer.write_table(older)
    table = read_samples(shards)
    save_table(table, tmp_path / "f" / "data", "rows")
    write_description(tmp_path / "f", FEATURES, info.with_digest().to_json())
    data = FeatureDataset.open(tmp_path / "f")
    assert [sample.id for sample in data.samples] == [sample.id for sample in samples]
    assert not any(sample.fingerprints.any() for sample in data.samples)
    assert not any(clip.fingerprints.any() for clip in read_clips(tmp_path / "f"))
    np.testing.assert_array_equal(data[4].text.sequence, samples[4].text.sequence)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no feature dataset here; make it with `emit encode`"):
        FeatureDataset.open(tmp_path)
    (tmp_path / "features.json").write_text('{"format": "other/1"}')
    with pytest.raises(UserError, match="format 'other/1'"):
        FeatureDataset.open(tmp_path)
    (tmp_path / "features.json").write_text('{"format": "emit-features/2", "digest": "0123456789abcdef"}')
    with pytest.raises(UserError, match=r"features.json changed since the folder was saved"):
        FeatureDataset.open(tmp_path)
    seal(tmp_path)
    with pytest.raises(UserError, match=r"features.json: label_names is missing"):
        FeatureDataset.open(tmp_path)
    (tmp_path / "features.json").write_text('{"format": "emit-features/1", "widths": {}}')
    with pytest.raises(UserError, match=r"earlier version, without a checksum.*emit seal"):
        FeatureDataset.open(tmp_path)


def test_digest_changes_with_the_origin_of_the_features_but_not_with_paths():
    info = synthetic_features.info()
    moved = dataclasses.replace(info, encoders=dataclasses.replace(info.encoders, path="moved"))
    others = [
        dataclasses.replace(info, encoders=EncoderInfo("nowhere", "other", {})),
        dataclasses.replace(info, precision="bf16"),
    ]
    digest = info.with_digest().digest
    assert moved.with_digest().digest == digest
    assert all(other.with_digest().digest != digest for other in others)
    assert info.with_digest().with_digest().digest == digest


def test_digests_do_not_change_between_versions():
    content = {
        "label_names": ["a", "b"],
        "group_names": ["s"],
        "encoders": {"path": "/x", "digest": "e", "config": {"a": None, "path": "p"}},
        "widths": {"vision": 3, "audio": 2, "text": 1, "embed": 4},
        "data": {"path": "/y", "digest": "d", "prepare": {"frame_rate": 4, "detector": None}},
        "quality": {"vision": ["v"], "audio": ["a"], "text": ["t"]},
        "views": 3,
        "seed": 0,
        "precision": "fp32",
    }
    info = FeatureInfo.from_json(content).with_digest()
    assert info.digest == "1a2b780321dff2ea"
    assert info.to_json() == {"format": "emit-features/2", **content, "digest": info.digest}
    units = {"action_units": {"path": "/u", "digest": "u", "names": ["x"]}}
    assert FeatureInfo.from_json(content | units).with_digest().digest == "013741b36576d8b5"


def test_damaged_data_is_reported_in_one_line(tmp_path):
    write(tmp_path / "a", synthetic_features.samples({"train": 3}), synthetic_features.info())
    for file in (tmp_path / "a" / "data").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"arrow changed since .*encode"):
        FeatureDataset.open(tmp_path / "a")
    seal(tmp_path / "a")
    with pytest.raises(UserError, match=r"damaged rows .*encode"):
        FeatureDataset.open(tmp_path / "a")
    two = [dataclasses.replace(sample, fingerprints=np.ones(2)) for sample in synthetic_features.samples({"train": 1})]
    write(tmp_path / "b", two, synthetic_features.info())
    for read in (FeatureDataset.open, read_clips):
        with pytest.raises(UserError, match=r"'train000' is damaged \(2 fingerprints\); delete .*encode"):
            read(tmp_path / "b")


def test_failed_write_leaves_no_folder(tmp_path):
    def samples():
        yield from synthetic_features.samples({"train": 1})
        raise UserError("stop")

    with pytest.raises(UserError):
        write(tmp_path / "f", samples(), synthetic_features.info())
    assert not (tmp_path / "f").exists()


def test_collate_pads_with_zeros_and_masks():
    samples = synthetic_features.samples({"train": 40}, views=0)
    batch = collate(samples)
    for name in MODALITIES:
        part = batch.modality(name)
        assert part.x.dtype == torch.float32
        for i, sample in enumerate(samples):
            steps = sample.modality(name).steps
            assert part.mask[i].sum() == steps and part.mask[i, :steps].all()
            assert part.present[i] == (steps > 0)
            torch.testing.assert_close(part.x[i, :steps], torch.tensor(sample.modality(name).sequence).float())
            assert (part.x[i, steps:] == 0).all() and (part.quality[i, steps:] == 0).all()
    assert not batch.vision.present.all()  # some synthetic clips lack it


def test_damage_of_a_missing_modality_is_not_counted():
    sample = synthetic_features.sample(np.random.default_rng(0), missing=["audio"])
    sample.damage = {"vision": "blur", "audio": "noise", "text": ""}
    assert collate([sample]).damaged.tolist() == [[True, False, False]]


def test_shorten_averages_equal_runs():
    sample = synthetic_features.sample(np.random.default_rng(0), steps=(20, 2, 2))
    steps = np.arange(8)
    sample.vision = ModalityFeatures(
        steps[:, None].astype(np.float16), steps.astype(np.float32), sample.vision.pooled, np.ones((8, 2), np.float32)
    )
    short = shorten(sample, 4)
    assert short.vision.sequence[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert short.vision.times.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert short.vision.sequence.dtype == np.float16 and short.vision.quality.shape == (4, 2)
    assert short.text is sample.text and sample.vision.steps == 8
    sample.vision = dataclasses.replace(
        sample.vision,
        sequence=np.ones((7, 3), np.float16),
        times=sample.vision.times[:7],
        quality=sample.vision.quality[:7],
    )
    assert (shorten(sample, 5).vision.sequence == 1).all()


def test_selections_without_meaning_are_refused(tmp_path):
    path = synthetic_features.write_features(tmp_path / "f", views=2)
    assert {sample.view for sample in FeatureDataset.open(path, views=0).samples} == {0}
    with pytest.raises(UserError, match=r"no clips of split None and views \[7\]; there are: .*; views: 0, 1, 2"):
        FeatureDataset.open(path, views=(7,))
    for wrong in (0, -1, 2.5, "5"):
        with pytest.raises(UserError, match="max_sequence_steps is"):
            FeatureDataset.open(path, max_sequence_steps=wrong)
    with pytest.raises(UserError, match="a feature dataset is a folder, but got NoneType"):
        FeatureDataset.open(None)


def test_dataset_without_clips_has_labels_of_no_clip(tmp_path):
    data = FeatureDataset.open(synthetic_features.write_features(tmp_path / "f", {"train": 2}, views=0))
    assert FeatureDataset(data.info, []).labels().shape == (0, len(data.info.label_names))
