"""Damage that comes and goes, mixed from an undamaged clip and its damaged view."""

import numpy as np
import pytest
import torch
from helpers.synthetic_features import config, damaged, sample, write_features

from stage2_fusion.data.batches import collate, within_spans
from stage2_fusion.data.passing_damage import PassingDamage, draw_stretches
from stage2_fusion.models.base import Output
from stage2_fusion.train import train


def test_stretches_alternate_and_begin_within_the_clip():
    for seed in range(50):
        stretches = draw_stretches(4.0, np.random.default_rng(seed))
        edges = np.array(stretches).ravel()
        assert (np.diff(edges) >= 0.3 - 1e-9).all() and (np.diff(edges) <= 1.2 + 1e-9).all()
        assert 0 <= edges[0] <= 1.2 and stretches[-1][0] < 4.0 < stretches[-1][1] + 1.2 + 1e-9


def test_times_within_spans_by_hand():
    times = torch.tensor([[0.0, 0.5, 1.0, 1.5], [0.0, 0.5, 1.0, 1.5]])
    spans = torch.tensor([[[0.5, 1.0], [1.4, 2.0]], [[-torch.inf, torch.inf], [torch.inf, -torch.inf]]])
    assert within_spans(times, spans).tolist() == [[False, True, False, True], [True] * 4]


def test_weights_are_averaged_over_the_damaged_steps_alone():
    """By hand: of the weights .2 .4 .6 .8 at 0 to 1.5 s, those of .5 and 1.5 s."""
    weights = torch.tensor([[0.2, 0.4, 0.6, 0.8]])[..., None].expand(1, 4, 3)
    output = Output(
        torch.zeros(1, 2), weights, torch.ones(1, 4, dtype=bool), times=torch.tensor([[0.0, 0.5, 1.0, 1.5]])
    )
    assert output.clip_weights(torch.tensor([[[0.5, 1.0], [1.4, 2.0]]])).tolist() == [pytest.approx([0.6] * 3)]
    assert output.clip_weights(torch.tensor([[[8.0, 9.0]]])).tolist() == [pytest.approx([0.5] * 3)]
    assert output.clip_weights().tolist() == [pytest.approx([0.5] * 3)]


@pytest.mark.parametrize("name", ["vision", "audio", "text"])
def test_steps_outside_the_stretches_are_those_of_the_undamaged_clip(name):
    rng = np.random.default_rng(0)
    clean = sample(rng, steps=(30, 30, 4))
    views = [clean, damaged(rng, clean, name, 1)]
    before, batch = collate(views), collate(views)
    mixed = PassingDamage(1.0, 0)(batch, np.array([0, 1]), 0)
    again = PassingDamage(1.0, 0)(collate(views), np.array([0, 1]), 0)
    part, old = mixed.modality(name), before.modality(name)
    assert torch.equal(part.x, again.modality(name).x) and torch.equal(part.x[0], old.x[0])
    if name == "text":  # words have no times: missing for the whole clip
        assert torch.equal(part.x, old.x) and mixed.damage_spans.isinf().all()
        return
    inside = within_spans(part.times, mixed.damage_spans)  # (2, T)
    assert torch.equal(inside[0], inside[1]) and inside[1].any() and not inside[1].all()
    source = torch.where(inside[1], 1, 0)  # the row that each step comes from
    steps = torch.arange(len(source))
    assert torch.equal(part.x[1], old.x[source, steps]) and torch.equal(part.quality[1], old.quality[source, steps])
    share = inside[1].float().mean()
    assert torch.allclose(part.pooled[1], old.pooled[0] * (1 - share) + old.pooled[1] * share, atol=1e-6)
    assert mixed.damaged.tolist() == before.damaged.tolist()


def test_no_share_changes_nothing():
    rng = np.random.default_rng(0)
    clean = sample(rng)
    views = [clean, damaged(rng, clean, "vision", 1)]
    batch = PassingDamage(0.0, 0)(collate(views), np.array([0, 1]), 0)
    assert torch.equal(batch.vision.x, collate(views).vision.x) and batch.damage_spans.isinf().all()


def test_training_with_passing_damage_differs_and_repeats(tmp_path):
    data = write_features(tmp_path / "features")
    losses = []
    for run, share in (("a", 0.0), ("b", 1.0), ("c", 1.0)):
        options = ["--train.epochs", 1, "--train.passing_damage", share, "--options.weight_per", "step"]
        folder = train(config(data, tmp_path / run, *options))
        losses.append((folder / "model.safetensors").read_bytes())
    assert losses[0] != losses[1] == losses[2]
