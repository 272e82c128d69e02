"""Vision: any open_clip image tower, including timm trunks, run on each frame of a clip."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from shared.errors import UserError
from shared.options.ranges import CheckedOptions, Deviation, Fraction, FrameSize
from shared.registry import nearest
from shared.text import one_line
from stage1_align.towers import frame_inputs, open_clip_loading, small_cnn
from stage1_align.towers.base import Encoded, pad
from stage1_align.towers.vision_tower import VisionTower

DEFAULTS = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "area"}
MAX_FRAMES = 256
"""Frames per trunk call in inference, so that memory does not grow with clip length."""
CHOICES = {
    "pool": ("mean", "attention"),
    "projection": ("linear", "own"),
    "interpolation": ("area", "bilinear", "bicubic"),
}


@dataclass
class VisionOptions(CheckedOptions):
    RENAMED: ClassVar[dict[str, str]] = {"peak": "max_pool", "standardise": "standardize"}

    model: str | None = None
    """Name of an open_clip model (`ViT-B-32`); None: the model in the folder `pretrained`, or `vision_cfg`."""
    pretrained: str | None = None
    """open_clip's tag of the weights, a checkpoint file (.pt, .safetensors), a folder as published on a hub with
    open_clip_config.json and open_clip_model.safetensors, or a timm folder (config.json, model.safetensors). None:
    random weights."""
    vision_cfg: dict = field(default_factory=dict)
    """Fields of open_clip's vision configuration, and the `embed_dim` and `quick_gelu` stored next to it. With a model,
    changes to its configuration ({patch_dropout: 0.5}); otherwise the whole tower."""
    image_size: FrameSize | None = None
    """Side of the square input frames, pixels; None: the model's, or 64 for a tower with only `vision_cfg`."""
    mean: tuple[Fraction, Fraction, Fraction] | None = None
    """Subtracted from frames in [0, 1]; None: the model's, or 0.5 for a tower with only `vision_cfg`."""
    std: tuple[Deviation, Deviation, Deviation] | None = None
    """Divides the frames afterwards; None: the model's, or 0.25 for a tower with only `vision_cfg`."""
    interpolation: Literal["area", "bilinear", "bicubic"] | None = None
    """How frames are resized, always antialiased; None: the model's, or area for a tower with only `vision_cfg`."""
    standardize: bool = False
    """Use each clip's mean and standard deviation instead, so that lighting, skin and camera differ less between clips
    than expressions do."""
    motion: bool = False
    """Replace the colors by the gray frame, its difference from the clip's mean frame, and how much each pixel varies
    over the clip, all standardized over the clip: what a face does rather than whose face it is. For towers with random
    weights."""
    mean_tokens: bool = False
    """Use the mean of all tokens of a frame after the final norm, class token included, instead of the model's own
    pooling (usually the class token), as the sources of concat_lstm and text_anchored do. For ViTs of timm."""
    pool: Literal["mean", "attention"] = "mean"
    """How frames are pooled: the mean, or attention pooling with a learned query, which starts as the plain mean."""
    max_pool: bool = False
    """Also pool the maximum over time: an expression may be brief."""
    projection: Literal["linear", "own"] = "linear"
    """Projection of the pooled frames to the shared space: linear is a new layer; own is the model's projection, which
    keeps the alignment with its text tower and needs the model's embed_dim."""
    bf16: bool = True
    """Whether this tower uses bf16 if the run does: on a CPU, depthwise convolutions are slower in bf16."""


