"""The CLAP towers against the published code, on checkpoints in the published layout."""

import json
import types

import numpy as np
import pytest
import torch
from helpers.audio_tiny import CLAP, CLAP_FEATURES, HTSAT, build, randomize, sounds
from torch import nn

from shared.errors import UserError
from stage1_align.towers.htsat import SIZES, htsat_module


def laion_model():
    """HTS-AT as laion_clap builds it, with its tagging head and Fourier transform, and CLAP's projection."""
    torch.manual_seed(2)
    htsat = htsat_module().HTSAT_Swin_Transformer(
        spec_size=64,
        patch_size=4,
        patch_stride=(4, 4),
        num_classes=5,
        embed_dim=8,
        depths=[2, 1],
        num_heads=[1, 2],
        window_size=8,
        config=types.SimpleNamespace(
            mel_bins=32, sample_rate=16000, window_size=512, hop_size=160, fmin=50, fmax=8000, class_num=5
        ),
    )
    return randomize(htsat), nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512))


def laion_state(prefix="module.", position_ids=True):
    htsat, projection = laion_model()
    state = {f"{prefix}logit_scale_a": torch.tensor(2.6), f"{prefix}logit_scale_t": torch.tensor(2.6)}
    state |= {f"{prefix}audio_branch.{name}": value for name, value in htsat.state_dict().items()}
    state[f"{prefix}text_branch.embeddings.word_embeddings.weight"] = torch.zeros(4, 8)
    if position_ids:
        state[f"{prefix}text_branch.embeddings.position_ids"] = torch.arange(6)[None]
    state |= {f"{prefix}audio_projection.{name}": value for name, value in projection.state_dict().items()}
    state[f"{prefix}audio_transform.sequential.0.weight"] = torch.zeros(4, 4)
    return state


def write_laion(path, state):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    else:  # epoch, name and a NumPy number beside the weights, as in LAION's files
        torch.save({"epoch": 15, "name": "2023", "best": np.float64(0.9), "state_dict": state}, path)
    return str(path)


@pytest.mark.parametrize(
    ("file", "prefix", "position_ids"), [("a.pt", "module.", True), ("b.pt", "", False), ("c.safetensors", "", True)]
)
def test_htsat_equals_laion_clap(tmp_path, file, prefix, position_ids):
    path = write_laion(tmp_path / file, laion_state(prefix, position_ids))
    tower = build("htsat", {**HTSAT, "pretrained": path, "projection": "clap"}, 512)
    htsat, projection = laion_model()
    waveforms = sounds(20000, 20000)
    with torch.no_grad():
        published = htsat({"waveform": torch.from_numpy(np.stack(waveforms))}, device="cpu")
        pooled = nn.functional.normalize(projection(published["embedding"]), dim=-1)  # (2, 512)
    encoded = tower.encode_prepared(waveforms)
    assert encoded.sequence.shape == (2, 16, 16) and encoded.rate == 16 * 16000 / 20000
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.sequence, published["fine_grained_embedding"][:, ::32], rtol=0, atol=1e-4)
    before = tower.batch_norm.running_mean.clone()
    tower.calibrate(waveforms)
    assert torch.equal(tower.batch_norm.running_mean, before)  # pretrained statistics stay


def test_htsat_leaves_out_only_what_laion_clap_computes_for_tags():
    tower = build("htsat", HTSAT).train().double()
    image = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    results = []

    def published():
        return tower.net.forward_features(image)["fine_grained_embedding"][:, ::32]  # (3, 16, C)

    for features in (published, lambda: tower._features(image)):
        torch.manual_seed(0)  # stochastic depth
        steps = features()  # (3, 16, C)
        gradient = torch.autograd.grad(steps.square().sum(), tower.net.patch_embed.proj.weight)[0]
        results.append((steps, gradient))
    for own, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(own, expected)


