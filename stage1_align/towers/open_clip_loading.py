"""Loading an open_clip image tower: from a named model, a folder published by open_clip or timm, a checkpoint file, or
`vision_cfg`.

Only the image tower is built and loaded. The text tower in the same checkpoint takes no memory, and its tokenizer is
never requested from a hub.
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
from shared.training.weights_only import refusal, weights_only
from stage1_align.towers import small_cnn

PREPROCESSING = ("mean", "std", "interpolation")
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass
class Source:
    """The resolved options of the tower."""

    vision_cfg: dict[str, Any]
    """open_clip's full vision configuration, with the `embed_dim` and `quick_gelu` stored next to it."""
    preprocessing: dict[str, Any]
    """The known values of PREPROCESSING."""
    weights: Path | None
    """The checkpoint file."""


def find(model: str | None, pretrained: str | None, overrides: dict, embed_dim: int) -> Source:
    """Resolve the options of the tower; `overrides` override fields of vision_cfg, embed_dim and quick_gelu.

    UserError for an unknown model, tag, file or field, and for a tag that is not cached and cannot be downloaded.
    """
    folder = Path(pretrained) if pretrained and Path(pretrained).is_dir() else None
    weights: Path | None
    if folder is not None:
        if model:
            raise UserError(f"pretrained {folder}: the folder says which model it holds; leave out model {model!r}")
        model_cfg, preprocessing, weights = _from_folder(folder)
    elif model:
        model_cfg, preprocessing, weights = _from_model(model, pretrained)
        is_bare = weights is not None and str(weights) == pretrained
        if is_bare and "quick_gelu" not in overrides:
            check_activation(model, weights, "vision_cfg: {quick_gelu: ...}")
    else:
        model_cfg, preprocessing, weights = {}, {}, _file(pretrained) if pretrained else None
    beside = {"quick_gelu": bool(model_cfg.get("quick_gelu")), "embed_dim": model_cfg.get("embed_dim", embed_dim)}
    size = {"image_size": 224 if model_cfg else 64}  # open_clip's default; ours for a tower of `vision_cfg` alone
    vision_cfg = {**beside, **size, **model_cfg.get("vision_cfg", {}), **overrides}
    vision_cfg["timm_model_pretrained"] = False  # otherwise timm contacts a hub
    known = {name: value for name, value in preprocessing.items() if name in PREPROCESSING and value is not None}
    return Source(_complete(vision_cfg), known, weights)


def build(vision_cfg: dict[str, Any]) -> nn.Module:
    """The image tower of a complete `vision_cfg`, with random weights."""
    if small_cnn.is_alone(vision_cfg):
        return small_cnn.SmallTower(vision_cfg["embed_dim"])
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    small_cnn.register()
    fields = dict(vision_cfg)
    _check_trunk(fields["timm_model_name"])
    embed_dim, quick_gelu = fields.pop("embed_dim"), fields.pop("quick_gelu")
    return _build_vision_tower(embed_dim, CLIPVisionCfg(**fields), quick_gelu)


def _check_trunk(name: str | None) -> None:
    """UserError unless timm itself has a trunk of this name: `hf-hub:` and `local-dir:` point elsewhere."""
    from timm import is_model, list_models

    if name and (not isinstance(name, str) or set(":/\\") & set(name) or not is_model(name)):
        raise UserError(f"vision_cfg: timm has no model {name!r}: {nearest(str(name), list_models())}")


def read_state(path: Path) -> dict:
    """The state dictionary of an open_clip checkpoint, loaded weights-only, without the `module.` prefix of distributed
    training. UserError if it cannot be read."""
    from open_clip.factory import load_state_dict

    try:
        with weights_only():
            return load_state_dict(str(path))
    except Exception as error:  # torch, pickle and safetensors raise different errors for a damaged file
        reason = refusal(error)
        raise UserError(f"{path}: cannot be read as weights ({reason}); .safetensors is the safest format") from None


def load(visual: nn.Module, path: Path) -> None:
    """Load the image weights of an open_clip checkpoint (.pt, .bin, .safetensors) into `visual`. Position embeddings of
    a ViT are resampled to its size. UserError if the weights do not fit."""
    from open_clip.convert import convert_state_dict
    from open_clip.factory import resize_pos_embed

    state = read_state(path)
    model: Any = types.SimpleNamespace(visual=visual)  # the only attribute these two functions use
    state = convert_state_dict(model, state)
    resize_pos_embed(state, model)
    image = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    if not image and path.name in TIMM_WEIGHTS and hasattr(visual, "trunk"):
        _load_trunk(visual.trunk, state, path)
        return
    if not image:
        raise UserError(f"{path}: holds no image tower (no weights called visual.*); give an open_clip checkpoint")
    try:
        visual.load_state_dict(image)
    except RuntimeError as error:
        raise UserError(f"{path}: belongs to another model: {one_line(error, 200)}") from None


def _load_trunk(trunk: Any, state: dict[str, Any], path: Path) -> None:
    """Load a model of timm without its classifier."""
    names: Any = trunk.pretrained_cfg["classifier"]  # one name or several
    classifier = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    try:
        trunk.load_state_dict({name: value for name, value in state.items() if not name.startswith(classifier)})
    except RuntimeError as error:
        raise UserError(f"{path}: belongs to another model: {one_line(error, 200)}") from None


