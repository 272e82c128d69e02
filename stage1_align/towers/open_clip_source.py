"""Where an open_clip image tower comes from: a named model, a published folder, a checkpoint file, or nothing at all.

The image tower alone is built and loaded: the text tower beside it in a checkpoint never takes memory, and one that
would ask a hub for its tokenizer is no obstacle.
"""

import dataclasses
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from shared.errors import UserError
from shared.files import read_json
from shared.registry import nearest
from shared.text import one_line

PREPROCESSING = ("mean", "std", "interpolation")
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass
class Source:
    """vision_cfg: open_clip's vision configuration in full, with the `embed_dim` and `quick_gelu` that open_clip keeps
    beside it. preprocessing: what is known of PREPROCESSING. weights: the checkpoint file, or None."""

    vision_cfg: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: Path | None


def find(model: str | None, pretrained: str | None, overrides: dict, embed_dim: int) -> Source:
    """Resolve the options of the tower; `overrides` are fields of vision_cfg (with embed_dim, quick_gelu) that win.

    UserError for an unknown model, tag, file or field, and for a tag that is neither here nor can be fetched.
    """
    folder = Path(pretrained) if pretrained and Path(pretrained).is_dir() else None
    if folder is not None:
        if model:
            raise UserError(f"pretrained {folder}: the folder says which model it holds; leave out model {model!r}")
        found = _of_folder(folder)
    elif model:
        found = _of_model(model, pretrained)
    else:
        found = {}, {}, _file(pretrained) if pretrained else None
    model_cfg, preprocessing, weights = found
    own = {"quick_gelu": bool(model_cfg.get("quick_gelu")), "embed_dim": model_cfg.get("embed_dim", embed_dim)}
    size = {"image_size": 224 if model_cfg else 64}  # open_clip's default, and that of an own tower
    vision_cfg = {**own, **size, **model_cfg.get("vision_cfg", {}), **overrides}
    vision_cfg["timm_model_pretrained"] = False  # timm would ask a hub
    known = {name: value for name, value in preprocessing.items() if name in PREPROCESSING and value is not None}
    return Source(_complete(vision_cfg), known, weights)


def build(vision_cfg: dict[str, Any]) -> nn.Module:
    """The image tower of a complete `vision_cfg`, with random weights."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    import stage1_align.towers.small_cnn  # noqa: F401  (registers itself with timm)

    fields = dict(vision_cfg)
    embed_dim, quick_gelu = fields.pop("embed_dim"), fields.pop("quick_gelu")
    return _build_vision_tower(embed_dim, CLIPVisionCfg(**fields), quick_gelu)


def read_state(path: Path) -> dict:
    """The state dictionary of an open_clip checkpoint, read weights-only, without the `module.` of distributed
    training. UserError where it cannot be read."""
    from open_clip.factory import load_state_dict

    try:
        return load_state_dict(str(path))
    except Exception as error:  # torch, pickle and safetensors each raise their own for a damaged file
        raise UserError(
            f"{path}: cannot be read as weights ({_line(error)}); .safetensors is the surest form"
        ) from None


def load(visual: nn.Module, path: Path) -> None:
    """Put the image weights of an open_clip checkpoint (.pt, .bin, .safetensors; read weights-only) into `visual`.
    Position embeddings of a ViT are resampled to its size. UserError when they do not fit."""
    from open_clip.convert import convert_state_dict
    from open_clip.factory import resize_pos_embed

    state = read_state(path)
    whole = types.SimpleNamespace(visual=visual)  # all that these two look at
    state = convert_state_dict(whole, state)
    resize_pos_embed(state, whole)
    image = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    if not image:
        raise UserError(f"{path}: holds no image tower (no weights called visual.*); give an open_clip checkpoint")
    try:
        visual.load_state_dict(image)
    except RuntimeError as error:
        raise UserError(f"{path}: is of another model: {_line(error)}") from None


def _of_folder(folder: Path) -> tuple[dict, dict, Path]:
    how = "give a folder published by open_clip, or `model` and a checkpoint file"
    published = read_json(folder / "open_clip_config.json", "open_clip configuration", how)
    if "vision_cfg" not in published.get("model_cfg", {}):
        raise UserError(f"{folder}/open_clip_config.json: has no model_cfg with a vision_cfg; {how}")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: has none of {', '.join(WEIGHTS)}; download the folder whole")
    return published["model_cfg"], published.get("preprocess_cfg", {}), weights


def _of_model(model: str, pretrained: str | None) -> tuple[dict, dict, Path | None]:
    import open_clip

    name = model.replace("/", "-")  # OpenAI's spelling, ViT-B/32
    if name not in open_clip.list_models():
        raise UserError(f"open_clip has no model {model!r}: {nearest(name, open_clip.list_models())}")
    model_cfg = open_clip.get_model_config(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if tag:
        try:
            weights = Path(open_clip.download_pretrained(tag))
        except Exception as error:  # each hub and protocol raises its own
            origin = tag.get("hf_hub", "").strip("/") or tag.get("url")
            raise UserError(
                f"{model} {pretrained}: not on this machine and could not be fetched ({_line(error)}); "
                f"download {origin} and give its path as pretrained"
            ) from None
        # The activation the weights were trained with; a model's name need not say it (ViT-B-32, openai).
        return model_cfg | {"quick_gelu": bool(tag.get("quick_gelu") or model_cfg.get("quick_gelu"))}, tag, weights
    if not pretrained:
        return model_cfg, _agreed(name, tags), None
    if not Path(pretrained).is_file():
        raise UserError(f"pretrained {pretrained!r}: no such file, and no tag of {model}: {nearest(pretrained, tags)}")
    return model_cfg, _agreed(name, tags), Path(pretrained)


def _agreed(name: str, tags: list[str]) -> dict:
    """The preprocessing in which all published weights of a model agree: a bare file does not say its own."""
    import open_clip

    published = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    return {
        key: published[0][key]
        for key in PREPROCESSING
        if published and all(tuple(one[key]) == tuple(published[0][key]) for one in published)
    }


def _complete(vision_cfg: dict) -> dict:
    from open_clip.model import CLIPVisionCfg

    known = [f.name for f in dataclasses.fields(CLIPVisionCfg)]
    extra = {name: vision_cfg.pop(name) for name in ("embed_dim", "quick_gelu")}
    for name in vision_cfg:
        if name not in known:
            raise UserError(f"vision_cfg has no field {name!r}: {nearest(name, [*known, *extra])}")
    return dataclasses.asdict(CLIPVisionCfg(**vision_cfg)) | extra


def _file(path: str) -> Path:
    if not Path(path).is_file():
        raise UserError(f"pretrained {path!r}: no such file or folder; a tag needs `model` beside it")
    return Path(path)


def _line(error: Exception) -> str:
    return one_line(error, 200)