def test_linear_projection_keeps_laions_trunk_without_its_projection(tmp_path):
    path = write_laion(tmp_path / "a.pt", laion_state())
    tower = build("htsat", {**HTSAT, "pretrained": path})
    assert isinstance(tower.project, nn.Linear)
    for name, value in laion_model()[0].patch_embed.state_dict().items():
        assert torch.equal(tower.net.patch_embed.state_dict()[name], value)


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_named_sizes_equal_laions(size, monkeypatch):
    """Against what create_htsat_model builds from model_configs/HTSAT-{size}.json."""
    from importlib.util import find_spec
    from pathlib import Path

    htsat = htsat_module()
    configs = Path(find_spec("laion_clap").origin).parent / "clap_module" / "model_configs"
    audio = json.loads((configs / f"HTSAT-{size}.json").read_text())["audio_cfg"]
    asked = {}
    monkeypatch.setattr(htsat, "HTSAT_Swin_Transformer", lambda **values: asked.update(values))
    htsat.create_htsat_model(types.SimpleNamespace(**audio))
    ours = SIZES[size]
    for name in ("spec_size", "patch_size", "embed_dim", "window_size"):
        assert ours[name] == asked[name]
    assert asked["patch_stride"] == (ours["patch_stride"],) * 2
    assert list(ours["depths"]) == asked["depths"] and list(ours["num_heads"]) == asked["num_heads"]
    theirs = {"n_fft": "window_size", "hop": "hop_size", "window_samples": "clip_samples"}
    for name in ("sample_rate", "mel_bins", "fmin", "fmax", *theirs):
        assert ours[name] == audio[theirs.get(name, name)]
    # 480000 samples are 1001 spectrogram frames, stretched to the square's 1024; the square itself would hold 491520.
    assert ours["window_samples"] // ours["hop"] + 1 == 1001 <= ours["spec_size"] ** 2 // ours["mel_bins"] == 1024


class RunsOnLoading:
    ran = False

    def __reduce__(self):
        return setattr, (RunsOnLoading, "ran", True)


def test_wrong_laion_files_are_refused_in_one_line(tmp_path):
    def refused(match, state=None, path=None, **options):
        path = path or write_laion(tmp_path / "x.pt", state)
        with pytest.raises(UserError, match=match) as error:
            build("htsat", {**HTSAT, "pretrained": str(path), **options})
        assert "\n" not in str(error.value) and len(str(error.value)) < 500

    good = laion_state()
    lacking = {name: value for name, value in good.items() if "norm1.weight" not in name}
    refused("3 weights do not fit.*layers.0.blocks.0.norm1.weight is missing", lacking)
    refused("patch_embed.extra is not expected", {**good, "module.audio_branch.patch_embed.extra": torch.zeros(1)})
    fusion = {**good, "module.audio_branch.patch_embed.fusion_model.local_att.0.weight": torch.zeros(1)}
    refused("trained with fusion", fusion)
    refused(r"patch_embed.proj.weight is \(8, 1, 4, 4\), not \(4, 1, 4, 4\).*check the tower's size", good, embed_dim=4)
    like_base = {**good, "module.audio_branch.patch_embed.proj.weight": torch.zeros(128, 1, 4, 4)}
    refused("look like size: base", like_base)
    refused("has no weights called audio_branch", {"module.text_branch.x": torch.zeros(1)})
    refused("no such file", path=tmp_path / "nowhere.pt")
    torch.save({"state_dict": good, "config": RunsOnLoading()}, tmp_path / "unsafe.pt")
    refused("holds more than weights", path=tmp_path / "unsafe.pt")
    assert not RunsOnLoading.ran
    (tmp_path / "cut.pt").write_bytes((tmp_path / "unsafe.pt").read_bytes()[:-3000])
    refused("damaged", path=tmp_path / "cut.pt")


