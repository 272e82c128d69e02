import copy
import importlib.util

import pytest
import torch
from helpers.audio_tiny import KINDS, build
from helpers.open_clip_tiny import MODELS
from helpers.stage1_tiny import TEXTS, TOWERS, encoders

from shared.errors import UserError
from stage1_align.encoders import AlignedEncoders
from stage1_align.export import onnx
from stage1_align.export.export import main as export
from stage1_align.towers.base import Tower
from stage1_align.towers.text_open_clip import OpenClipText
from stage1_align.towers.vision_open_clip import OpenClipVision

INSTALLED = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


@pytest.fixture(scope="module")
def towers():
    return encoders().towers()


@pytest.fixture(scope="module")
def other_towers():
    """What the demo's towers do besides: standardized frames, centered spectra, the maximum over time."""
    torch.manual_seed(0)
    specs = copy.deepcopy(TOWERS)
    specs["vision"]["options"] |= {
        "vision_cfg": {"timm_model_name": "emit_small_cnn", "timm_proj": "linear"},
        "standardize": True,
        "max_pool": True,
    }
    specs["audio"]["options"] |= {"center": True, "max_pool": True, "level_bands": 4}
    built = AlignedEncoders.build({"vision": specs["vision"], "audio": specs["audio"]}, 8).eval().towers()
    built["audio"].calibrate([torch.randn(70000).numpy() * 0.1])
    cfg = {"context_length": 24, "width": 16, "heads": 2, "layers": 1}
    return {**built, "text": OpenClipText.from_options({"text_cfg": cfg}, 8).eval()}


def test_graph_of_a_tower_that_sees_motion_equals_it():
    specs = copy.deepcopy(TOWERS)
    specs["vision"]["options"] |= {"motion": True}
    tower = AlignedEncoders.build({"vision": specs["vision"]}, 8).eval().tower("vision")
    graph = onnx.exported_program("vision", tower).module()
    for clips, extra_steps in ((1, 0), (5, 4)):
        inputs = onnx.examples("vision", tower, clips, extra_steps)
        assert onnx.difference(onnx.reference(tower, inputs), graph(**inputs)) < 2e-5


@pytest.mark.parametrize("which", ["towers", "other_towers"])
@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_graph_equals_the_tower_at_any_size(which, modality, request):
    """The graph ONNX is written from, run at other batch sizes and lengths than it was traced at."""
    tower = request.getfixturevalue(which)[modality]
    graph = onnx.exported_program(modality, tower).module()
    for clips, extra_steps in ((1, 0), (2, 0), (3, 0), (5, 4)):
        inputs = onnx.examples(modality, tower, clips, extra_steps)
        expected = onnx.reference(tower, inputs)
        assert onnx.difference(expected, graph(**inputs)) < 2e-5
        assert (expected[0][-1] == 0).all() and (clips == 1 or (expected[0][0] != 0).any())


def test_graph_of_roberta_counts_positions_after_the_padding_id():
    """From the ids that are not padding, as it was published."""
    from stage1_align.towers.text_transformer import TransformerText

    sizes = {**TOWERS["text"]["options"]["model_cfg"], "max_position_embeddings": 26, "pad_token_id": 1}
    options = {"architecture": "roberta", "model_cfg": sizes, "vocab_size": 60, "context_length": 24}
    tower = TransformerText.from_options(options, 8).eval()
    tower.tokenizer = TransformerText.corpus_tokenizer(options, TEXTS)
    tower.tokenizer.pad_id = 1
    inputs = onnx.examples("text", tower, clips=6)
    assert (
        onnx.difference(onnx.reference(tower, inputs), onnx.exported_program("text", tower).module()(**inputs)) < 1e-5
    )


def test_missing_onnx_packages_are_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name.startswith("onnx") else find(name, *more)
    )
    install = "ONNX export needs onnx and onnxscript: pip install onnx onnxscript onnxruntime"
    with pytest.raises(UserError, match=install):
        export([str(tmp_path), "--out", str(tmp_path / "out"), "--onnx", "true"])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not INSTALLED, reason="needs onnx and onnxscript")
@pytest.mark.parametrize("which", ["towers", "other_towers"])
def test_onnx_files_equal_the_towers(which, request, tmp_path):
    towers = request.getfixturevalue(which)
    worst = onnx.export_towers(towers, tmp_path)
    assert set(worst) == {"vision", "audio", "text"} and max(worst.values()) <= onnx.TOLERANCE
    inputs = onnx.examples("text", towers["text"], clips=6)
    expected = onnx.reference(towers["text"], inputs)
    assert onnx.difference(expected, onnx._run(tmp_path / "text.onnx", inputs)) <= onnx.TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs onnx and onnxscript")
@pytest.mark.parametrize(
    "kind", ["clap", "wav2vec2", "wav2vec2 layer", "hubert", "whisper", "whisper of the sound", "audeering"]
)
def test_onnx_file_of_every_audio_tower_equals_the_tower(kind, tmp_path):
    tower = build(*KINDS[kind])
    assert onnx.export_towers({"audio": tower}, tmp_path)["audio"] <= onnx.TOLERANCE
    for clips, extra_steps in ((1, 1), (5, 0)):
        inputs = onnx.examples("audio", tower, clips, extra_steps)
        assert onnx.difference(onnx.reference(tower, inputs), onnx._run(tmp_path / "audio.onnx", inputs)) < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs onnx and onnxscript")
@pytest.mark.parametrize("kind", MODELS)
def test_onnx_file_of_every_open_clip_family_equals_the_tower(kind, tmp_path):
    torch.manual_seed(0)
    beside = {name: value for name, value in MODELS[kind].items() if name in ("embed_dim", "quick_gelu")}
    options = {"vision_cfg": {**MODELS[kind]["vision_cfg"], **beside}, "pool": "attention"}
    tower = OpenClipVision.from_options(options, 8).eval()
    tower.query.data.normal_()
    assert onnx.export_towers({"vision": tower}, tmp_path)["vision"] <= onnx.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wavlm", "wavlm layer"])
def test_untraceable_tower_is_refused_in_one_line(kind):
    with pytest.raises(UserError, match="audio tower Wav2vec2 cannot be exported to ONNX: ") as refused:
        onnx.exported_program("audio", build(*KINDS[kind]))
    assert "\n" not in str(refused.value)


def test_tower_without_a_graph_is_refused():
    class Other(Tower):
        pass

    with pytest.raises(UserError, match="audio tower Other cannot be exported to ONNX"):
        onnx._graph("audio", Other(None, 8))


def test_difference_compares_shapes_and_values():
    a, b = torch.zeros(2, 3), torch.zeros(2, 4)
    assert onnx.difference((a, a), (a, b)) == float("inf")
    assert onnx.difference((a, b), (a, b + 0.25)) == 0.25
