"""Every audio tower on checkpoints written here in the layout they are published in, against the published code."""

import json
import types

import numpy as np
import pytest
import stage1_tiny
import torch
from torch import nn

from shared.errors import UserError
from stage1_align.encoders import AlignedEncoders
from stage1_align.towers import TOWERS
from stage1_align.towers.audio import SIZES, _htsat_module

HTSAT = {
    "sample_rate": 16000,
    "n_fft": 512,
    "hop": 160,
    "mel_bins": 32,
    "window_samples": 20000,  # 126 spectrogram frames, which are stretched to 128
    "spec_size": 64,
    "patch_size": 4,
    "patch_stride": 4,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [1, 2],
}
CLAP = {
    "depths": [2, 1],
    "num_attention_heads": [1, 2],
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "spec_size": 64,
    "num_mel_bins": 32,
    "projection_dim": 8,
}
CLAP_FEATURES = {
    "sampling_rate": 16000,
    "hop_length": 160,
    "fft_window_size": 512,
    "max_length_s": 1,
    "feature_size": 32,
    "frequency_max": 8000,
}
SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8, 8, 8, 8, 8, 8],  # kernels and strides are those of the published models
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
    "num_codevectors_per_group": 4,
}
GROUP = {**SPEECH, "feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {**SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

KINDS = {
    "htsat": ("htsat", HTSAT),
    "clap": ("clap", {"model_cfg": CLAP, "feature_cfg": CLAP_FEATURES}),
    "wav2vec2": ("wav2vec2", {"model_cfg": GROUP}),
    "wav2vec2 layer": ("wav2vec2", {"model_cfg": LAYER, "layer": "weighted"}),
    "hubert": ("wav2vec2", {"architecture": "hubert", "model_cfg": GROUP, "layer": "weighted", "train_features": True}),
    "wavlm": ("wav2vec2", {"architecture": "wavlm", "model_cfg": GROUP}),
    "wavlm layer": ("wav2vec2", {"architecture": "wavlm", "model_cfg": LAYER, "layer": 2, "peak": True}),
    "audeering": ("audeering", {"model_cfg": LAYER, "append_emotion": True}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(name, options, embed_dim=8):
    torch.manual_seed(0)
    return TOWERS["audio"].get(name).from_options(options, embed_dim).eval()


def sounds(*lengths):
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.4, 0.4, length).astype(np.float32) for length in lengths]


def randomise(module):
    """Biases, norms and their statistics that differ from what a module starts with."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and "melW" not in name and "spectrogram" not in name:
            value.copy_(0.1 * torch.randn(value.shape, generator=generator) + (value if value.ndim < 2 else value * 3))
            if name.endswith("running_var"):
                value.abs_().add_(20)
    return module.eval()


# ----------------------------------------------------------------------------------------------- what all towers keep


@every_kind
def test_batch_equals_single_and_what_is_absent_is_masked(kind):
    tower = build(*KINDS[kind])
    given = sounds(16000, 0, 100, 47001)
    batch = tower.encode(given)
    for row, item in enumerate(given):
        single = tower.encode([item])
        steps = single.sequence.shape[1]
        torch.testing.assert_close(batch.pooled[row], single.pooled[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(batch.sequence[row, :steps], single.sequence[0], rtol=0, atol=1e-5)
        assert torch.equal(batch.mask[row, :steps], single.mask[0]) and not batch.mask[row, steps:].any()
    assert not batch.mask[1].any() and (batch.sequence[1] == 0).all() and (batch.pooled[1] == 0).all()
    assert batch.mask[2].any()  # 100 samples are heard
    assert torch.isfinite(batch.sequence).all() and torch.isfinite(batch.pooled).all()
    present = batch.pooled[[0, 2, 3]]
    torch.testing.assert_close(present.norm(dim=1), torch.ones(3))
    assert batch.sequence.shape[-1] == tower.width and (present[0] - present[2]).abs().max() > 1e-3


@every_kind
def test_frames_come_at_the_stated_rate_and_stand_where_the_sound_is(kind):
    tower = build(*KINDS[kind])
    sound = sounds(48000)[0]
    before = tower.encode([sound])
    steps = int(before.mask.sum())
    if kind in ("htsat", "clap"):
        assert steps == np.ceil(round(3 * before.rate, 6))
    else:
        assert before.rate == 50 and tower.least == 400 and steps == (48000 - 400) // 320 + 1
    assert tower.encode([sound[:8000]]).rate == before.rate == tower.rate  # whatever the clip's length
    for begin in (6400, 30400):  # 0.2 s of other noise
        other = sound.copy()
        other[begin : begin + 3200] = sound[:3200]
        change = (tower.encode([other]).sequence - before.sequence)[0, :steps].abs().sum(-1)  # (T,)
        changed = (float(change.argmax()) + 0.5) / before.rate  # s
        assert begin / 16000 - 1 / before.rate <= changed <= (begin + 3200) / 16000 + 1 / before.rate


@every_kind
def test_an_exported_tower_loads_without_its_checkpoint(kind, tmp_path):
    encoders = stage1_tiny.encoders()
    tower = encoders.audio = randomise(build(*KINDS[kind]))
    encoders.names["audio"] = KINDS[kind][0]
    encoders.save_pretrained(tmp_path / "encoders")
    spec = json.loads((tmp_path / "encoders" / "config.json").read_text())["towers"]["audio"]
    assert spec["options"]["pretrained"] is None and spec["rate"] == tower.rate and spec["width"] == tower.width
    again = AlignedEncoders.from_pretrained(tmp_path / "encoders").audio
    assert json.loads(json.dumps(again.config())) == spec["options"]
    given = sounds(9000, 21000)
    a, b = tower.encode(given), again.encode(given)
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=1e-5)  # WavLM's attention rounds otherwise when frozen
    torch.testing.assert_close(a.sequence, b.sequence, rtol=0, atol=1e-5)


@every_kind
def test_every_trained_parameter_gets_a_gradient(kind):
    """DistributedDataParallel stops at the first parameter that does not; also where no clip of a process has sound."""
    for lengths in ((9000, 0, 25000), (0,)):
        tower = build(*KINDS[kind]).train()
        encoded = tower(**tower.collate(sounds(*lengths)))
        encoded.pooled.square().sum().add(encoded.sequence.sum()).backward()
        assert [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in tower.parameters() if p.grad is not None)
    frozen = [p for name, p in tower.named_parameters() if "feature_extractor" in name]
    assert all(p.requires_grad == KINDS[kind][1].get("train_features", False) for p in frozen)


@every_kind
def test_blocks_run_in_their_order_and_can_be_checkpointed(kind):
    tower = build(*KINDS[kind])
    blocks = tower.blocks()
    assert len(blocks) == (2 if kind == "wavlm layer" else 3)  # what the options say, less what `layer` drops
    batch = tower.collate(sounds(20000, 9000))
    seen = []
    hooks = [block.register_forward_hook(lambda module, *_: seen.append(module)) for block in blocks]
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.forward = checkpointing(block.forward)
        tower.zero_grad()
        tower(**batch).sequence.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None})
    assert seen == blocks
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def checkpointing(forward):
    def again(*args, **kwargs):
        return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again


# ------------------------------------------------------------------------------------------- htsat: LAION's .pt files


def laion_model():
    """HTS-AT as laion_clap builds it, with its tagging head and Fourier transform, and CLAP's projection."""
    torch.manual_seed(2)
    htsat = _htsat_module().HTSAT_Swin_Transformer(
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
    return randomise(htsat), nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512))


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
    else:  # beside the weights: epoch, name, and a numpy number, as in LAION's files
        torch.save({"epoch": 15, "name": "2023", "best": np.float64(0.9), "state_dict": state}, path)
    return str(path)


