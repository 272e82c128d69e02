"""The speech towers against transformers, on checkpoints in the published layout."""

import json

import numpy as np
import pytest
import torch
from helpers.audio_tiny import GROUP, KINDS, LAYER, build, sounds
from helpers.published_tiny import audeering, speech_folder
from helpers.rounding import assert_same_up_to_rounding
from safetensors.torch import load_file, save_file

from shared.errors import UserError

# -------------------------------------------------------------------------------- wav2vec2, HuBERT, WavLM: folders


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
def test_speech_towers_equal_transformers_on_single_clips(kind, model_cfg, do_normalize, binary, tmp_path):
    from transformers import AutoFeatureExtractor

    model, folder = speech_folder(tmp_path, kind, model_cfg, do_normalize, binary)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    waveforms = [sound + 0.1 for sound in sounds(16000, 31007, 5000)]
    single = []
    for sound in waveforms:
        values = extractor(sound, sampling_rate=16000, return_tensors="pt")["input_values"]
        with torch.no_grad():
            single.append(model(values, output_hidden_states=True))
    options = {"pretrained": folder}
    last = build("wav2vec2", options)
    second = build("wav2vec2", {**options, "layer": 2})
    third = build("wav2vec2", {**options, "layer": 3})
    average = build("wav2vec2", {**options, "layer": "weighted"})
    with torch.no_grad():
        average.layer_weights.copy_(torch.tensor([0.0, 0.3, -0.2, 0.8]))
    weights = average.layer_weights.detach().exp() / average.layer_weights.detach().exp().sum()  # (4,)
    encoded = [tower.encode_prepared(waveforms) for tower in (last, second, third, average)]
    for row, output in enumerate(single):
        steps = output.last_hidden_state.shape[1]
        states = [*output.hidden_states[:3], output.last_hidden_state]
        expected = [states[3], states[2], states[3], sum(w * hidden for w, hidden in zip(weights, states, strict=True))]
        for got, state in zip(encoded, expected, strict=True):
            assert_same_up_to_rounding(got.sequence[row, :steps], state[0], 5e-5)
            assert got.mask[row].sum() == steps
    assert (encoded[0].sequence - encoded[1].sequence).abs().max() > 1e-2
    assert last.config()["architecture"] == kind and last.config()["normalize"] is do_normalize
    again = build("wav2vec2", json.loads(json.dumps(second.config())))
    again.load_state_dict(second.state_dict())
    assert torch.equal(again.encode_prepared(waveforms).sequence, encoded[1].sequence)


@pytest.mark.parametrize("kind", ["wav2vec2 layer", "hubert", "whisper of the sound"])
def test_learned_mix_of_layers_trains_beside_a_frozen_trunk(kind):
    """As SUPERB uses it: its weights and the layer into the shared space alone."""
    tower = build(*KINDS[kind]).train()
    tower.freeze(0)
    trained = [name for name, parameter in tower.named_parameters() if parameter.requires_grad]
    assert trained == ["layer_weights", "project.weight", "project.bias"]
    assert tower.lr_factors(0.5)["layer_weights"] == 1
    tower(**tower.collate(sounds(9000))).pooled[0, 0].backward()
    assert (tower.layer_weights.grad != 0).all()


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
    with pytest.raises(UserError, match=r"do not fit config.json, first .* is \(16,\), not \(32,\)"):
        build("wav2vec2", {"pretrained": folder, "model_cfg": {"hidden_size": 32}})
    with pytest.raises(UserError, match="pretrained is empty"):
        build("wav2vec2", {"pretrained": ""})
    with pytest.raises(UserError, match=r"model_cfg: .*'hidden_size' expected int, got str"):
        build("wav2vec2", {"model_cfg": {**GROUP, "hidden_size": "16"}})


def test_weights_that_config_json_does_not_describe_are_refused(tmp_path):
    """Blocks that it does not count would be left out, and the final norm put in the middle of the model."""
    _, folder = speech_folder(tmp_path, "wav2vec2", GROUP)
    config = json.loads((tmp_path / "config.json").read_text())

    def fails(match, **changes):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=match) as error:
            build("wav2vec2", {"pretrained": folder})
        assert "\n" not in str(error.value)

    fails(r"counts 2 blocks, the weights hold more \(wav2vec2.encoder.layers.2.*does config.json", num_hidden_layers=2)
    fails("weights are missing, first encoder.layers.3", num_hidden_layers=4)
    fails("'hidden_size' expected int, got str .*a folder saved by transformers", hidden_size="16")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(build("wav2vec2", {"pretrained": folder, "model_cfg": {"num_hidden_layers": 2}}).blocks()) == 2
    weights = load_file(tmp_path / "model.safetensors")
    weights["wav2vec2.encoder.layer_norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    fails("encoder.layer_norm.weight have.* not finite")


def test_settings_in_the_file_of_a_whole_processor_are_read(tmp_path):
    """transformers 5 saves them there, and reads that file first."""
    _, folder = speech_folder(tmp_path, "wav2vec2", GROUP)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"do_normalize": False}
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "Wav2Vec2Processor"}))
    assert build("wav2vec2", {"pretrained": folder}).options.normalize is True
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    assert build("wav2vec2", {"pretrained": folder}).options.normalize is False
    (tmp_path / "processor_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"processor_config\.json: damaged settings"):
        build("wav2vec2", {"pretrained": folder})


# ------------------------------------------------------------------------------------------------------- audeering


def test_audeering_head_gives_arousal_dominance_valence(tmp_path):
    """The published layout: wav2vec2.*, classifier.dense.*, classifier.out_proj.*, labels named in config.json."""
    model, folder, (dense, out, biases) = audeering(tmp_path)
    waveforms = sounds(16000, 0, 31007)
    expected, of_frames = [], {}

    def head(state):
        return out @ torch.tanh(dense @ state + biases[0]) + biases[1]  # (3,)

    for row in (0, 2):
        sound = waveforms[row]
        values = torch.from_numpy((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))[None]  # (1, S)
        with torch.no_grad():
            states = model(values).last_hidden_state[0]  # (T, C)
        expected.append(head(states.mean(0)))
        of_frames[row] = torch.stack([head(state) for state in states])  # (T, 3)
    tower = build("audeering", {"pretrained": folder, "append_emotion": True})
    emotion = tower.emotion(waveforms)
    assert_same_up_to_rounding(emotion[[0, 2]], torch.stack(expected))
    assert emotion.shape == (3, 3) and emotion[1].isnan().all()

    encoded = tower.encode_prepared(waveforms)
    assert tower.width == encoded.sequence.shape[-1] == 19
    for row in (0, 2):
        steps = int(encoded.mask[row].sum())
        appended = encoded.sequence[row, :steps, 16:]  # (T, 3)
        assert_same_up_to_rounding(appended, of_frames[row])
    assert build("audeering", {"pretrained": folder}).encode_prepared(waveforms).sequence.shape[-1] == 16
    again = build("audeering", json.loads(json.dumps(tower.config())))
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.emotion(waveforms)[[0, 2]], emotion[[0, 2]])

    with pytest.raises(UserError, match="leave it at last"):
        build("audeering", {"pretrained": folder, "layer": 1})
    values = json.loads((tmp_path / "config.json").read_text())
    values["id2label"] = {"0": "valence", "1": "dominance", "2": "arousal"}
    values["label2id"] = {"valence": 0, "dominance": 1, "arousal": 2}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="predicts valence, dominance, arousal"):
        build("audeering", {"pretrained": folder})