class OpenClipVision(VisionTower):
    """Frames (T, H, W, 3) of one clip to per-frame features (T, C), taken before the model's projection, and one vector
    in the shared space.

    After construction, `self.options` also contains the model's settings, so that `config()` rebuilds the tower without
    network and checkpoint. UserError for options that conflict with each other or with the checkpoint.
    """

    Options = VisionOptions
    ELSEWHERE = ("pretrained", "model")
    trunk: Any
    mean: Tensor
    std: Tensor

    def __init__(self, options: VisionOptions, embed_dim: int):
        if options.motion and options.pretrained:
            raise UserError("vision tower: motion replaces the colors that pretrained weights expect; leave one out")
        options, trunk, own = _build(options, embed_dim)
        super().__init__(options, embed_dim)
        size: Any = options.image_size  # resolved
        self.trunk = trunk
        if options.mean_tokens:
            if not hasattr(trunk, "pool_include_prefix"):
                raise UserError("vision tower: mean_tokens is for ViTs of timm, which keep their tokens; leave it out")
            self.trunk.global_pool, self.trunk.pool_include_prefix = "avg", True
        if hasattr(self.trunk, "set_input_size"):  # timm builds at the size in the model's name, not in vision_cfg
            self.trunk.set_input_size(img_size=(size, size))
        with torch.no_grad():
            features = self.trunk.eval()(torch.zeros(1, 3, size, size))  # (1, C)
            if features.ndim != 2:
                dimensions = features.ndim - 1
                raise UserError(f"vision_cfg: the tower gives {dimensions} dimensions per frame; set timm_pool: avg")
            self.trunk.train()
            self._width = features.shape[1]
        if options.projection == "own":
            own_dim = _own_dim(own, features)
            if options.max_pool or own_dim != embed_dim:
                reason = (
                    "max_pool: true doubles its input" if options.max_pool else f"it gives {own_dim}, not {embed_dim}"
                )
                raise UserError(f"projection: own: {reason}; set towers.embed_dim {own_dim}, max_pool: false")
            self.project, self.HEADS = own.train(), ("query",)
        else:
            self.project = self._projection()
        if options.pool == "attention":
            self.query = nn.Parameter(torch.zeros(self.width))  # (C,)
        self.register_buffer("mean", torch.tensor(options.mean).view(3, 1, 1), persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(options.std).view(3, 1, 1), persistent=False)  # (3, 1, 1)

    def config(self) -> dict[str, Any]:
        values = super().config()
        if isinstance(self.trunk, small_cnn.SmallCnn) and self.options.projection == "linear":
            values["vision_cfg"] = _small_fields(values["vision_cfg"])
        return values

    @property
    def width(self) -> int:
        return self._width

    def blocks(self) -> list[nn.Module]:
        """The blocks of a ViT or the stages of a convolutional network."""
        trunk = getattr(self.trunk, "transformer", self.trunk)  # open_clip's own ViT keeps its blocks there
        for name in ("resblocks", "blocks", "stages", "layers"):  # open_clip; timm: ViT, ConvNeXt, Swin
            if isinstance(getattr(trunk, name, None), (nn.Sequential, nn.ModuleList)):
                return list(getattr(trunk, name))
        return [getattr(trunk, name) for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(trunk, name)]

    def collate(self, items: list[np.ndarray]) -> dict[str, Tensor]:
        """Frames uint8 (T_i, H, W, 3) to frames uint8 (B, T, 3, S, S) and mask (B, T)."""
        frames, mask = pad([resize(item, self.options.image_size, self.options.interpolation) for item in items])
        return {"frames": frames, "mask": mask}

    def _inputs(self, frames: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
        """The trunk's input for the chosen frames, which are all real: (N, 3, S, S)."""
        if self.options.motion or self.options.standardize:
            x = frames[mask].float() / 255  # (M, 3, S, S), all real frames: the clip decides how each is normalized
            shown = chosen[mask]  # (M,)
            return (
                frame_inputs.motion(x, mask, shown) if self.options.motion else frame_inputs.standardize(x, mask)[shown]
            )
        return (frames[chosen].float() / 255 - self.mean) / self.std

    def forward(self, frames: Tensor, mask: Tensor, chosen: Tensor | None = None) -> Encoded:
        """frames uint8 or float [0, 255] (B, T, 3, S, S), mask bool (B, T).

        chosen: bool (B, T), the real frames to run the trunk on; the result masks all others; None: all.
        """
        chosen = mask if chosen is None else chosen & mask  # (B, T)
        x = self._inputs(frames, mask, chosen)  # (N, 3, S, S)
        mask = chosen
        if len(x) == 0:  # every parameter needs a gradient, even if all clips of a process lack video
            x = torch.zeros(1, *frames.shape[2:], device=frames.device)
        device = x.device.type
        # In training, drop path and batch statistics are computed over the whole batch.
        parts = (x,) if self.training or torch.is_grad_enabled() else x.split(MAX_FRAMES)
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and self.options.bf16):
            features = torch.cat([self.trunk(part).float() for part in parts])  # (N, C)
        count = int(mask.sum())
        sequence = features.new_zeros(*mask.shape, self.width)  # (B, T, C)
        sequence[mask] = features[:count]
        if count == 0:
            sequence = sequence + 0 * features.sum()
        return self._finish(sequence, mask, None)


