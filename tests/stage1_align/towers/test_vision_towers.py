"""The vision tower against open_clip, on checkpoints in their published forms."""

import json

import numpy as np
import pytest
import torch
from helpers.open_clip_tiny import MODELS, PREPROCESSING, embedded, frames, publish, register
from helpers.published_tiny import timm_vit
from helpers.rounding import assert_same_up_to_rounding
from PIL import Image
from safetensors.torch import save_file

from shared.errors import UserError
from stage1_align.towers import vision_open_clip
from stage1_align.towers.vision_open_clip import OpenClipVision, resize


@pytest.fixture(autouse=True)
def models(monkeypatch):
    register(monkeypatch)


def tower(embed_dim=24, **options):
    return OpenClipVision.from_options(options, embed_dim).eval()


@pytest.mark.parametrize("form", ["epoch_3.pt", "bare.safetensors", "hub"])
def test_every_published_form_equals_open_clip(form, tmp_path):
    model = publish("tiny-vit", tmp_path)
    options = {"pretrained": str(tmp_path / form), "projection": "own"}
    if form != "hub":  # the folder holds these
        options |= {"model": "tiny-vit", **{name: PREPROCESSING[name] for name in ("mean", "std", "interpolation")}}
    built = tower(**options)
    (clip,) = frames(3)
    for frame, expected in zip(clip, embedded(model, clip), strict=True):
        assert_same_up_to_rounding(built.encode_prepared([frame[None]]).pooled[0], expected)
    config = built.config()
    assert (config["image_size"], list(config["mean"]), list(config["std"])) == (32, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    assert config["interpolation"] == "bilinear" and config["vision_cfg"]["quick_gelu"] is True


def test_folder_of_timm_equals_timm_without_its_classifier(tmp_path):
    model = timm_vit(tmp_path)
    built = tower(pretrained=str(tmp_path))
    (clip,) = frames(2, size=160)
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2) / 255 * 2 - 1  # (T, 3, S, S); mean and deviation are 0.5
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)  # (T, C)
    assert_same_up_to_rounding(built.encode_prepared([clip]).sequence[0], expected)
    config = built.config()
    assert (config["image_size"], config["interpolation"], list(config["mean"])) == (160, "bicubic", [0.5, 0.5, 0.5])
    again = tower(**config)
    again.load_state_dict(built.state_dict())
    assert torch.equal(again.encode_prepared([clip]).pooled, built.encode_prepared([clip]).pooled)


def test_mean_of_all_tokens_is_that_of_the_last_hidden_state(tmp_path):
    model = timm_vit(tmp_path)
    built = tower(pretrained=str(tmp_path), mean_tokens=True)
    (clip,) = frames(2, size=160)
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2) / 255 * 2 - 1  # (T, 3, S, S)
    with torch.no_grad():
        tokens = model.forward_features(pixels)  # (T, 1 + N, C)
    expected = torch.stack([sum(rows) / len(rows) for rows in tokens.double()])  # (T, C)
    assert_same_up_to_rounding(built.encode_prepared([clip]).sequence[0], expected.float())
    again = tower(**built.config())
    again.load_state_dict(built.state_dict())
    assert torch.equal(again.encode_prepared([clip]).pooled, built.encode_prepared([clip]).pooled)
    publish("tiny-vit", tmp_path)
    with pytest.raises(UserError, match="mean_tokens is for ViTs of timm"):
        tower(MODELS["tiny-vit"]["embed_dim"], pretrained=str(tmp_path / "hub"), mean_tokens=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vit_tiny_patch16_224"}, "belongs to another model"),
        ({"architecture": "hf-hub:a/b"}, "timm has no model"),
        ({"architecture": None}, "names no architecture of timm"),
        ({"model_args": {"depth": 2}}, "changes test_vit by model_args"),
    ],
)
def test_folder_of_timm_that_does_not_fit_is_refused(change, message, tmp_path):
    timm_vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message) as caught:
        tower(pretrained=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "tiny-vit"])
def test_every_family_equals_open_clip_and_is_rebuilt_from_its_config(name, tmp_path):
    model = publish(name, tmp_path)
    size = MODELS[name]["vision_cfg"]["image_size"]
    built = tower(MODELS[name]["embed_dim"], pretrained=str(tmp_path / "hub"), projection="own")
    (clip,) = frames(2, size=size)
    for frame, expected in zip(clip, embedded(model, clip), strict=True):
        assert_same_up_to_rounding(built.encode_prepared([frame[None]]).pooled[0], expected)
    assert_rebuilt_from_config(built, frames(1, 2, size=size))


def assert_rebuilt_from_config(built, items):
    """config() through JSON, without the checkpoint, and the weights alone rebuild the tower."""
    config = json.loads(json.dumps(built.config()))
    assert config["model"] is None and config["pretrained"] is None
    again = OpenClipVision.from_options(config, built.embed_dim).eval()
    assert again.config() == built.config()
    again.load_state_dict(built.state_dict())
    a, b = built.encode_prepared(items), again.encode_prepared(items)
    assert torch.equal(a.pooled, b.pooled) and torch.equal(a.sequence, b.sequence)


