"""Damage done to features: what it does to a sequence, which rows it touches, and that weights learn from it."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic_features
from helpers.synthetic_features import config

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion import train as trainer
from stage2_fusion.commands.evaluate import evaluate
from stage2_fusion.config import EvaluateConfig
from stage2_fusion.data.batches import PackedSamples
from stage2_fusion.data.feature_damage import DAMAGED, KINDS, FeatureDamage, damage
from stage2_fusion.data.features import write
from stage2_fusion.models.base import FeatureSpec, FusionModel


def fitted(samples):
    """A model that has the statistics of the samples."""
    model = FusionModel.build("concat", {"width": 8}, FeatureSpec.of(synthetic_features.info()))
    model.fit_statistics(samples)
    return model


@pytest.fixture(scope="module")
def made():
    samples = synthetic_features.samples({"train": 60}, views=0)
    return PackedSamples(samples), fitted(samples)


def test_each_kind_leaves_its_mark():
    x, mean, deviation = torch.randn(40, 6) + 3, torch.full((6,), 3.0), torch.tensor([0.0, 1, 1, 1, 1, 5])
    rng = np.random.default_rng(0)
    noisy = damage(x, "noise", mean, deviation, rng)
    spread = (noisy - x).std(dim=0)
    assert spread[0] == 0 and (spread[1:5] > 0.7).all() and (spread[1:5] < 4).all() and spread[5] > 3
    frozen = damage(x, "frozen", mean, deviation, rng)
    assert (frozen == frozen[0]).all() and (x == frozen[0]).all(dim=1).sum() == 1
    blank = damage(x, "blank", mean, deviation, rng)
    changed = (blank != x).any(dim=1)
    where = changed.nonzero().flatten()
    assert changed.sum() >= 24 and len(where) == where[-1] - where[0] + 1 and (blank[changed] == 3).all()
    for kind in KINDS:  # a single step is not left as it was
        assert not torch.equal(damage(x[:1], kind, mean, deviation, rng), x[:1])


def test_second_rows_become_the_first_with_one_modality_damaged(made):
    batches, model = made
    rows = np.repeat(np.arange(60), 2)
    clean, batch = batches(rows), batches(rows)
    FeatureDamage(model, 0.5, seed=3)(batch, rows, epoch=1)
    hit = batch["damaged"].any(dim=1)
    assert not hit[::2].any() and 15 < hit.sum() < 45 and (batch["damaged"].sum(dim=1) <= 1).all()
    for m, name in enumerate(MODALITIES):
        same = (batch[name]["x"] == clean[name]["x"]).flatten(1).all(dim=1)  # (B,)
        assert torch.equal(~same, batch["damaged"][:, m])
        assert (name in DAMAGED) == bool(batch["damaged"][:, m].any())
        for key in ("mask", "times", "quality", "present"):
            assert torch.equal(batch[name][key], clean[name][key])
        pooled = batch[name]["pooled"][batch["damaged"][:, m]]
        assert (pooled == getattr(model, f"{name}_pooled_mean")).all()
    # A pair's damage is its own: other company, or another process, changes nothing; another epoch does.
    some = rows[20:60]
    part, later = batches(some), batches(some)
    FeatureDamage(model, 0.5, seed=3)(part, some, epoch=1)
    FeatureDamage(model, 0.5, seed=3)(later, some, epoch=2)
    for name in DAMAGED:
        steps = part[name]["x"].shape[1]
        assert torch.equal(part[name]["x"], batch[name]["x"][20:60, :steps])
    assert not torch.equal(part["damaged"], later["damaged"])


def test_a_view_gives_way_to_damaged_features():
    samples = synthetic_features.samples({"train": 30}, views=1)
    batches, model = PackedSamples(samples), fitted(samples)
    rows = np.arange(60)
    clean, batch = batches(rows), batches(rows)
    FeatureDamage(model, 1.0, seed=0)(batch, rows, epoch=0)
    for m, name in enumerate(MODALITIES):
        whole = ~batch["damaged"][1::2, m]
        there = (batch["vision"]["present"] | batch["audio"]["present"])[::2]  # else the view is what it was
        assert torch.equal(batch[name]["x"][1::2][whole & there], clean[name]["x"][::2][whole & there])
        assert torch.equal(batch[name]["quality"][1::2][there], clean[name]["quality"][::2][there])


def test_weights_learn_what_damage_looks_like_in_features(tmp_path, monkeypatch):
    """Clips nobody trained on, one modality of each damaged in its features; quality signals say nothing."""
    sample = synthetic_features.sample
    monkeypatch.setattr(synthetic_features, "sample", functools.partial(sample, steps=(30, 40, 4)))
    clips, rng = synthetic_features.samples({"train": 160, "valid": 40, "test": 200}, views=0), np.random.default_rng(1)
    rows, usual = [], {n: (torch.full((synthetic_features.WIDTHS[n],), 0.5),) * 2 for n in DAMAGED}
    for clip in clips:
        there = [name for name in DAMAGED if len(clip[name]["sequence"])]
        view = replace(clip, view=1, damage=dict(clip.damage))
        if there:
            name, kind = str(rng.choice(there)), str(rng.choice(KINDS))
            x = torch.from_numpy(clip[name]["sequence"]).float()
            part = replace(clip.modality(name), sequence=damage(x, kind, *usual[name], rng).numpy().astype(np.float16))
            setattr(view, name, part)
            view["damage"][name] = kind
        rows += [clip, view]
    write(tmp_path / "f", rows, synthetic_features.info() | {"views": 1, "seed": 0})
    found = {}
    for share in (0.0, 0.7):
        options = ["--train.damaged_views", "false", "--train.feature_damage", share, "--loss.quality", 1.0]
        run = config(tmp_path / "f", tmp_path / str(share), *options, "--train.epochs", 12, "--train.lr", 2e-3)
        scored = evaluate(EvaluateConfig(model=trainer.train(run), data=tmp_path / "f"))
        found[share] = scored["damaged_on_purpose"]["damage"]["vision"]["auc"]
    assert found[0.7] > found[0.0] + 0.1 and found[0.7] > 0.6  # seen: 0.48 and 0.66


def test_it_resumes_to_the_bit(tmp_path, monkeypatch):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 48, "valid": 16, "test": 16}, views=0)
    options = ["--train.epochs", 4, "--train.feature_damage", 0.5]
    whole = trainer.train(config(data, tmp_path / "whole", *options))
    parts = synthetic_features.train_interrupted(monkeypatch, config(data, tmp_path / "parts", *options))
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()


def test_a_share_is_a_share_and_towers_that_train_along_have_no_features(tmp_path):
    with pytest.raises(UserError, match=r"a fraction lies in \[0, 1\]"):
        config(tmp_path, tmp_path, "--train.feature_damage", 1.5)
    data = synthetic_features.write_features(tmp_path / "f", {"train": 16, "valid": 8, "test": 8})
    with pytest.raises(UserError, match="leave out --finetune"):
        trainer.train(config(data, tmp_path / "r", "--train.feature_damage", 0.5, "--finetune", "{text: 1}"))
