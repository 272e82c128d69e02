"""Tiny encoders with real towers."""

import copy

import numpy as np
import torch
from helpers.rounding import assert_same_up_to_rounding

from stage1_align.encoders import AlignedEncoders
from stage1_align.towers.text_transformer import SentencePieceTokenizer

TEXTS = [
    "that is so funny I cannot stop laughing",
    "I am sad about the dog",
    "no emotion at all today",
    "strong joy and a little amusement",
]

TOWERS = {
    "vision": {
        "name": "open_clip",
        "options": {"vision_cfg": {"layers": 1, "width": 32, "patch_size": 16, "head_width": 16}, "image_size": 32},
    },
    "audio": {
        "name": "htsat",
        "options": {
            "n_fft": 512,
            "hop": 512,
            "spec_size": 64,
            "patch_size": 4,
            "patch_stride": 4,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
        },
    },
    "text": {
        "name": "transformer",
        "options": {
            "vocab_size": 60,
            "context_length": 16,
            "model_cfg": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
        },
    },
}


def encoders(seed: int = 0) -> AlignedEncoders:

    torch.manual_seed(seed)
    tokenizer = SentencePieceTokenizer.train(TEXTS, 60)
    towers = copy.deepcopy(TOWERS)
    towers["text"]["options"]["vocab_size"] = len(tokenizer)
    built = AlignedEncoders.build(towers, 8)
    built.text.tokenizer = tokenizer
    return built.eval()


def items(seed: int = 0) -> dict[str, list]:
    """Four clips of unequal length; the second has no video, the third no sound, the fourth no words."""
    rng = np.random.default_rng(seed)
    return {
        "vision": [rng.integers(0, 256, (t, 40, 40, 3), dtype=np.uint8) for t in (3, 0, 6, 1)],
        "audio": [rng.uniform(-0.3, 0.3, s).astype(np.float32) for s in (9000, 70000, 0, 40000)],
        "text": [TEXTS[0], TEXTS[1], "dog", ""],
    }


def assert_windows_hold_all(tower, text: str, batch, row: int) -> None:
    """A long text is the windows of its tokens, computed one by one, end to end; pooled, their mean by tokens."""
    tokenizer, length = tower.tokenizer, tower.options.context_length
    ids = tokenizer(tower.prepare_text(text))
    start, end = tokenizer.marks(ids)
    windows = tokenizer.windows(ids, length)
    inner = [window[len(start) : len(window) - len(end)] for window in windows]
    assert len(windows) > 1 and max(map(len, windows)) <= length
    assert [i for part in inner for i in part] == ids[len(start) : len(ids) - len(end)]
    alone = [tower(*tokenizer.pad([window])) for window in windows]
    steps = sum(map(len, windows))
    assert int(batch.mask[row].sum()) == steps
    assert_same_up_to_rounding(batch.sequence[row, :steps], torch.cat([part.sequence[0] for part in alone]))
    mean = sum(len(window) * part.pooled[0] for window, part in zip(windows, alone, strict=True))
    assert_same_up_to_rounding(batch.pooled[row], mean / mean.norm())


def encode_checked(tower, items: list):
    """The encoded batch, after a check that each item gives the same alone."""
    batch = tower.encode_prepared(items)
    for row, item in enumerate(items):
        single = tower.encode_prepared([item])
        steps = int(single.mask.sum())
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0, :steps])
        assert int(batch.mask[row].sum()) == steps
    return batch
