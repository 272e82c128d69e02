"""Stage 1: contrastive training of a vision, an audio and a text encoder, and the aligned encoders it exports.

>>> from stage1_align import AlignedEncoders
>>> encoders = AlignedEncoders.from_pretrained("runs/demo/encoders")

Names are imported on first use: `import stage1_align` alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage1_align.encoders import AlignedEncoders, RawClip
    from stage1_align.towers.audio_tower import AudioTower
    from stage1_align.towers.base import Encoded
    from stage1_align.towers.text_tower import TextTower
    from stage1_align.towers.vision_tower import VisionTower

__all__ = ["AlignedEncoders", "AudioTower", "Encoded", "RawClip", "TextTower", "VisionTower"]

_MODULES = {
    "AlignedEncoders": "stage1_align.encoders",
    "AudioTower": "stage1_align.towers.audio_tower",
    "Encoded": "stage1_align.towers.base",
    "RawClip": "stage1_align.encoders",
    "TextTower": "stage1_align.towers.text_tower",
    "VisionTower": "stage1_align.towers.vision_tower",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
