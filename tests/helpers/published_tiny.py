"""Tiny models in the folders in which their families are published."""

import json
import string

import torch
from helpers.audio_tiny import LAYER, WHISPER, randomize
from safetensors.torch import load_file, save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "am", "dog", "funny", "i", "is", "laughed", "old", "sad"]
WORDS += ["so", "song", "that", "the", "together", "we", ".", ","]
HIDDEN, HEADS, INNER, LAYERS = 16, 2, 24, 2
NTK = {"factor": 2.0, "type": "ntk"}


def gte(folder, prefix="new.", **changes):
    """As Alibaba-NLP/gte-base-en-v1.5: code on the hub, packed weights, BERT's WordPiece; `changes` to config.json."""
    folder.mkdir(exist_ok=True)
    auto = ["AutoConfig", "AutoModel", "AutoModelForMaskedLM"]
    config = {
        "architectures": ["NewModel"],
        "auto_map": {name: f"Alibaba-NLP/new-impl--{name}" for name in auto},
        "model_type": "new",
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "layer_norm_type": "layer_norm",
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "max_position_embeddings": 32,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pack_qkv": True,
        "pad_token_id": 0,
        "position_embedding_type": "rope",
        "rope_scaling": NTK,
        "rope_theta": 500,
        "torch_dtype": "float32",
        "transformers_version": "4.39.1",
        "type_vocab_size": 0,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
        "vocab_size": len(WORDS) + 2,  # padded to a round number
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    layer = {
        "attention.qkv_proj.weight": (3 * HIDDEN, HIDDEN),
        "attention.qkv_proj.bias": (3 * HIDDEN,),
        "attention.o_proj.weight": (HIDDEN, HIDDEN),
        "attention.o_proj.bias": (HIDDEN,),
        "mlp.up_gate_proj.weight": (2 * INNER, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, INNER),
        "mlp.down_proj.bias": (HIDDEN,),
        **{f"{norm}.{part}": (HIDDEN,) for norm in ("attn_ln", "mlp_ln") for part in ("weight", "bias")},
    }
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
        **{f"encoder.layer.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()},
    }
    if config["type_vocab_size"]:
        shapes["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], HIDDEN)
    weights = {prefix + name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if prefix:  # with the head of its training
        weights["lm_head.dense.weight"] = torch.zeros(HIDDEN, HIDDEN)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def gte_of_letters(folder):
    """A GTE that reads any word of small letters, a letter a token."""
    vocabulary = [*WORDS[:5], *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *".,'!?-"]
    gte(folder, vocab_size=len(vocabulary), max_position_embeddings=256)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def roberta(folder, texts, positions=26, vocab=True):
    """As FacebookAI/roberta-base: vocab.json, merges.txt, weights under `roberta.` with the head of its training."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaForMaskedLM

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tokenizer = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, vocab_size=300, special_tokens=marks, show_progress=False)
    vocabulary = tokenizer.get_vocab_size()
    config = RobertaConfig(vocab_size=vocabulary, max_position_embeddings=positions, type_vocab_size=1, **size)
    torch.manual_seed(0)
    RobertaForMaskedLM(config).save_pretrained(folder)
    if vocab:
        tokenizer.save_model(str(folder))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A tiny RoBERTa\n")
    return folder


def speech_folder(folder, kind, model_cfg, do_normalize=True, binary=False):
    """A folder as published: weight_g and weight_v of the positional convolution, `wav2vec2.` before the keys and a
    quantizer beside them for wav2vec 2.0, no prefix for the others, and fields of old configurations."""
    import transformers

    torch.manual_seed(4)
    config = transformers.AutoConfig.for_model(kind, **model_cfg)
    names = {"wav2vec2": "Wav2Vec2ForPreTraining", "hubert": "HubertModel", "wavlm": "WavLMModel"}
    model = randomize(getattr(transformers, names[kind])(config))
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


def whisper_folder(folder, kind):
    """As openai/whisper-*: float16 weights of the class of this name, its generation settings in config.json. Returns
    the encoder with these weights in float32."""
    import transformers
    from transformers.models.whisper import modeling_whisper

    torch.manual_seed(4)
    model = getattr(modeling_whisper, kind)(transformers.WhisperConfig(**WHISPER))
    randomize(model).half().save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    values |= {"forced_decoder_ids": [[1, 5]], "max_length": 448, "suppress_tokens": [], "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(values))
    settings = {"chunk_length": 1, "feature_size": WHISPER["num_mel_bins"], "hop_length": 160, "n_fft": 400}
    settings |= {"n_samples": 16000, "nb_max_frames": 100, "padding_value": 0.0, "sampling_rate": 16000}
    settings |= {"feature_extractor_type": "WhisperFeatureExtractor", "mel_filters": [[0.0] * 20] * 201}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return {"WhisperEncoder": lambda: model}.get(kind, lambda: model.get_encoder())().float()


def audeering(folder):
    """wav2vec2.*, classifier.dense.*, classifier.out_proj.*, labels named in config.json."""
    labels = {"id2label": {"0": "arousal", "1": "dominance", "2": "valence"}}
    model, path = speech_folder(folder, "wav2vec2", {**LAYER, **labels})
    weights = load_file(folder / "model.safetensors")
    weights = {name: value for name, value in weights.items() if name.startswith("wav2vec2.")}
    generator = torch.Generator().manual_seed(5)
    dense, out = torch.randn(16, 16, generator=generator), torch.randn(3, 16, generator=generator)
    biases = torch.randn(16, generator=generator), torch.randn(3, generator=generator)
    weights |= {"classifier.dense.weight": dense, "classifier.dense.bias": biases[0]}
    weights |= {"classifier.out_proj.weight": out, "classifier.out_proj.bias": biases[1]}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n")
    return model, path, (dense, out, biases)


def timm_vit(folder):
    """A ViT of timm with its classifier, as timm pushes it to a hub."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7)
    save_for_hf(model, folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config.pop("model_args", None)  # those of the class count; published folders have none
    (folder / "config.json").write_text(json.dumps(config))
    return model.eval()
