"""Tiny models of open_clip, one of each family, and their weights in the published forms."""

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

TEXT = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
MODELS = {
    "tiny-vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT},
    "tiny-siglip": {  # a pooled trunk without a projection
        "embed_dim": 192,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "map",
            "timm_proj": "none",
        },
    },
    "tiny-eva": {  # timm's classifier as the projection
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "token",
            "timm_proj": None,
        },
    },
    "tiny-convnext": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "convnext_atto",
            "timm_pool": "",
            "timm_proj": "mlp",
            "timm_drop": 0.5,
        },
    },
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    },
    "tiny-coca": {"embed_dim": 24, "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2}},
}
PREPROCESSING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}


def register(monkeypatch):
    """Register the tiny models in open_clip by name."""
    from open_clip import factory

    for name, cfg in MODELS.items():
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, {**cfg, "text_cfg": TEXT})


def publish(name, folder, seed=0):
    """An open_clip model, and its weights in three forms: a .pt of the trainer, a bare .safetensors, a hub folder."""
    import open_clip

    torch.manual_seed(seed)
    model = open_clip.create_model(name, force_preprocess_cfg=PREPROCESSING).eval()
    with torch.no_grad():  # new models have zeros, trained ones do not
        for parameter in model.visual.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    state = model.state_dict()
    training = {"epoch": 3, "name": name, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save({**training, "optimizer": {"state": {}}}, folder / "epoch_3.pt")
    hub = folder / "hub"
    hub.mkdir()
    for file in (folder / "bare.safetensors", hub / "open_clip_model.safetensors"):
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    published = {"model_cfg": {**MODELS[name], "text_cfg": TEXT}, "preprocess_cfg": PREPROCESSING}
    (hub / "open_clip_config.json").write_text(json.dumps(published))
    return model


def frames(*lengths, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8) for length in lengths]


def embedded(model, images):
    """Embeddings of images uint8 (N, H, W, 3) by open_clip's own preprocessing and model."""
    import open_clip

    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), False
    )
    batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        return normalize(model.encode_image(batch), dim=1)