@pytest.mark.parametrize(
    ("file", "prefix", "position_ids"), [("a.pt", "module.", True), ("b.pt", "", False), ("c.safetensors", "", True)]
)
def test_htsat_gives_what_laion_clap_gives(tmp_path, file, prefix, position_ids):
    path = write_laion(tmp_path / file, laion_state(prefix, position_ids))
    tower = build("htsat", {**HTSAT, "pretrained": path, "projection": "clap"}, 512)
    htsat, projection = laion_model()
    given = sounds(20000, 20000)
    with torch.no_grad():
        published = htsat({"waveform": torch.from_numpy(np.stack(given))}, device="cpu")
        pooled = nn.functional.normalize(projection(published["embedding"]), dim=-1)  # (2, 512)
    encoded = tower.encode(given)
    assert encoded.sequence.shape == (2, 16, 16) and encoded.rate == 16 * 16000 / 20000
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded.sequence, published["fine_grained_embedding"][:, ::32], rtol=0, atol=1e-4)
    before = tower.batch_norm.running_mean.clone()
    tower.calibrate(given)
    assert torch.equal(tower.batch_norm.running_mean, before)  # pretrained statistics stay


def test_a_linear_projection_leaves_laions_and_keeps_its_trunk(tmp_path):
    path = write_laion(tmp_path / "a.pt", laion_state())
    tower = build("htsat", {**HTSAT, "pretrained": path})
    assert isinstance(tower.project, nn.Linear)
    for name, value in laion_model()[0].patch_embed.state_dict().items():
        assert torch.equal(tower.net.patch_embed.state_dict()[name], value)


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_named_sizes_are_laions_own(size, monkeypatch):
    """Against what create_htsat_model builds from model_configs/HTSAT-{size}.json."""
    from importlib.util import find_spec
    from pathlib import Path

    htsat = _htsat_module()
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
    refused("no audio_branch", {"module.text_branch.x": torch.zeros(1)})
    refused("no such file", path=tmp_path / "nowhere.pt")
    torch.save({"state_dict": good, "config": RunsOnLoading()}, tmp_path / "unsafe.pt")
    refused("holds more than weights", path=tmp_path / "unsafe.pt")
    assert not RunsOnLoading.ran
    (tmp_path / "cut.pt").write_bytes((tmp_path / "unsafe.pt").read_bytes()[:-3000])
    refused("damaged", path=tmp_path / "cut.pt")


