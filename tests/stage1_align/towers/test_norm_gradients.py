"""Every normalization layer of every tower has the right gradients, in each state in which it trains."""

import copy

import numpy as np
import pytest
import torch
from helpers.audio_tiny import KINDS, randomize, sounds
from helpers.norm_gradients import assert_right_gradients
from helpers.stage1_tiny import TEXTS
from helpers.stage1_tiny import TOWERS as TINY

from stage1_align.towers import TOWERS
from stage1_align.towers.text_transformer import SentencePieceTokenizer

CNN = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
TEXT_CFG = {"context_length": 12, "width": 16, "heads": 2, "layers": 2}
BERT = TINY["text"]["options"]["model_cfg"]
CASES = {
    **{f"audio {kind}": ("audio", *spec) for kind, spec in KINDS.items()},
    "audio demo": ("audio", "htsat", {"spec_size": 64}),
    "vision ViT": ("vision", "open_clip", {"vision_cfg": TINY["vision"]["options"]["vision_cfg"]}),
    "vision ResNet": ("vision", "open_clip", {"vision_cfg": CNN}),
    "vision timm ResNet": ("vision", "open_clip", {"vision_cfg": {"timm_model_name": "resnet10t"}}),
    "vision timm MobileNet": ("vision", "open_clip", {"vision_cfg": {"timm_model_name": "mobilenetv2_035"}}),
    "vision timm ConvNeXt": ("vision", "open_clip", {"vision_cfg": {"timm_model_name": "convnext_atto"}}),
    "vision small_cnn": ("vision", "open_clip", {"vision_cfg": {"timm_model_name": "emit_small_cnn"}}),
    "text bert": ("text", "transformer", {"vocab_size": 60, "model_cfg": BERT}),
    "text open_clip": ("text", "open_clip", {"text_cfg": TEXT_CFG}),
}


def tower_and_items(modality: str, name: str, options: dict):
    """A small tower with varied weights, and two batches for it: several items, and a single short one."""
    torch.manual_seed(0)
    size = {"image_size": 64} if modality == "vision" else {}
    tower = TOWERS[modality].get(name).from_options(copy.deepcopy({**options, **size}), 8)
    rng = np.random.default_rng(0)
    if modality == "audio":
        return randomize(tower), [sounds(25000, 9000), sounds(3000)]
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if modality == "text":
        if tower.tokenizer is None:
            tower.tokenizer = SentencePieceTokenizer.train(TEXTS, 60)
        return tower, [TEXTS, TEXTS[:1]]
    return tower, [[rng.integers(0, 256, (t, 64, 64, 3), dtype=np.uint8) for t in counts] for counts in ((3, 1), (1,))]


def test_every_registered_tower_is_tested():
    tested = {(modality, name) for modality, name, _ in CASES.values()}
    assert tested == {(modality, name) for modality in TOWERS for name in TOWERS[modality].names()}


@pytest.mark.parametrize("case", CASES)
def test_norms_of_a_tower_have_the_right_gradients(case: str):
    tower, batches = tower_and_items(*CASES[case])
    for unfreeze, training in ((None, True), (None, False), (min(1, len(tower.blocks())), True)):
        tower.freeze(unfreeze)
        tower.train(training)
        for items in batches:

            def loss(items=items):
                torch.manual_seed(1)
                encoded = tower(**tower.collate(items))
                return (encoded.pooled * torch.randn(encoded.pooled.shape)).sum() + encoded.sequence.square().mean()

            compared = assert_right_gradients(tower, loss)
            assert compared, f"{case}: no norm was compared"
