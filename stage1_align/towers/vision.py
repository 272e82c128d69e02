"""Vision: any open_clip image tower (timm trunks through it), run on each frame of a clip."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from stage1_align.towers.base import Encoded, Tower, pad


@dataclass
class VisionOptions:
    model: str | None = None
    """Name of an open_clip model (`ViT-B-32`); None builds one from `vision_cfg`."""
    pretrained: str | None = None
    """open_clip's pretrained tag, or a checkpoint file; None starts from random weights."""
    vision_cfg: dict = field(default_factory=dict)
    """open_clip's own vision configuration, when `model` is None."""
    image_size: int = 64
    """Side of the square frames the tower sees, pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from frames in [0, 1]."""
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    """What frames are divided by afterwards."""
    standardise: bool = False
    """Use each clip's own mean and deviation instead: light, skin and camera then differ less than expressions do."""
    peak: bool = False
    """Pool the maximum over time beside the mean: an expression is over in a moment."""
    bf16: bool = True
    """Whether this tower follows the run's bf16: depthwise convolutions are slower in it on a CPU."""


class OpenClipVision(Tower):
    """Frames (T, H, W, 3) of one clip to per-frame features (T, C) and their mean in the shared space."""

    Options = VisionOptions

    def __init__(self, options: VisionOptions, embed_dim: int):
        import open_clip
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        import stage1_align.towers.small_cnn  # noqa: F401  (registers itself with timm)

        super().__init__(options, embed_dim)
        if options.model:
            visual = open_clip.create_model(options.model, pretrained=options.pretrained).visual
        else:
            cfg = CLIPVisionCfg(**{"image_size": options.image_size, **options.vision_cfg})
            visual = _build_vision_tower(embed_dim, cfg)
        self.trunk = visual.trunk if hasattr(visual, "trunk") else visual
        if getattr(visual, "proj", None) is not None and isinstance(visual.proj, nn.Parameter):
            visual.proj = None  # the trunk's own width is what stage 2 reads
        with torch.no_grad():
            probe = self.trunk.eval()(torch.zeros(1, 3, options.image_size, options.image_size))  # (1, C)
        self._width = probe.shape[-1]
        self.project = self._projection()
        self.register_buffer("mean", torch.tensor(options.mean).view(3, 1, 1), persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(options.std).view(3, 1, 1), persistent=False)  # (3, 1, 1)

    @property
    def width(self) -> int:
        return self._width

    def config(self) -> dict:
        """What rebuilds this tower; its weights come from the exported file, not from a hub."""
        return {**dataclasses.asdict(self.options), "pretrained": None}

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Frames uint8 (T_i, H, W, 3) to frames uint8 (B, T, 3, S, S) and mask (B, T)."""
        size = self.options.image_size
        frames, mask = pad([resize(item, size) for item in items])
        return {"frames": frames, "mask": mask}

    def forward(self, frames: Tensor, mask: Tensor) -> Encoded:
        """frames uint8 or float [0, 255] (B, T, 3, S, S), mask bool (B, T)."""
        x = frames[mask].float() / 255  # (N, 3, S, S): the real frames alone
        x = _standardise(x, mask) if self.options.standardise else (x - self.mean) / self.std  # (N, 3, S, S)
        if len(x) == 0:  # no gradient hole on a process whose clips all lack video
            x = torch.zeros(1, *frames.shape[2:], device=frames.device)
        device = x.device.type
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and self.options.bf16):
            features = self.trunk(x).float()  # (N, C)
        count = int(mask.sum())
        sequence = features.new_zeros(*mask.shape, self.width)  # (B, T, C)
        sequence[mask] = features[:count]
        if count == 0:
            sequence = sequence + 0 * features.sum()
        return self._finish(sequence, mask, None)


def _standardise(x: Tensor, mask: Tensor) -> Tensor:
    """Frames (N, 3, S, S) of the clips in mask (B, T), each clip to mean 0 and about unit deviation."""
    clip = mask.nonzero()[:, 0]  # (N,)
    count = mask.sum(1).clamp(min=1).float()  # (B,)

    def per_clip(value: Tensor) -> Tensor:
        mean = torch.zeros_like(count).index_add(0, clip, value.flatten(1).mean(1)) / count  # (B,)
        return mean[clip].view(-1, 1, 1, 1)  # (N, 1, 1, 1)

    x = x - per_clip(x)  # (N, 3, S, S)
    return x / (per_clip(x.square()).sqrt() + 0.05)  # the constant keeps darkness dark


def resize(frames: np.ndarray, size: int) -> Tensor:
    """uint8 (T, H, W, 3) to uint8 (T, 3, size, size), antialiased."""
    import cv2

    if frames.shape[1:3] != (size, size):
        scaled = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames]
        frames = np.stack(scaled) if scaled else np.zeros((0, size, size, 3), np.uint8)  # (T, S, S, 3)
    return torch.from_numpy(rearrange(frames, "t h w c -> t c h w").copy())  # (T, 3, S, S)