def test_htsat_options_that_contradict_are_refused():
    with pytest.raises(UserError, match="set embed_dim 512"):
        build("htsat", {**HTSAT, "projection": "clap"}, 64)
    with pytest.raises(UserError, match="did you mean 'base'"):
        build("htsat", {"size": "bases"})
    with pytest.raises(UserError, match="at most 20480 fit"):
        build("htsat", {**HTSAT, "window_samples": 30000})


# ---------------------------------------------------------------------------------- clap: a folder of transformers


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
    model = randomise(ClapModel(ClapConfig(text_config=text, audio_config=CLAP, projection_dim=8)))
    model.save_pretrained(folder)
    settings = {**CLAP_FEATURES, "frequency_min": 60, "feature_extractor_type": "ClapFeatureExtractor"}
    settings |= {"padding": "repeatpad", "truncation": "rand_trunc", "padding_value": 0.0, "top_db": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_clap_gives_what_transformers_gives(clap_folder):
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
    encoded = tower.encode([sound])
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-4)
    frames = output.last_hidden_state.mean(2).transpose(1, 2)  # (1, T, C)
    torch.testing.assert_close(encoded.sequence, frames, rtol=0, atol=1e-3)
    assert encoded.rate == tower.steps == frames.shape[1] == 16

    again = build("clap", json.loads(json.dumps(tower.config())))
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.encode([sound]).pooled, encoded.pooled)


