"""Published weights of every tower that takes some are loaded weights-only: code in them is not executed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.audio_tiny import CLAP, HTSAT, LAYER, WHISPER
from helpers.open_clip_tiny import MODELS, PREPROCESSING
from helpers.pickled_code import Code

from shared.errors import UserError
from stage1_align.towers import TOWERS

VISION = {"vision_cfg": MODELS["tiny-vit"]["vision_cfg"], "mean": (0.5,) * 3, "std": (0.5,) * 3}
TEXT_CFG = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}


def open_clip_folder(folder: Path) -> dict[str, Any]:
    config = {"model_cfg": MODELS["tiny-vit"], "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return {"pretrained": str(folder)}


def clap(folder: Path) -> dict[str, Any]:
    from transformers import ClapAudioConfig

    ClapAudioConfig(**CLAP).save_pretrained(folder)
    return {"pretrained": str(folder), "feature_cfg": {"feature_size": 32, "sampling_rate": 16000, "max_length_s": 1}}


def wav2vec2(folder: Path) -> dict[str, Any]:
    from transformers import Wav2Vec2Config

    names = {str(i): name for i, name in enumerate(("arousal", "dominance", "valence"))}
    Wav2Vec2Config(**LAYER, id2label=names).save_pretrained(folder)
    return {"pretrained": str(folder)}


def whisper(folder: Path) -> dict[str, Any]:
    from transformers import WhisperConfig

    WhisperConfig(**WHISPER).save_pretrained(folder)
    return {"pretrained": str(folder)}


def bert(folder: Path) -> dict[str, Any]:
    from transformers import BertConfig

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertConfig(vocab_size=len(words), **size).save_pretrained(folder)
    return {"pretrained": str(folder), "context_length": 8}


CASES = {
    "vision file": ("vision", "open_clip", "x.pt", lambda folder: VISION),
    "vision folder": ("vision", "open_clip", "open_clip_pytorch_model.bin", open_clip_folder),
    "htsat": ("audio", "htsat", "x.pt", lambda folder: HTSAT),
    "clap": ("audio", "clap", "pytorch_model.bin", clap),
    "wav2vec2": ("audio", "wav2vec2", "pytorch_model.bin", wav2vec2),
    "audeering": ("audio", "audeering", "pytorch_model.bin", wav2vec2),
    "whisper": ("audio", "whisper", "pytorch_model.bin", whisper),
    "text folder": ("text", "transformer", "pytorch_model.bin", bert),
    "text file": ("text", "open_clip", "x.pt", lambda folder: {"text_cfg": TEXT_CFG}),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", CASES)
def test_code_in_published_weights_is_not_executed(tmp_path: Path, case: str, legacy: bool):
    modality, name, file, prepare = CASES[case]
    (tmp_path / "published").mkdir()
    options = {"pretrained": str(tmp_path / "published" / file), **prepare(tmp_path / "published")}
    content = {"weight": torch.zeros(1), "code": Code(tmp_path / "executed")}
    torch.save(content, tmp_path / "published" / file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError) as caught:
        TOWERS[modality].get(name).from_options(options, 8)
    own = "no model.safetensors here" if case == "text folder" else "it holds more than weights: posix.mkdir"
    assert own in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "executed").exists()
    torch.load(tmp_path / "published" / file, weights_only=False)
    assert (tmp_path / "executed").exists()  # a plain load executes it


def test_every_tower_that_takes_weights_is_tested():
    takes = {
        (modality, name)
        for modality, registry in TOWERS.items()
        for name in registry.names()
        if "pretrained" in registry.get(name).Options.__dataclass_fields__
    }
    assert takes == {(modality, name) for modality, name, *_ in CASES.values()}
