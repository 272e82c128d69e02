"""Freezing, layer-wise learning rates and checkpointing, which rely on blocks() alone."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers.stage1_tiny import TOWERS
from torch import nn

from shared.errors import UserError
from stage1_align.encoders import AlignedEncoders
from stage1_align.towers.base import Tower
from stage1_align.towers.vision_open_clip import OpenClipVision

VIT = {"layers": 3, "width": 32, "patch_size": 16, "head_width": 16}


@dataclasses.dataclass
class PlainOptions:
    max_pool: bool = False


class PlainTower(Tower):
    """Parameters in every possible place: before, in, between and after two blocks."""

    Options = PlainOptions
    LATE = ("registered_early",)

    def __init__(self):
        super().__init__(PlainOptions(), 2)
        self.registered_early = nn.LayerNorm(4)
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.layers = nn.ModuleList([self.block(), self.block()])
        self.norm = nn.LayerNorm(4)
        self.fixed = nn.Parameter(torch.ones(4), requires_grad=False)
        self.project = nn.Linear(4, 2)
        self.query = nn.Parameter(torch.zeros(4))

    def block(self):
        return nn.ModuleDict({"linear": nn.Linear(4, 4), "dropout": nn.Dropout(0.5)})

    def blocks(self):
        return list(self.layers)


def trained(tower):
    return {name.rsplit(".", 1)[0] for name, parameter in tower.named_parameters() if parameter.requires_grad}


def in_training_mode(tower):
    return {name for name, module in tower.named_modules() if module.training and not list(module.children())}


STEM = {"stem.0", "stem.1"}
FIRST, LAST = {"layers.0.linear"}, {"layers.1.linear"}
AFTER, HEADS = {"registered_early", "norm"}, {"project", "query"}


@pytest.mark.parametrize(
    "unfreeze, trains",
    [
        (None, STEM | FIRST | LAST | AFTER | HEADS),
        (0, HEADS),
        (1, LAST | AFTER | HEADS),
        (2, FIRST | LAST | AFTER | HEADS),
    ],
)
def test_frozen_modules_do_not_train_and_stay_in_evaluation_mode(unfreeze, trains):
    tower = PlainTower()
    tower.freeze(0)
    tower.freeze(unfreeze)  # the last call counts
    assert trained(tower) == trains  # never `fixed`
    for _ in range(2):
        tower.train()
        dropout = {"stem.2"} if unfreeze is None else set()
        dropout |= {name.replace("linear", "dropout") for name in trains if "linear" in name}
        assert in_training_mode(tower) == (trains - {"query"}) | dropout
        tower.eval()
        assert in_training_mode(tower) == set()


def test_unfreezing_more_blocks_than_exist_is_an_error():
    with pytest.raises(UserError, match="has 2 blocks"):
        PlainTower().freeze(3)


def test_learning_rate_factors_by_hand():
    factors = PlainTower().lr_factors(0.5)
    expected = {**dict.fromkeys(HEADS | AFTER, 1.0), **dict.fromkeys(LAST, 0.5), **dict.fromkeys(FIRST, 0.25)}
    expected |= dict.fromkeys(STEM, 0.125)
    assert factors.pop("fixed") == 0.125  # parameters of the tower itself come before its modules
    assert {name.rsplit(".", 1)[0] for name in factors} == set(expected)
    for name, factor in factors.items():
        assert factor == expected[name.rsplit(".", 1)[0]], name
    assert set(PlainTower().lr_factors(1.0).values()) == {1.0}


def vision(seed=0, **options):
    torch.manual_seed(seed)
    return OpenClipVision.from_options({"image_size": 32, "vision_cfg": VIT, **options}, 8)


def items():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (t, 32, 32, 3), dtype=np.uint8) for t in (3, 1)]


def gradients(tower, seed=5):
    torch.manual_seed(seed)
    tower.zero_grad()
    tower(**tower.collate(items())).pooled[:, 0].sum().backward()
    return {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}


FAMILIES = {
    "ViT": ({"vision_cfg": {**VIT, "patch_dropout": 0.5}}, 3),
    "ResNet": ({"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8}}, 4),
    "timm ViT": ({"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "timm_drop_path": 0.5}}, 12),
    "timm ConvNeXt": ({"vision_cfg": {"timm_model_name": "convnext_atto", "timm_drop_path": 0.5}}, 4),
    "timm ResNet": ({"vision_cfg": {"timm_model_name": "resnet10t"}}, 4),
    "small_cnn": ({"vision_cfg": {"timm_model_name": "emit_small_cnn"}}, 4),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_no_gradient(family):
    options, blocks = FAMILIES[family]
    tower = vision(**options).train()
    assert len(tower.blocks()) == blocks
    calls = []
    tower.blocks()[-1].register_forward_pre_hook(lambda *_: calls.append(1))
    inner = next(m for m in tower.blocks()[-1].modules() if not list(m.children()))
    inner.register_forward_hook(lambda *_: calls.append("inner"))
    running = copy.deepcopy(tower.state_dict())
    plain = gradients(tower)
    once = calls.count("inner")
    tower.load_state_dict(running)
    tower.set_checkpointing(True)
    calls.clear()
    recomputed = gradients(tower)
    assert calls.count("inner") == 2 * once  # recomputed
    assert plain.keys() == recomputed.keys() == {n for n, p in tower.named_parameters() if p.requires_grad}
    for name in plain:
        torch.testing.assert_close(recomputed[name], plain[name], rtol=1e-5, atol=1e-7)
    tower.set_checkpointing(False)
    calls.clear()
    gradients(tower)
    assert calls.count("inner") == once


def test_checkpointing_repeats_dropout():
    """Without randomness, the gradients above would agree too: here another seed changes them."""
    tower = vision(vision_cfg={**VIT, "patch_dropout": 0.5}).train()
    tower.set_checkpointing(True)
    a, b, other = gradients(tower, 5), gradients(tower, 5), gradients(tower, 6)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.allclose(a["trunk.conv1.weight"], other["trunk.conv1.weight"])


def test_checkpointed_tower_can_be_copied_frozen_and_used():
    tower = vision()
    tower.set_checkpointing(True)
    tower.freeze(1)
    clone = copy.deepcopy(tower)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.mul_(2)
    assert clone.blocks()[0].forward.args[0] is clone.blocks()[0]  # not the original's block
    plain = vision()
    torch.testing.assert_close(
        tower.eval().encode_prepared(items()).pooled, plain.eval().encode_prepared(items()).pooled
    )
    got = gradients(tower.train())
    assert got.keys() == {n for n, p in tower.named_parameters() if p.requires_grad}
    assert any(name.startswith("trunk.transformer.resblocks.2.") for name in got)
    assert not any(name.startswith("trunk.transformer.resblocks.1.") for name in got)
    assert {"trunk.ln_post.weight", "project.weight"} <= got.keys() and "trunk.conv1.weight" not in got


def test_only_trained_batch_statistics_change():
    tower = vision(vision_cfg=FAMILIES["ResNet"][0]["vision_cfg"])
    tower.freeze(1)
    before = copy.deepcopy(tower.train().state_dict())
    gradients(tower)
    after = tower.state_dict()
    moved = {
        name.split(".")[1] for name in after if "running_mean" in name and not torch.equal(after[name], before[name])
    }
    assert moved == {"layer4"}


def test_own_projection_belongs_to_the_trunk():
    tower = vision(projection="own", pool="attention")
    tower.freeze(0)
    assert trained(tower) == {"query"}
    tower.freeze(1)
    assert {"query", "project"} <= trained(tower)


def test_tower_without_blocks_refuses_options_that_need_them():
    class WithoutBlocks(PlainTower):
        def blocks(self):
            return []

    tower = WithoutBlocks()
    tower.freeze(0)
    assert trained(tower) == HEADS
    assert set(tower.lr_factors(1.0).values()) == {1.0}
    for act in (lambda: tower.freeze(1), lambda: tower.lr_factors(0.9), lambda: tower.set_checkpointing(True)):
        with pytest.raises(UserError, match=r"WithoutBlocks has (0|no) blocks"):
            act()


def test_build_ignores_training_options_of_a_tower():
    towers = {m: {**spec, "unfreeze": 0, "layer_decay": 0.8, "checkpointing": True} for m, spec in TOWERS.items()}
    assert AlignedEncoders.build(towers, 8).vision.width == 32