@pytest.mark.parametrize(
    "options",
    [{}, {"pool": "attention", "max_pool": True}, {"image_size": 48}, {"standardize": True}, {"motion": True}],
)
def test_tower_of_a_named_model_is_rebuilt_from_its_config(options):
    built = tower(8, model="tiny-vit", **options)
    assert_rebuilt_from_config(built, frames(2, 1, size=40))


def test_trunk_with_wider_features_than_open_clip_assumes_needs_a_projection_of_ours():
    mobile = {"timm_model_name": "mobilenetv3_small_050", "image_size": 32}
    built = tower(8, vision_cfg=mobile)
    assert built.width == 1024  # its convolutional head gives them; open_clip's projection takes 288
    assert_rebuilt_from_config(built, frames(2, 1, size=32))
    with pytest.raises(UserError, match=r"does not fit the 1024 features .*; set projection: linear"):
        tower(8, vision_cfg=mobile, projection="own")


def test_sequence_is_the_trunk_output_before_the_projection(tmp_path):
    model = publish("tiny-vit", tmp_path)
    built = tower(8, pretrained=str(tmp_path / "hub"))
    (clip,) = frames(3)
    x = (torch.from_numpy(clip).permute(0, 3, 1, 2) / 255 - built.mean) / built.std
    with torch.no_grad():
        tokens = model.visual.transformer(model.visual._embeds(x))
        expected = model.visual.ln_post(tokens)[:, 0]  # (T, C)
    assert_same_up_to_rounding(built.encode_prepared([clip]).sequence[0], expected)
    assert built.width == 32 and built.encode_prepared([clip]).pooled.shape == (1, 8)


def test_only_the_image_tower_is_built(tmp_path):
    model = publish("tiny-vit", tmp_path)
    built = tower(pretrained=str(tmp_path / "hub"), projection="own")
    count = sum(parameter.numel() for parameter in model.visual.parameters())
    assert sum(parameter.numel() for parameter in built.parameters()) == count
    assert not any("text" in name or "token_embedding" in name for name in built.state_dict())


def test_tag_sets_weights_preprocessing_and_activation(tmp_path, monkeypatch):
    import open_clip

    model = publish("tiny-vit", tmp_path)
    from open_clip import factory

    plain = {**factory._MODEL_CONFIGS["tiny-vit"], "quick_gelu": False}  # as ViT-B-32, which openai trained with it
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-vit", plain)
    tag = {"file": str(tmp_path / "epoch_3.pt"), "quick_gelu": True, **PREPROCESSING}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"made": tag})
    built = tower(model="tiny-vit", pretrained="made", projection="own")
    (clip,) = frames(1)
    assert_same_up_to_rounding(built.encode_prepared([clip]).pooled, embedded(model, clip))


@pytest.mark.parametrize("model, mean", [("ViT-B-16-SigLIP", 0.5), ("ViT-B-32", 0.48145466)])
def test_bare_file_uses_the_common_normalization_of_its_model(model, mean):
    from stage1_align.towers.open_clip_loading import _from_model

    assert _from_model(model, None)[1]["mean"][0] == mean


def test_position_embeddings_are_resampled_as_by_open_clip(tmp_path):
    import open_clip

    publish("tiny-vit", tmp_path)
    file = str(tmp_path / "bare.safetensors")
    preprocessing = {name: PREPROCESSING[name] for name in ("mean", "std", "interpolation")}
    built = tower(model="tiny-vit", pretrained=file, image_size=48, projection="own", **preprocessing)
    model = open_clip.create_model("tiny-vit", file, force_image_size=48, force_preprocess_cfg=PREPROCESSING).eval()
    (clip,) = frames(1, size=48)
    assert_same_up_to_rounding(built.encode_prepared([clip]).pooled, embedded(model, clip))


@pytest.mark.parametrize("pool, max_pool", [("mean", False), ("attention", False), ("attention", True)])
def test_batch_equals_single_and_padding_changes_nothing(pool, max_pool):
    built = tower(8, model="tiny-vit", pool=pool, max_pool=max_pool)
    if pool == "attention":
        torch.nn.init.normal_(built.query)
    items = frames(3, 0, 5, 1, size=40)
    batch = built.encode_prepared(items)
    for row, item in enumerate(items):
        single = built.encode_prepared([item])
        steps = single.sequence.shape[1]
        assert_same_up_to_rounding(batch.pooled[row], single.pooled[0])
        assert_same_up_to_rounding(batch.sequence[row, :steps], single.sequence[0])
    inputs = built.collate(items)
    inputs["frames"][~inputs["mask"]] = 255
    with torch.no_grad():
        filled = built(**inputs)
    assert torch.equal(filled.pooled, batch.pooled) and torch.equal(filled.sequence, batch.sequence)
    assert (batch.pooled[1] == 0).all()


