"""The feature dataset: what is written is read, padded and masked as said."""

import numpy as np
import pytest
import torch
from helpers import synthetic_features

from shared.errors import UserError
from stage2_fusion.data.batches import collate
from stage2_fusion.data.features import MODALITIES, FeatureDataset, shorten, write


def test_what_is_written_is_read(tmp_path):
    samples = synthetic_features.samples({"train": 5, "test": 2}, k=3, views=2)
    samples[0]["labels"][1] = np.nan
    info = write(tmp_path / "f", samples, synthetic_features.info(3))
    data = FeatureDataset.open(tmp_path / "f")
    assert data.info == info and len(data) == 21
    for before, after in zip(samples, data.samples, strict=True):
        assert {k: before[k] for k in ("id", "view", "split", "groups", "damage")} == {
            k: after[k] for k in ("id", "view", "split", "groups", "damage")
        }
        np.testing.assert_array_equal(before["labels"], after["labels"])
        for name in MODALITIES:
            for key in ("sequence", "times", "pooled", "quality"):
                np.testing.assert_array_equal(before[name][key], after[name][key])
                assert before[name][key].dtype == after[name][key].dtype


def test_splits_and_views(tmp_path):
    path = synthetic_features.write_features(tmp_path / "f", {"train": 4, "test": 3}, views=2)
    assert len(FeatureDataset.open(path, "test")) == 9
    clean = FeatureDataset.open(path, "test", views=(0,))
    assert [sample["view"] for sample in clean.samples] == [0, 0, 0]
    assert [sorted(clip) for clip in FeatureDataset.open(path, "test").by_clip()] == [[0, 1, 2]] * 3
    with pytest.raises(UserError, match=r"no clips of split 'dev'; there are: test, train"):
        FeatureDataset.open(path, "dev")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="no feature dataset here; make it with `emit encode`"):
        FeatureDataset.open(tmp_path)
    (tmp_path / "features.json").write_text('{"format": "other/1"}')
    with pytest.raises(UserError, match="format 'other/1'"):
        FeatureDataset.open(tmp_path)


def test_the_digest_follows_what_features_are_made_from(tmp_path):
    samples = synthetic_features.samples({"train": 1})
    a = write(tmp_path / "a", samples, synthetic_features.info())
    b = write(
        tmp_path / "b",
        samples,
        synthetic_features.info() | {"encoders": {"path": "x", "digest": "other", "config": {}}},
    )
    elsewhere = synthetic_features.info() | {"encoders": synthetic_features.info()["encoders"] | {"path": "moved"}}
    assert a["digest"] == write(tmp_path / "c", samples, elsewhere)["digest"] != b["digest"]
    other = write(tmp_path / "d", samples, synthetic_features.info() | {"precision": "bf16"})
    assert other["digest"] != a["digest"]


def test_damaged_data_is_one_line(tmp_path):
    write(tmp_path / "a", synthetic_features.samples({"train": 3}), synthetic_features.info())
    for file in (tmp_path / "a" / "data").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"damaged .*encode"):
        FeatureDataset.open(tmp_path / "a")


def test_a_failing_source_leaves_no_folder(tmp_path):
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
        part = batch[name]
        for i, sample in enumerate(samples):
            length = len(sample[name]["sequence"])
            assert part["mask"][i].sum() == length and part["mask"][i, :length].all()
            assert part["present"][i] == (length > 0)
            torch.testing.assert_close(part["x"][i, :length], torch.tensor(sample[name]["sequence"]).float())
            assert (part["x"][i, length:] == 0).all() and (part["quality"][i, length:] == 0).all()
    assert not all(batch["vision"]["present"])  # the made-up clips do lack some
    assert batch["vision"]["x"].dtype == torch.float32


def test_damage_of_a_missing_modality_is_not_counted():
    sample = synthetic_features.sample(np.random.default_rng(0), missing=["audio"])
    sample["damage"] = {"vision": "blur", "audio": "noise", "text": ""}
    assert collate([sample])["damaged"].tolist() == [[True, False, False]]


def test_shorten_averages_equal_runs():
    sample = synthetic_features.sample(np.random.default_rng(0), steps=(20, 2, 2))
    vision = sample["vision"]
    vision["sequence"] = np.arange(8, dtype=np.float16).reshape(8, 1)
    vision["times"], vision["quality"] = np.arange(8, dtype=np.float32), np.ones((8, 2), np.float32)
    words = sample["text"]["sequence"]
    out = shorten(sample, 4)
    assert out["vision"]["sequence"][:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert out["vision"]["times"].tolist() == [0.5, 2.5, 4.5, 6.5]
    assert out["vision"]["sequence"].dtype == np.float16 and out["vision"]["quality"].shape == (4, 2)
    assert out["text"]["sequence"] is words
    vision["sequence"] = np.ones((7, 3), np.float16)
    vision["times"], vision["quality"] = np.arange(7, dtype=np.float32), np.ones((7, 2), np.float32)
    assert (shorten(sample, 5)["vision"]["sequence"] == 1).all()