def _from_timm_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The model of a timm folder, without the classifier."""
    how = "give a folder published by timm or open_clip"
    published = read_json(folder / "config.json", "timm configuration", how)
    weights = next((folder / name for name in TIMM_WEIGHTS if (folder / name).is_file()), None)
    name, preprocessing = published.get("architecture"), published.get("pretrained_cfg")
    if not isinstance(name, str) or not isinstance(preprocessing, dict):
        raise UserError(f"{folder}/config.json: names no architecture of timm with its pretrained_cfg; {how}")
    if published.get("model_args"):
        raise UserError(f"{folder}/config.json: changes {name} by model_args, which is not supported; {how} without")
    if weights is None:
        raise UserError(f"{folder}: has none of {', '.join(TIMM_WEIGHTS)}; download the folder whole")
    vision_cfg = {"timm_model_name": name, "timm_pool": published.get("global_pool", ""), "timm_proj": "linear"}
    vision_cfg["image_size"] = preprocessing.get("input_size", [3, 224, 224])[-1]
    return {"vision_cfg": vision_cfg}, preprocessing, weights


def _from_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    if (folder / "config.json").is_file() and not (folder / "open_clip_config.json").is_file():
        return _from_timm_folder(folder)
    how = "give a folder published by open_clip, or `model` and a checkpoint file"
    published = read_json(folder / "open_clip_config.json", "open_clip configuration", how)
    if "vision_cfg" not in published.get("model_cfg", {}):
        raise UserError(f"{folder}/open_clip_config.json: has no model_cfg with a vision_cfg; {how}")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: has none of {', '.join(WEIGHTS)}; download the folder whole")
    return published["model_cfg"], published.get("preprocess_cfg", {}), weights


def _from_model(model: str, pretrained: str | None) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
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
        except Exception as error:  # each hub and protocol raises its own errors
            origin = tag.get("hf_hub", "").strip("/") or tag.get("url")
            raise UserError(
                f"{model} {pretrained}: not on this machine and not downloaded ({one_line(error, 200)}); "
                f"download {origin} and give its path as pretrained"
            ) from None
        # The activation that the weights were trained with; the model name may not say (ViT-B-32, openai).
        return model_cfg | {"quick_gelu": bool(tag.get("quick_gelu") or model_cfg.get("quick_gelu"))}, tag, weights
    if not pretrained:
        return model_cfg, _common_preprocessing(name, tags), None
    if not Path(pretrained).is_file():
        raise UserError(f"pretrained {pretrained!r}: no such file, and no tag of {model}: {nearest(pretrained, tags)}")
    return model_cfg, _common_preprocessing(name, tags), Path(pretrained)


def check_activation(model: str, weights: Any, option: str) -> None:
    """UserError if some published weights of an open_clip model have QuickGELU and some GELU: a bare checkpoint file
    does not say which, and the wrong one silently gives other numbers."""
    import open_clip

    name = model.replace("/", "-")
    tags = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    quick = [tag for tag, published in tags.items() if published.get("quick_gelu")]
    plain = [tag for tag in tags if tag not in quick]
    if quick and plain:
        raise UserError(
            f"{weights}: does not say its activation; weights of {model} have QuickGELU ({', '.join(quick[:2])}) "
            f"or GELU ({', '.join(plain[:2])}); set {option} to true or false"
        )


def _common_preprocessing(name: str, tags: list[str]) -> dict[str, Any]:
    """The preprocessing shared by all published weights of a model: a bare checkpoint file does not name its own."""
    import open_clip

    published = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    return {
        key: published[0][key]
        for key in PREPROCESSING
        if published and all(tuple(other[key]) == tuple(published[0][key]) for other in published)
    }


def _complete(vision_cfg: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every open_clip field filled in. UserError for an unknown field."""
    if not isinstance(vision_cfg["quick_gelu"], bool):
        raise UserError(f"vision_cfg.quick_gelu is {vision_cfg['quick_gelu']!r:.60}: expected true or false")
    if small_cnn.is_alone(vision_cfg):
        return vision_cfg
    from open_clip.model import CLIPVisionCfg

    known = [f.name for f in dataclasses.fields(CLIPVisionCfg)]
    extra = {name: vision_cfg.pop(name) for name in ("embed_dim", "quick_gelu")}
    for name in vision_cfg:
        if name not in known:
            raise UserError(f"vision_cfg has no field {name!r}: {nearest(name, [*known, *extra])}")
    check_switches(CLIPVisionCfg, vision_cfg, "vision_cfg")
    return dataclasses.asdict(CLIPVisionCfg(**vision_cfg)) | extra


def check_switches(config_class: Any, values: dict[str, Any], where: str) -> None:
    """UserError for a boolean in place of a number or text, or vice versa."""
    for part in dataclasses.fields(config_class):
        value, default = values.get(part.name), part.default
        if value is not None and isinstance(value, bool) != (isinstance(default, bool)):
            expected = "true or false" if isinstance(default, bool) else "a number or a text"
            raise UserError(f"{where}.{part.name} is {value!r:.60}: expected {expected}")


def _file(path: str) -> Path:
    if not Path(path).is_file():
        raise UserError(f"pretrained {path!r}: no such file or folder; a tag also needs `model`")
    return Path(path)