def test_the_log_mel_is_that_of_their_extractor():
    """On ten seconds at 48 kHz, with the settings of laion/clap-htsat-unfused."""
    from transformers import ClapFeatureExtractor

    tower = build("clap", {"model_cfg": {**CLAP, "spec_size": 256, "num_mel_bins": 64}})
    assert (tower.sample_rate, tower.window, tower.rate) == (48000, 480000, 12.8)  # 3.2 with LAION's four stages
    rng = np.random.default_rng(0)
    time = np.arange(480000) / 48000
    sound = (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + rng.normal(0, 0.01, len(time))).astype(np.float32)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="pad")
    expected = extractor(sound, sampling_rate=48000, return_tensors="pt")["input_features"]  # (1, 1, 1001, 64)
    one = torch.ones(1, 1, dtype=torch.bool)
    mel = tower._mel(torch.from_numpy(sound)[None], one, torch.tensor([480000]))  # (1, 1, 1001, 64)
    torch.testing.assert_close(mel, expected, rtol=1e-4, atol=1e-3)  # dB
    half = extractor(sound[:240000], sampling_rate=48000, return_tensors="pt")["input_features"]
    padded = tower.collate([sound[:240000]])["waveform"][0]
    torch.testing.assert_close(tower._mel(padded, one, torch.tensor([240000])), half, rtol=1e-4, atol=1e-3)


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


# -------------------------------------------------------------------------------- wav2vec2, HuBERT, WavLM: folders


def speech_folder(folder, kind, model_cfg, do_normalize=True, binary=False):
    """A folder as published: weight_g and weight_v of the positional convolution, `wav2vec2.` before the keys and a
    quantizer beside them for wav2vec 2.0, no prefix for the others, and fields of old configurations."""
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(4)
    config = transformers.AutoConfig.for_model(kind, **model_cfg)
    names = {"wav2vec2": "Wav2Vec2ForPreTraining", "hubert": "HubertModel", "wavlm": "WavLMModel"}
    model = randomise(getattr(transformers, names[kind])(config))
    model.save_pretrained(folder)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        for new, published in old.items():
            name = name.replace(new, published)
        weights[name] = value
    if binary:
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    values |= {"gradient_checkpointing": True, "feat_extract_dropout": 0.0}
    (folder / "config.json").write_text(json.dumps(values))
    settings = {"do_normalize": do_normalize, "feature_size": 1, "padding_value": 0.0, "sampling_rate": 16000}
    settings["feature_extractor_type"] = "Wav2Vec2FeatureExtractor"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model.base_model, str(folder)


@pytest.mark.parametrize(
    ("kind", "model_cfg", "do_normalize", "binary"),
    [
        ("wav2vec2", GROUP, True, False),
        ("wav2vec2", LAYER, True, True),
        ("hubert", GROUP, True, True),
        ("hubert", LAYER, True, False),
        ("wavlm", GROUP, False, False),
        ("wavlm", LAYER, True, True),
    ],
)
def test_speech_models_give_what_transformers_gives_for_each_clip_alone(
    kind, model_cfg, do_normalize, binary, tmp_path
):
    from transformers import AutoFeatureExtractor

    model, folder = speech_folder(tmp_path, kind, model_cfg, do_normalize, binary)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    given = [sound + 0.1 for sound in sounds(16000, 31007, 5000)]
    alone = []
    for sound in given:
        values = extractor(sound, sampling_rate=16000, return_tensors="pt")["input_values"]
        with torch.no_grad():
            alone.append(model(values, output_hidden_states=True))
    options = {"pretrained": folder}
    last = build("wav2vec2", options)
    second = build("wav2vec2", {**options, "layer": 2})
    average = build("wav2vec2", {**options, "layer": "weighted"})
    with torch.no_grad():
        average.layer_weights.copy_(torch.tensor([0.0, 0.3, -0.2, 0.8]))
    weights = average.layer_weights.detach().exp() / average.layer_weights.detach().exp().sum()  # (4,)
    encoded = [tower.encode(given) for tower in (last, second, average)]
    for row, output in enumerate(alone):
        steps = output.last_hidden_state.shape[1]
        states = [*output.hidden_states[:3], output.last_hidden_state]
        expected = [states[3], states[2], sum(w * state for w, state in zip(weights, states, strict=True))]
        for got, want in zip(encoded, expected, strict=True):
            torch.testing.assert_close(got.sequence[row, :steps], want[0], rtol=0, atol=5e-5)
            assert got.mask[row].sum() == steps
    assert (encoded[0].sequence - encoded[1].sequence).abs().max() > 1e-2
    assert last.config()["architecture"] == kind and last.config()["normalise"] is do_normalize
    again = build("wav2vec2", json.loads(json.dumps(second.config())))
    again.load_state_dict(second.state_dict())
    assert torch.equal(again.encode(given).sequence, encoded[1].sequence)