def test_frames_in_parts_equal_all_frames_at_once(monkeypatch):
    built, items, sizes = tower(8, model="tiny-vit", standardize=True), frames(3, 0, 5, 1, size=40), []
    built.trunk.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    inputs = built.collate(items)
    whole = built(**inputs)
    monkeypatch.setattr(vision_open_clip, "MAX_FRAMES", 4)
    parts = built.encode_prepared(items)
    again = built(**inputs)  # with gradients and in training mode, all frames go at once
    with torch.no_grad():
        built.train()(**inputs)
    assert sizes == [9, 4, 4, 1, 9, 9]
    built.eval()
    for name in ("sequence", "pooled"):
        assert_same_up_to_rounding(getattr(parts, name), getattr(whole, name))
    assert torch.equal(parts.mask, whole.mask)
    assert torch.equal(again.sequence, whole.sequence)
    assert not built.encode_prepared(frames(0, 0)).mask.any()


def test_attention_pooling_starts_as_the_mean_and_follows_its_query():
    plain = tower(8, model="tiny-vit")
    attending = tower(8, model="tiny-vit", pool="attention")
    attending.load_state_dict(plain.state_dict(), strict=False)
    items = frames(4, 2)
    torch.testing.assert_close(
        attending.encode_prepared(items).pooled, plain.encode_prepared(items).pooled, rtol=0, atol=1e-6
    )
    sequence = torch.tensor([[[2.0, 0.0], [0.0, 4.0], [7.0, 7.0]]])  # normalized: (1, -1), (-1, 1), masked
    mask = torch.tensor([[True, True, False]])
    attending.query = torch.nn.Parameter(torch.tensor([0.5, -0.5]))  # scores 1 and -1
    high = np.exp(1) / (np.exp(1) + np.exp(-1))
    expected = torch.tensor([[2 * high, 4 * (1 - high)]], dtype=torch.float32)
    torch.testing.assert_close(attending._mean(sequence * mask[..., None], mask), expected, rtol=0, atol=1e-4)


def test_attention_pooling_without_video_gives_finite_gradients():
    built = tower(8, model="tiny-vit", pool="attention", max_pool=True).train()
    built(**built.collate(frames(0, 0))).pooled.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in built.parameters())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [20, 75])
def test_resizing_equals_pillow(interpolation, side):
    (noise,) = frames(2, size=side)
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    expected = np.stack([np.asarray(Image.fromarray(frame).resize((32, 32), kind)) for frame in noise])
    got = resize(noise, 32, interpolation).permute(0, 2, 3, 1).numpy()
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


def test_wrong_vision_options_are_refused_with_advice(tmp_path):
    publish("tiny-vit", tmp_path)
    hub, file = str(tmp_path / "hub"), str(tmp_path / "bare.safetensors")
    (tmp_path / "no.pt").write_bytes(b"not weights")
    (tmp_path / "empty").mkdir()
    save_file({"text.weight": torch.zeros(2)}, tmp_path / "text.safetensors")
    known = {"mean": [0.5] * 3, "std": [0.5] * 3}
    for options, message in [
        ({"model": "ViT-B-23"}, "did you mean 'ViT-B-32'"),
        ({"model": "ViT-B-32", "pretrained": "openay"}, "did you mean 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "openai"}, "download timm/vit_base_patch32_clip_224.openai"),
        ({"model": "ViT-L-14", "pretrained": file}, r"does not say its activation; .* QuickGELU \(openai"),
        (
            {"model": "ViT-L-14", "pretrained": file, "vision_cfg": {"quick_gelu": False}},
            "does not say the mean",  # laion2b's differs from openai's
        ),
        ({"model": "tiny-vit", "pretrained": hub}, "leave out model"),
        ({"model": "tiny-resnet", "pretrained": file, **known}, "belongs to another model"),
        ({"model": "tiny-vit", "pretrained": str(tmp_path / "no.pt"), **known}, "cannot be read as weights"),
        (
            {"model": "tiny-vit", "pretrained": str(tmp_path / "text.safetensors"), **known},
            "holds no image tower",
        ),
        ({"pretrained": str(tmp_path / "empty")}, "no open_clip configuration here"),
        ({"pretrained": "openai"}, "a tag also needs `model`"),
        ({"vision_cfg": {"layer": 2}}, "did you mean 'layers'"),
        ({"model": "tiny-vit", "pool": "maen"}, "did you mean 'mean'"),
        ({"model": "tiny-vit", "projection": "own", "max_pool": True}, "max_pool"),
    ]:
        with pytest.raises(UserError, match=message):
            tower(**options)
    with pytest.raises(UserError, match="it gives 24, not 8"):
        tower(8, pretrained=hub, projection="own")


def test_face_crops_smaller_than_the_tower_reads_are_said():
    small = tower(8, vision_cfg={"timm_model_name": "emit_small_cnn", "timm_proj": "linear"}, image_size=64)
    assert small.crop_line(64) is None and small.crop_line(96) is None
    assert "emit prepare --frame_size 64" in (small.crop_line(32) or "")