def _build(options: VisionOptions, embed_dim: int) -> tuple[VisionOptions, nn.Module, nn.Module]:
    """Resolved options, the trunk and the model's own projection."""
    options, weights = _resolved(options, embed_dim)
    visual = open_clip_loading.build(options.vision_cfg)
    if weights is not None:
        open_clip_loading.load(visual, weights)
    return options, *_split(visual)


def _small_fields(vision_cfg: dict[str, Any]) -> dict[str, Any]:
    """The fields that determine the output of a tower with the small trunk."""
    fixed: dict[str, Any] = {"timm_model_name": small_cnn.NAME, "timm_proj": "linear"}
    return fixed | {name: vision_cfg[name] for name in ("image_size", "embed_dim", "quick_gelu") if name in vision_cfg}


def _own_dim(own: nn.Module, features: Tensor) -> int:
    """The output width of the model's projection for features (1, C). UserError if they do not fit: some timm trunks
    have wider features than open_clip assumes (MobileNetV3)."""
    try:
        with torch.no_grad():
            return own.eval()(features).shape[1]
    except RuntimeError as error:
        raise UserError(
            f"projection: own: the model's projection does not fit the {features.shape[1]} features of this trunk "
            f"({one_line(error, 80)}); set projection: linear"
        ) from None


def resize(frames: np.ndarray, size: int, interpolation: str = "area") -> Tensor:
    """uint8 (T, H, W, 3) to uint8 (T, 3, size, size), antialiased; bilinear and bicubic equal Pillow's up to
    rounding."""
    import cv2

    if frames.shape[1:3] == (size, size) or not len(frames):
        frames = frames if len(frames) else np.zeros((0, size, size, 3), np.uint8)  # (T, S, S, 3)
    elif interpolation == "area":
        frames = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])
    else:
        images = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w")  # (T, 3, H, W)
        return nn.functional.interpolate(images, (size, size), mode=interpolation, antialias=True).contiguous()
    return torch.from_numpy(rearrange(frames, "t h w c -> t c h w").copy())  # (T, 3, S, S)


def _resolved(options: VisionOptions, embed_dim: int) -> tuple[VisionOptions, Path | None]:
    """The options with the model's settings filled in, and the checkpoint file or None."""
    for name, choices in CHOICES.items():
        value = getattr(options, name)
        if value is not None and value not in choices:
            raise UserError(f"vision tower: no {name} {value!r}: {nearest(value, choices)}")
    source = open_clip_loading.find(options.model, options.pretrained, options.vision_cfg, embed_dim)
    given = {name: getattr(options, name) for name in DEFAULTS if getattr(options, name) is not None}
    # Bicubic is open_clip's default. A wrong mean or standard deviation does more harm: they must be given.
    defaults: dict[str, Any] = DEFAULTS if source.weights is None else {"interpolation": "bicubic"}
    preprocessing = defaults | source.preprocessing | given
    for name in DEFAULTS:
        if name not in preprocessing:
            raise UserError(
                f"{source.weights}: does not say the {name} it was trained with, and weights of this model differ in "
                f"it; give {name} (`python -m stage1_align.export.checkpoints` lists known weights)"
            )
    size = options.image_size or source.vision_cfg["image_size"]
    if not isinstance(size, int):
        if len(set(size)) != 1:
            raise UserError(f"vision tower: frames are square, but the model's image_size is {tuple(size)}")
        size = size[0]
    resolved = dataclasses.replace(
        options,
        model=None,
        pretrained=None,
        vision_cfg=source.vision_cfg | {"image_size": size},
        image_size=size,
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
        interpolation=preprocessing["interpolation"],
    )
    return resolved, source.weights


def _split(visual: Any) -> tuple[nn.Module, nn.Module]:
    """The trunk, with features (N, C) as output, and open_clip's projection of them, (N, C) to (N, E)."""
    if isinstance(visual, small_cnn.SmallTower):
        return visual.trunk, visual.head
    from open_clip.timm_model import TimmModel

    visual.output_tokens = False  # CoCa also returns its patches
    if isinstance(visual, TimmModel):
        if len(visual.head):
            return visual.trunk, visual.head
        classifier = visual.trunk.get_classifier()  # timm's last layer is the projection, or an identity
        visual.trunk.reset_classifier(0)
        return visual.trunk, classifier
    if getattr(visual, "proj", None) is None:  # a ModifiedResNet projects inside its attention pooling
        return visual, nn.Identity()
    width, dim = visual.proj.shape
    projection = nn.Linear(width, dim, bias=False)
    projection.weight = nn.Parameter(visual.proj.detach().T.contiguous())  # (E, C)
    visual.proj = None
    return visual, projection