def test_contradictory_htsat_options_are_refused():
    with pytest.raises(UserError, match="set embed_dim 512"):
        build("htsat", {**HTSAT, "projection": "clap"}, 64)
    with pytest.raises(UserError, match="did you mean 'base'"):
        build("htsat", {"size": "bases"})
    with pytest.raises(UserError, match="at most 20480 fit"):
        build("htsat", {**HTSAT, "window_samples": 30000})


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    from transformers import ClapConfig, ClapModel

    text = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 20,
        "max_position_embeddings": 10,
    }
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(3)
    model = randomize(ClapModel(ClapConfig(text_config=text, audio_config=CLAP, projection_dim=8)))
    model.save_pretrained(folder)
    settings = {**CLAP_FEATURES, "frequency_min": 60, "feature_extractor_type": "ClapFeatureExtractor"}
    settings |= {"padding": "repeatpad", "truncation": "rand_trunc", "padding_value": 0.0, "top_db": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_clap_equals_transformers(clap_folder):
    from safetensors import safe_open
    from transformers import ClapFeatureExtractor, ClapModel

    with safe_open(clap_folder / "model.safetensors", "pt") as file:  # the keys laion/clap-htsat-unfused has
        published = set(file.keys())
    assert "audio_model.audio_encoder.layers.0.blocks.1.attention.self.query.weight" in published
    assert {"audio_projection.linear1.weight", "text_model.embeddings.word_embeddings.weight"} <= published

    tower = build("clap", {"pretrained": str(clap_folder), "projection": "clap"})
    sound = sounds(16000)[0]
    features = ClapFeatureExtractor.from_pretrained(clap_folder)(sound, sampling_rate=16000, return_tensors="pt")
    model = ClapModel.from_pretrained(clap_folder).eval()
    with torch.no_grad():
        output = model.audio_model(features["input_features"])
        pooled = nn.functional.normalize(model.audio_projection(output.pooler_output), dim=-1)  # (1, 8)
    encoded = tower.encode_prepared([sound])
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-4)
    frames = output.last_hidden_state.mean(2).transpose(1, 2)  # (1, T, C)
    torch.testing.assert_close(encoded.sequence, frames, rtol=0, atol=1e-3)
    assert encoded.rate == tower.steps == frames.shape[1] == 16

    again = build("clap", json.loads(json.dumps(tower.config())))
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.encode_prepared([sound]).pooled, encoded.pooled)


def test_log_mel_equals_that_of_clap_feature_extractor():
    """On ten seconds at 48 kHz, with the settings of laion/clap-htsat-unfused."""
    from transformers import ClapFeatureExtractor

    tower = build("clap", {"model_cfg": {**CLAP, "spec_size": 256, "num_mel_bins": 64}})
    assert (tower.sample_rate, tower.window, tower.rate) == (48000, 480000, 12.8)  # 3.2 with LAION's four stages
    rng = np.random.default_rng(0)
    time = np.arange(480000) / 48000
    sound = (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + rng.normal(0, 0.01, len(time))).astype(np.float32)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="pad")
    expected = extractor(sound, sampling_rate=48000, return_tensors="pt")["input_features"]  # (1, 1, 1001, 64)
    at = torch.zeros(2, 1, dtype=torch.long)  # (2, N)
    mel = tower._mel(tower._power(torch.from_numpy(sound)[None]), at, torch.tensor([480000]))  # (1, 1, 1001, 64)
    torch.testing.assert_close(mel, expected, rtol=1e-4, atol=1e-3)  # dB
    half = extractor(sound[:240000], sampling_rate=48000, return_tensors="pt")["input_features"]
    padded = tower.collate([sound[:240000]])["waveform"][0]
    torch.testing.assert_close(tower._mel(tower._power(padded), at, torch.tensor([240000])), half, rtol=1e-4, atol=1e-3)


def test_wrong_clap_folders_are_refused(clap_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match=r"no config\.json"):
        build("clap", {"pretrained": str(tmp_path)})
    broken = tmp_path / "broken"
    shutil.copytree(clap_folder, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["audio_model.audio_encoder.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing, first audio_model\.audio_encoder\.norm\.weight"):
        build("clap", {"pretrained": str(broken)})
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        build("clap", {"pretrained": str(broken)})
    with pytest.raises(UserError, match="without fusion"):
        build("clap", {"model_cfg": {**CLAP, "enable_fusion": True}})
    with pytest.raises(UserError, match="at most 128 x 32"):
        build("clap", {"model_cfg": CLAP, "feature_cfg": {**CLAP_FEATURES, "max_length_s": 2}})
    with pytest.raises(UserError, match="set embed_dim 8"):
        build("clap", {"pretrained": str(clap_folder), "projection": "clap"}, 16)
