"""A folder of encoders that somebody else made, or that changed: nothing executed, fetched or read elsewhere, no other
numbers, no more memory than its weights need."""

import json
import random
import shutil
import sys

import pytest
import torch
from helpers import mutations
from helpers.saved_folders import edit
from helpers.stage1_tiny import TEXTS, encoders, items
from safetensors.torch import load_file, save_file

from shared.errors import UserError
from shared.saved.checksum import seal
from stage1_align.encoders import AlignedEncoders
from stage1_align.towers.tokenizers import SentencePieceTokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoders"
    encoders().save_pretrained(folder, {"data": "made-up clips", "metrics": {"recall": float("nan")}})
    assert embed(folder)  # imports what child processes need
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "encoders")


def embed(folder) -> list[list[float]]:
    loaded = AlignedEncoders.from_pretrained(folder)
    return [loaded.tower(name).encode_prepared(items()[name]).pooled.tolist() for name in ("vision", "audio", "text")]


def refused(folder, *words: str) -> None:
    with pytest.raises(UserError) as error:
        AlignedEncoders.from_pretrained(folder)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message, message


OPTIONS = ("towers", "{}", "options")


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("text", "options", "model_cfg", "attn_implementation"), "OWNER/KERNEL", ("attn_implementation", "eager")),
        (("text", "options", "model_cfg", "_attn_implementation"), "OWNER/KERNEL", ("_attn_implementation",)),
        (("text", "options", "model_cfg", "quantization_config"), {"load_in_4bit": True}, ("quantization_config",)),
        (("text", "options", "model_cfg", "auto_map"), {"AutoModel": "x--y.Z"}, ("auto_map",)),
        (("text", "options", "architecture"), "timm_wrapper", ("architecture 'timm_wrapper'",)),
        (("text", "options", "pretrained"), "/elsewhere", ("pretrained", "outside the folder")),
        (("text", "tokenizer"), "json:JSONDecoder", ("tokenizer is 'json:JSONDecoder'",)),
        (("vision", "options", "vision_cfg", "timm_model_name"), "hf-hub:OWNER/NAME", ("no model 'hf-hub:OWNER",)),
        (("vision", "options", "vision_cfg", "timm_model_name"), "local-dir:/tmp", ("no model 'local-dir:",)),
        (("vision", "options", "model"), "ViT-B-32", ("model is 'ViT-B-32'", "outside the folder")),
        (("vision", "options", "pretrained"), "openai", ("pretrained is 'openai'",)),
        (("audio", "name"), "antigravity:Tower", ("EMIT_IMPORT=antigravity",)),
        (("audio", "name"), "json:JSONDecoder", ("not a tower for audio",)),
    ],
    ids=str,
)
def test_names_of_code_and_places_are_refused_by_name(folder, keys, value, words):
    edit(folder, "towers", *keys, value=value)
    refused(folder, *words)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("embed_dim",), 10**9),
        (("towers", "vision", "options", "vision_cfg", "width"), 2**30),
        (("towers", "vision", "options", "vision_cfg", "layers"), 10**6),
        (("towers", "vision", "options", "image_size"), 10**6),
        (("towers", "vision", "options", "vision_cfg", "timm_model_name"), "vit_giant_patch14_224"),
        (("towers", "text", "options", "model_cfg", "num_hidden_layers"), 10**6),
        (("towers", "text", "options", "model_cfg", "hidden_size"), 10**8),
        (("towers", "text", "options", "vocab_size"), 2**22),
        (("towers", "audio", "options", "n_fft"), 10**9),
        (("towers", "audio", "options", "n_fft"), 2**18),
        (("towers", "audio", "options", "mel_bins"), 10**7),
        (("towers", "audio", "options", "spec_size"), 2**14),
        (("towers", "audio", "options", "hop"), 0),
        (("towers", "audio", "options", "hop"), 1),
        (("towers", "audio", "options", "num_heads"), [0, 0]),
        (("towers", "audio", "options", "sample_rate"), 10**9),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_they_take_memory(folder, keys, value):
    edit(folder, *keys, value=value)
    outcome = mutations.in_child(lambda: embed(folder), memory=2**30)
    assert outcome.error and not outcome.crash and "\n" not in outcome.error, outcome


def test_every_changed_value_is_noticed(folder):
    content = json.loads((folder / "config.json").read_text())
    for keys in mutations.leaves(content):
        value = "changed" if keys != ("format",) else "emit-encoders/9"
        edit(folder, *keys, value=value, sealed=False)
        refused(folder, "format" if keys == ("format",) else "config.json changed since")
        (folder / "config.json").write_text(json.dumps(content))
    assert embed(folder)  # and nothing else was
    (folder / "README.md").write_text("a card of my own")
    assert embed(folder)


def test_sealed_values_that_make_no_sense_are_one_line(saved, tmp_path):
    """A seeded sample of every value, replaced by every absurd one, with a checksum that fits."""
    content = json.loads((saved / "config.json").read_text())
    jobs = [(keys, value) for keys in mutations.leaves(content["towers"]) for value in mutations.ABSURD]
    expected = mutations.in_child(lambda: embed(saved)).result
    for keys, value in random.Random(0).sample(jobs, 12):
        folder = shutil.copytree(saved, tmp_path / "work")
        edit(folder, "towers", *keys, value=value)
        outcome = mutations.in_child(lambda folder=folder: embed(folder))
        assert not outcome.crash and "\n" not in outcome.error, (keys, value, outcome)
        assert outcome.error or keys[1:2] == ("options",) or outcome.result == expected, (keys, value)
        shutil.rmtree(folder)


def rewrite(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda weights: weights.update({"audio.project.bias": torch.full((8,), torch.nan)}), "not finite"),
        (lambda weights: weights.update({"audio.project.bias": weights["audio.project.bias"].half()}), "F16 [8]"),
        (lambda weights: weights.update({"audio.project.bias": torch.zeros(9)}), "F32 [9]"),
        (lambda weights: weights.pop("text.project.weight"), "project.weight is missing"),
        (lambda weights: weights.update({"text.extra": torch.zeros(1)}), "extra is not expected"),
        (lambda weights: weights.update({"touch.extra": torch.zeros(1)}), "touch.extra belongs to no tower"),
    ],
    ids=["nan", "float16", "shape", "missing", "extra", "stray"],
)
def test_weights_of_another_model_are_refused(folder, change, word):
    rewrite(folder, change)
    refused(folder, "model.safetensors changed since")
    seal(folder)
    refused(folder, word)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_damaged_weights_are_one_line(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    seal(folder)
    refused(folder, "model.safetensors")


def test_tokenizer_of_another_tower_is_refused(folder):
    words = [f"{first}{second}o {second}{first}i" for first in "bcdfghklmnprst" for second in "aeiou"]
    SentencePieceTokenizer.train([*TEXTS, *words], 90).save(folder / "tokenizer")
    refused(folder, "tokenizer/sentencepiece.model changed since")
    seal(folder)
    refused(folder, "pieces for the tower's", "embeddings")


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "secret.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    refused(folder, "leads out of the folder")


def test_folder_of_the_hub_keeps_its_files_beside_it(folder, tmp_path):
    blobs, snapshot = tmp_path / "models--x--y" / "blobs", tmp_path / "models--x--y" / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    (snapshot / "model.safetensors").rename(blobs / "b")
    (snapshot / "model.safetensors").symlink_to("../../blobs/b")
    assert embed(snapshot) == embed(folder)