def test_wrong_speech_options_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'hubert'"):
        build("wav2vec2", {"architecture": "huberts"})
    with pytest.raises(UserError, match='a number from 0 to 3, "last" or "weighted"'):
        build("wav2vec2", {"model_cfg": GROUP, "layer": 4})
    with pytest.raises(UserError, match="adapter"):
        build("wav2vec2", {"model_cfg": {**GROUP, "add_adapter": True}})
    with pytest.raises(UserError, match="no clip has sound"):
        build("wav2vec2", {"model_cfg": GROUP}).calibrate(sounds(0, 0))
    _, folder = speech_folder(tmp_path, "wav2vec2", GROUP)
    with pytest.raises(UserError, match="cannot be loaded"):
        build("wav2vec2", {"pretrained": folder, "model_cfg": {"hidden_size": 32}})


# ------------------------------------------------------------------------------------------------------- audeering


def test_audeering_tells_arousal_dominance_valence(tmp_path):
    """The published layout: wav2vec2.*, classifier.dense.*, classifier.out_proj.*, labels named in config.json."""
    from safetensors.torch import load_file, save_file

    labels = {"id2label": {"0": "arousal", "1": "dominance", "2": "valence"}}
    model, folder = speech_folder(tmp_path, "wav2vec2", {**LAYER, **labels})
    weights = load_file(tmp_path / "model.safetensors")
    weights = {name: value for name, value in weights.items() if name.startswith("wav2vec2.")}
    generator = torch.Generator().manual_seed(5)
    dense, out = torch.randn(16, 16, generator=generator), torch.randn(3, 16, generator=generator)
    biases = torch.randn(16, generator=generator), torch.randn(3, generator=generator)
    weights |= {"classifier.dense.weight": dense, "classifier.dense.bias": biases[0]}
    weights |= {"classifier.out_proj.weight": out, "classifier.out_proj.bias": biases[1]}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    given = sounds(16000, 0, 31007)
    expected = []
    for sound in (given[0], given[2]):
        values = torch.from_numpy((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))[None]  # (1, S)
        with torch.no_grad():
            pooled = model(values).last_hidden_state.mean(1)[0]  # (C,)
        expected.append(out @ torch.tanh(dense @ pooled + biases[0]) + biases[1])  # (3,)
    tower = build("audeering", {"pretrained": folder, "append_emotion": True})
    emotion = tower.emotion(given)
    torch.testing.assert_close(emotion[[0, 2]], torch.stack(expected), rtol=0, atol=1e-5)
    assert emotion.shape == (3, 3) and emotion[1].isnan().all()

    encoded = tower.encode(given)
    assert tower.width == encoded.sequence.shape[-1] == 19
    for row in (0, 2):
        steps = int(encoded.mask[row].sum())
        told = encoded.sequence[row, :steps, 16:]  # (T, 3)
        torch.testing.assert_close(told, emotion[row].expand(steps, 3), rtol=0, atol=1e-6)
    assert build("audeering", {"pretrained": folder}).encode(given).sequence.shape[-1] == 16
    again = build("audeering", json.loads(json.dumps(tower.config())))
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.emotion(given)[[0, 2]], emotion[[0, 2]])

    with pytest.raises(UserError, match="leave it at last"):
        build("audeering", {"pretrained": folder, "layer": 1})
    values = json.loads((tmp_path / "config.json").read_text())
    values["id2label"] = {"0": "valence", "1": "dominance", "2": "arousal"}
    values["label2id"] = {"valence": 0, "dominance": 1, "arousal": 2}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="tells valence, dominance, arousal"):
        build("audeering", {"pretrained": folder})
