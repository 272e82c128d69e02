"""Tiny audio towers of every kind, and waveforms for them."""

import numpy as np
import torch

from stage1_align.towers import TOWERS

HTSAT = {
    "sample_rate": 16000,
    "n_fft": 512,
    "hop": 160,
    "mel_bins": 32,
    "window_samples": 20000,  # 126 spectrogram frames, stretched to 128
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
HUB = {name: value for name, value in GROUP.items() if "codevector" not in name}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 20,
    "max_source_positions": 50,  # a window of one second
    "vocab_size": 40,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
}

KINDS = {
    "htsat": ("htsat", HTSAT),
    "htsat with levels": ("htsat", {**HTSAT, "center": True, "level_bands": 4}),
    "mel_cnn": ("mel_cnn", {"n_fft": 512, "mel_bins": 16, "channels": [4, 8, 16], "width": 12}),
    "clap": ("clap", {"model_cfg": CLAP, "feature_cfg": CLAP_FEATURES}),
    "wav2vec2": ("wav2vec2", {"model_cfg": GROUP}),
    "wav2vec2 layer": ("wav2vec2", {"model_cfg": LAYER, "layer": "weighted"}),
    "hubert": (
        "wav2vec2",
        {"architecture": "hubert", "model_cfg": HUB, "layer": "weighted", "train_features": True},
    ),
    "wavlm": ("wav2vec2", {"architecture": "wavlm", "model_cfg": GROUP}),
    "wavlm layer": ("wav2vec2", {"architecture": "wavlm", "model_cfg": LAYER, "layer": 2, "max_pool": True}),
    "whisper": ("whisper", {"model_cfg": WHISPER}),
    "whisper of the sound": ("whisper", {"model_cfg": WHISPER, "silence_seconds": 0.1, "layer": "weighted"}),
    "audeering": ("audeering", {"model_cfg": LAYER, "append_emotion": True}),
}


def build(name, options, embed_dim=8):
    torch.manual_seed(0)
    return TOWERS["audio"].get(name).from_options(options, embed_dim).eval()


def sounds(*lengths):
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.4, 0.4, length).astype(np.float32) for length in lengths]


def randomize(module):
    """Give weights, biases, norms and their statistics other values than the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and "melW" not in name and "spectrogram" not in name:
            value.copy_(0.1 * torch.randn(value.shape, generator=generator) + (value if value.ndim < 2 else value * 3))
            if name.endswith("running_var"):
                value.abs_().add_(20)
    return module.eval()
