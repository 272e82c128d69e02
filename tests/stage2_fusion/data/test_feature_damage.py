"""Damage to features: what it does to a sequence, which rows it changes, and that quality weights learn from it."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import synthetic_features
from helpers.synthetic_features import config

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion import train as trainer
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.data.batches import PackedSamples
from stage2_fusion.data.feature_damage import DAMAGED_MODALITIES, KINDS, FeatureDamage, damage
from stage2_fusion.data.features import FeatureSample, write
from stage2_fusion.models.base import FeatureSpec, FusionModel


def fitted_model(samples: list[FeatureSample]) -> FusionModel:
    """A model with the statistics of the samples."""
    model = FusionModel.build("concat", {"width": 8}, FeatureSpec.of(synthetic_features.info()))
    model.fit_statistics(samples)
    return model


@pytest.fixture(scope="module")
def packed_and_model():
    samples = synthetic_features.samples({"train": 60}, views=0)
    return PackedSamples(samples), fitted_model(samples)


def test_each_kind_changes_the_sequence_as_documented():
    x, mean, deviation = torch.randn(40, 6) + 3, torch.full((6,), 3.0), torch.tensor([0.0, 1, 1, 1, 1, 5])
    rng = np.random.default_rng(0)
    noise = (damage(x, "noise", mean, deviation, rng) - x).std(dim=0)
    assert noise[0] == 0 and (noise[1:5] > 0.7).all() and (noise[1:5] < 4).all() and noise[5] > 3
    frozen = damage(x, "frozen", mean, deviation, rng)
    assert (frozen == frozen[0]).all() and (x == frozen[0]).all(dim=1).sum() == 1
    blank = damage(x, "blank", mean, deviation, rng)
    changed = (blank != x).any(dim=1)
    steps = changed.nonzero().flatten()
    assert changed.sum() >= 24 and len(steps) == steps[-1] - steps[0] + 1 and (blank[changed] == 3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_is_damaged_too(kind):
    x, mean, deviation = torch.randn(1, 6) + 3, torch.full((6,), 3.0), torch.ones(6)
    assert not torch.equal(damage(x, kind, mean, deviation, np.random.default_rng(0)), x)


def test_second_rows_become_damaged_copies_of_the_first(packed_and_model):
    packed, model = packed_and_model
    rows = np.repeat(np.arange(60), 2)
    clean, batch = packed(rows), packed(rows)
    FeatureDamage(model, 0.5, seed=3)(batch, rows, epoch=1)
    damaged_rows = batch.damaged.any(dim=1)
    assert not damaged_rows[::2].any() and 15 < damaged_rows.sum() < 45 and (batch.damaged.sum(dim=1) <= 1).all()
    for m, name in enumerate(MODALITIES):
        part, clean_part = batch.modality(name), clean.modality(name)
        unchanged = (part.x == clean_part.x).flatten(1).all(dim=1)  # (B,)
        assert torch.equal(~unchanged, batch.damaged[:, m])
        assert (name in DAMAGED_MODALITIES) == bool(batch.damaged[:, m].any())
        for key in ("mask", "times", "quality", "present"):
            assert torch.equal(getattr(part, key), getattr(clean_part, key))
        assert (part.pooled[batch.damaged[:, m]] == getattr(model, f"{name}_pooled_mean")).all()


def test_damage_depends_on_row_and_epoch_but_not_on_the_rest_of_the_batch(packed_and_model):
    packed, model = packed_and_model
    rows = np.repeat(np.arange(60), 2)
    some = rows[20:60]
    whole, part, other_epoch = packed(rows), packed(some), packed(some)
    feature_damage = FeatureDamage(model, 0.5, seed=3)
    feature_damage(whole, rows, epoch=1)
    feature_damage(part, some, epoch=1)
    feature_damage(other_epoch, some, epoch=2)
    for name in DAMAGED_MODALITIES:
        x = part.modality(name).x
        assert torch.equal(x, whole.modality(name).x[20:60, : x.shape[1]])
    assert not torch.equal(part.damaged, other_epoch.damaged)


def test_damaged_views_are_replaced_by_damaged_features():
    samples = synthetic_features.samples({"train": 30}, views=1)
    packed, model = PackedSamples(samples), fitted_model(samples)
    rows = np.arange(60)
    clean, batch = packed(rows), packed(rows)
    FeatureDamage(model, 1.0, seed=0)(batch, rows, epoch=0)
    replaced = (batch.vision.present | batch.audio.present)[::2]  # without either, the view stays
    for m, name in enumerate(MODALITIES):
        part, clean_part = batch.modality(name), clean.modality(name)
        intact = replaced & ~batch.damaged[1::2, m]
        assert torch.equal(part.x[1::2][intact], clean_part.x[::2][intact])
        assert torch.equal(part.quality[1::2][replaced], clean_part.quality[::2][replaced])


def write_damaged_features(path: Path) -> None:
    """Each clip has a view with one modality damaged in its features; the quality signals do not show it."""
    rng = np.random.default_rng(1)
    clips = synthetic_features.samples({"train": 160, "valid": 40, "test": 200}, views=0)
    rows = []
    for clip in clips:
        present = [name for name in DAMAGED_MODALITIES if clip.modality(name).steps]
        view = replace(clip, view=1, damage=dict(clip.damage))
        if present:
            name, kind = str(rng.choice(present)), str(rng.choice(KINDS))
            part, half = clip.modality(name), torch.full((synthetic_features.WIDTHS[name],), 0.5)
            x = damage(torch.from_numpy(part.sequence).float(), kind, half, half, rng)
            setattr(view, name, replace(part, sequence=x.numpy().astype(np.float16)))
            view.damage[name] = kind
        rows += [clip, view]
    write(path, rows, synthetic_features.info(views=1))


def test_quality_weights_learn_to_see_damage_in_features(tmp_path, monkeypatch):
    """On clips that were not trained on."""
    long_sample = functools.partial(synthetic_features.sample, steps=(30, 40, 4))
    monkeypatch.setattr(synthetic_features, "sample", long_sample)
    write_damaged_features(tmp_path / "f")
    auc = {}
    for share in (0.0, 0.7):
        options = ["--train.damaged_views", "false", "--train.feature_damage", share, "--loss.quality", 1.0]
        run = config(tmp_path / "f", tmp_path / str(share), *options, "--train.epochs", 12, "--train.lr", 2e-3)
        info = evaluate(EvaluateConfig(model=trainer.train(run), data=tmp_path / "f")).info
        auc[share] = info.damaged_on_purpose.damage.vision.auc
    assert auc[0.7] > auc[0.0] + 0.1 and auc[0.7] > 0.6  # measured: 0.48 and 0.66


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 48, "valid": 16, "test": 16}, views=0)
    options = ["--train.epochs", 4, "--train.feature_damage", 0.5]
    whole = trainer.train(config(data, tmp_path / "whole", *options))
    resumed = synthetic_features.train_interrupted(monkeypatch, config(data, tmp_path / "resumed", *options))
    assert (whole / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_fraction_outside_0_to_1_and_finetuning_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        config(tmp_path, tmp_path, "--train.feature_damage", 1.5)
    assert "--train.feature_damage is 1.5: expected a number from 0 to 1" in capsys.readouterr().err
    data = synthetic_features.write_features(tmp_path / "f", {"train": 16, "valid": 8, "test": 8})
    with pytest.raises(UserError, match="leave out --finetune"):
        trainer.train(config(data, tmp_path / "r", "--train.feature_damage", 0.5, "--finetune", "{text: 1}"))
