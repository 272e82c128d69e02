"""The Whisper tower against transformers, on checkpoints in the published layout."""

import json

import numpy as np
import pytest
import torch
from helpers.audio_tiny import WHISPER, build, sounds
from helpers.published_tiny import whisper_folder
from helpers.real_material import real
from helpers.rounding import assert_same_up_to_rounding
from safetensors.torch import load_file

from shared.errors import UserError
from shared.media.decode import decode

STEPS = 50
"""Positions of the tiny model's window, one second."""


def tiny_features(sound):
    """Log-mels of one window of the tiny model, by transformers: (1, M, F)."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=WHISPER["num_mel_bins"], chunk_length=1)
    return extractor(sound, sampling_rate=16000, return_tensors="pt")["input_features"]


@pytest.mark.parametrize("length", [1, 100, 7999, 15840, 15999, 16000])
def test_log_mels_are_those_of_transformers(length):
    """Of the published settings, at the ends of the window too; in float64 by transformers' slow implementation."""
    from transformers import WhisperFeatureExtractor

    tower = build("whisper", {"model_cfg": {**WHISPER, "num_mel_bins": 80}})
    sound = sounds(length)[0] * np.linspace(0, 1, length, dtype=np.float32)
    waveform = tower.collate([sound])["waveform"][0]  # (1, S)
    for positions in (STEPS, -(-length // 320)):
        mel = tower._log_mel(tower._power(waveform), 2 * positions + 2)[0]  # (80, F)
        padded = np.pad(sound, (0, 16000 - length))
        expected = WhisperFeatureExtractor(chunk_length=1)._np_extract_fbank_features(padded[None], "cpu")[0]
        assert mel.shape == (80, min(2 * positions + 2, 2 * STEPS))
        np.testing.assert_allclose(mel.numpy(), expected[:, : mel.shape[1]], atol=2e-4)


@pytest.mark.parametrize("kind", ["WhisperForConditionalGeneration", "WhisperModel", "WhisperEncoder"])
def test_whisper_equals_transformers_on_padded_windows(kind, tmp_path):
    """Whatever the names of the weights; a clip of two and a half windows is three of them."""
    model = whisper_folder(tmp_path, kind)
    prefix = {"WhisperForConditionalGeneration": "model.encoder.", "WhisperModel": "encoder.", "WhisperEncoder": ""}
    weights = load_file(tmp_path / "model.safetensors")
    assert prefix[kind] + "conv1.weight" in weights and weights[prefix[kind] + "conv1.weight"].dtype == torch.float16
    waveforms = sounds(9000, 0, 40000, 100)
    layers = ("last", 2, 3, "weighted")
    towers = [build("whisper", {"pretrained": str(tmp_path), "layer": layer}) for layer in layers]
    with torch.no_grad():
        towers[3].layer_weights.copy_(torch.tensor([0.0, 0.3, -0.2, 0.8]))
    shares = np.exp([0.0, 0.3, -0.2, 0.8]) / np.exp([0.0, 0.3, -0.2, 0.8]).sum()  # (4,)
    encoded = [tower.encode_prepared(waveforms) for tower in towers]
    for row, sound in enumerate(waveforms):
        count = -(-len(sound) // 320)
        states = [[] for _ in range(4)]
        for start in range(0, len(sound), 16000):
            with torch.no_grad():
                output = model(tiny_features(sound[start : start + 16000]), output_hidden_states=True)
            for parts, state in zip(states, [*output.hidden_states[:3], output.last_hidden_state], strict=True):
                parts.append(state[0])  # (50, C)
        assert [int(part.mask[row].sum()) for part in encoded] == [count] * 4
        if count:
            whole = [torch.cat(parts)[:count] for parts in states]  # each (T, C)
            mixed = sum(float(share) * state for share, state in zip(shares, whole, strict=True))
            for part, expected in zip(encoded, (whole[3], whole[2], whole[3], mixed), strict=True):
                assert_same_up_to_rounding(part.sequence[row, :count], expected, 2e-4)
    assert (encoded[0].sequence - encoded[1].sequence).abs().max() > 1e-2
    again = build("whisper", json.loads(json.dumps(towers[1].config())))
    again.load_state_dict(towers[1].state_dict())
    assert torch.equal(again.encode_prepared(waveforms).sequence, encoded[1].sequence)


def test_encoder_sees_no_more_silence_than_asked_for():
    """The cost is that of the sound and its silence; a whole window of silence gives what None gives."""
    waveforms = sounds(3200, 6400)
    seen, results = [], {}
    for silence in (None, 0.0, 0.1, 5.0):
        tower = build("whisper", {"model_cfg": WHISPER, "silence_seconds": silence})
        tower.net.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
        results[silence] = tower.encode_prepared(waveforms).sequence  # (2, 20, C)
    assert seen == [STEPS, 20, 25, STEPS]
    assert_same_up_to_rounding(results[5.0], results[None])
    assert (results[0.0] - results[None]).abs().max() > 1e-4  # attention reads the silence

    mel = tiny_features(waveforms[0])  # 10 real positions and 5 of silence
    with torch.no_grad():
        x = torch.nn.functional.gelu(tower.net.conv1(mel))
        x = torch.nn.functional.gelu(tower.net.conv2(x)).transpose(1, 2)[:, :15] + tower.net.embed_positions.weight[:15]
        for block in tower.net.layers:
            x = block(x, None)
        assert_same_up_to_rounding(results[0.1][0, :10], tower.net.layer_norm(x)[0, :10])


def test_wrong_whisper_folders_and_options_are_refused(tmp_path):
    whisper_folder(tmp_path, "WhisperModel")
    with pytest.raises(UserError, match="did you mean 'n_fft'"):
        build("whisper", {"feature_cfg": {"nfft": 512}})
    with pytest.raises(UserError, match=r"feature_cfg\.hop_length is 0"):
        build("whisper", {"feature_cfg": {"hop_length": 0}})
    with pytest.raises(UserError, match='a number from 0 to 3, "last" or "weighted"'):
        build("whisper", {"model_cfg": WHISPER, "layer": 4})
    with pytest.raises(UserError, match="no clip has sound"):
        build("whisper", {"model_cfg": WHISPER}).calibrate(sounds(0, 0))
    with pytest.raises(UserError, match=r"fc1\.bias is \(32,\), not \(8,\)"):
        build("whisper", {"pretrained": str(tmp_path), "model_cfg": {"encoder_ffn_dim": 8}})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder_layers": 2}))
    with pytest.raises(UserError, match=r"counts 2 blocks, the weights hold more \(layers\.2"):
        build("whisper", {"pretrained": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_layers": 0}))
    assert len(build("whisper", {"pretrained": str(tmp_path)}).blocks()) == 3  # of the decoder, nothing is read
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "feature_size": 80}))
    with pytest.raises(UserError, match=r"has 80 mel bands, config\.json 20"):
        build("whisper", {"pretrained": str(tmp_path)})
    (tmp_path / "preprocessor_config.json").unlink()
    assert build("whisper", {"pretrained": str(tmp_path)}).config()["feature_cfg"]["n_fft"] == 400
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(UserError, match="a 'hubert'; the whisper tower needs a Whisper model"):
        build("whisper", {"pretrained": str(tmp_path)})


def test_bf16_is_close_to_fp32_and_padding_does_not_leak():
    tower = build("whisper", {"model_cfg": WHISPER, "silence_seconds": 0.1})
    exact = tower.encode_prepared(sounds(3200, 9000))
    with torch.autocast("cpu", torch.bfloat16):
        coarse, alone = tower.encode_prepared(sounds(3200, 9000)), tower.encode_prepared(sounds(3200))
    assert_same_up_to_rounding(coarse.sequence, exact.sequence, 0.05)
    assert_same_up_to_rounding(alone.sequence[0], coarse.sequence[0, :10], 0.05)


@pytest.mark.slow
def test_published_weights_give_what_transformers_gives():
    """Whisper tiny.en, float16, `model.encoder.` before the names, without a preprocessor_config.json."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = real("weights/whisper_tiny_en_encoder")
    voice = real("ravdess_speech_16k/actor_02/03-01-05-02-01-01-02.flac")
    whole, sound_alone = (
        build("whisper", {"pretrained": str(folder), "silence_seconds": silence}, 64) for silence in (None, 0.5)
    )
    encoded = whole.encode([voice])
    model = WhisperEncoder(WhisperConfig.from_pretrained(folder)).eval()
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model.encoder."): value.float() for name, value in weights.items()})
    waveform = decode(voice, 0.0, 30.0).waveform
    features = WhisperFeatureExtractor()(waveform, sampling_rate=16000, return_tensors="pt")["input_features"]
    with torch.no_grad():
        expected = model(features).last_hidden_state[0, : -(-len(waveform) // 320)]  # (T, C)
    assert encoded.sequence.shape == (1, *expected.shape) and encoded.rate == 50
    assert_same_up_to_rounding(encoded.sequence[0], expected, 1e-4)
    shorter = sound_alone.encode([voice]).sequence[0].mean(0)  # (C,)
    similarity = torch.nn.functional.cosine_similarity(shorter, expected.mean(0), dim=0)
    assert 0.95 < similarity < 0.9999
