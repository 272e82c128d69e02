"""The list of published checkpoints against what is installed, and its options on files of the published kind."""

import dataclasses
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.open_clip_tiny import PREPROCESSING, embedded, frames, publish, register

from shared.errors import UserError
from stage1_align.export import checkpoints
from stage1_align.export.checkpoints import CHECKPOINTS, Checkpoint, describe, options_for
from stage1_align.towers import TOWERS
from stage1_align.towers.vision_open_clip import OpenClipVision

AUDEERING = "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"


@pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if c.modality == "vision" and "model" in c.options])
def test_open_clip_checkpoints_match_the_tables_of_open_clip(name):
    import open_clip

    checkpoint = CHECKPOINTS[name]
    tag = open_clip.get_pretrained_cfg(checkpoint.options["model"], checkpoint.options["pretrained"])
    assert tag["hf_hub"].strip("/") == checkpoint.origin == CHECKPOINTS[f"{name}:text"].origin
    cfg = open_clip.get_model_config(checkpoint.options["model"])
    assert checkpoint.inputs == f"frames of {cfg['vision_cfg']['image_size']} pixels"
    text = CHECKPOINTS[f"{name}:text"]
    assert text.inputs == f"{cfg['text_cfg']['context_length']} tokens"
    assert not text.unsupported


@pytest.mark.parametrize("name", [n for n, c in CHECKPOINTS.items() if c.modality == "vision" and not c.options])
def test_timm_checkpoints_match_the_tables_of_timm(name, tmp_path):
    from timm.models import get_pretrained_cfg

    checkpoint, published = CHECKPOINTS[name], get_pretrained_cfg(name.removeprefix("timm/"))
    assert (published.hf_hub_id, published.license) == (checkpoint.origin, checkpoint.license)
    assert checkpoint.inputs == f"frames of {published.input_size[-1]} pixels"
    with pytest.raises(UserError, match=rf"download it \(hf download {name} --local-dir DIR\)"):
        options_for(name)
    assert options_for(name, tmp_path) == {"pretrained": str(tmp_path)}


def test_every_checkpoint_names_an_existing_tower_and_options():
    if "clap" not in TOWERS["audio"].names():
        pytest.skip("the towers of published audio weights are not installed")
    for checkpoint in CHECKPOINTS.values():
        known = {f.name for f in dataclasses.fields(TOWERS[checkpoint.modality].get(checkpoint.tower).Options)}
        assert {"pretrained", *checkpoint.options} <= known, checkpoint.name


def test_tag_file_and_folder_of_the_same_weights_give_the_same_tower(tmp_path, monkeypatch):
    import open_clip

    register(monkeypatch)
    model = publish("tiny-vit", tmp_path)
    tag = {"file": str(tmp_path / "epoch_3.pt"), "hf_hub": "made/up/", "quick_gelu": True, **PREPROCESSING}
    other = {**tag, "mean": [0, 0, 0]}  # so that the model's name alone does not tell
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"made": tag, "other": other})
    checkpoint = Checkpoint(
        "tiny-vit/made", "vision", "open_clip", "mit", "made/up", "", {"model": "tiny-vit", "pretrained": "made"}
    )
    monkeypatch.setitem(CHECKPOINTS, checkpoint.name, checkpoint)
    (clip,) = frames(1)
    expected = embedded(model, clip)
    for path in (None, tmp_path / "epoch_3.pt", tmp_path / "bare.safetensors", tmp_path / "hub"):
        options = yaml.safe_load(yaml.safe_dump(options_for(checkpoint.name, path)))
        built = OpenClipVision.from_options({**options, "projection": "own"}, 24).eval()
        torch.testing.assert_close(built.encode_prepared([clip]).pooled, expected, rtol=0, atol=1e-5)


def test_options_of_a_text_tower_name_the_file_and_the_activation(tmp_path):
    (tmp_path / "open_clip_model.safetensors").touch()
    assert options_for("ViT-B-32/openai:text", tmp_path) == {
        "model": "ViT-B-32",
        "pretrained": str(tmp_path / "open_clip_model.safetensors"),
        "quick_gelu": True,
    }
    assert options_for("ViT-B-32/laion2b_s34b_b79k:text", tmp_path)["quick_gelu"] is False
    for path in (tmp_path, tmp_path / "open_clip_model.safetensors"):  # SigLIP's tokenizer lies beside its weights
        assert options_for("ViT-B-16-SigLIP/webli:text", path)["tokenizer"] == str(tmp_path)


def test_options_of_audio_towers_name_a_file_or_a_folder(tmp_path):
    file = tmp_path / "630k-audioset-best.pt"
    file.touch()
    expected = {"size": "tiny", "pretrained": str(file)}
    assert options_for("laion_clap/630k-audioset-best", tmp_path) == expected
    assert options_for("laion_clap/630k-audioset-best", file) == expected
    assert options_for("facebook/wav2vec2-base", tmp_path) == {"pretrained": str(tmp_path)}
    with pytest.raises(UserError, match="has no music_speech_audioset"):
        options_for("laion_clap/music_speech_audioset_epoch_15_esc_89.98", tmp_path)


def test_only_a_non_commercial_license_prints_a_line(tmp_path, capsys):
    options_for(AUDEERING, tmp_path)
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and "cc-by-nc-sa-4.0, does not allow commercial use" in output
    options_for("facebook/hubert-base-ls960", tmp_path)
    options_for("microsoft/wavlm-base-plus", tmp_path)  # nothing known is not a no
    assert capsys.readouterr().out == ""
    assert "commercial use: unknown" in describe("microsoft/wavlm-base-plus")


def test_unavailable_checkpoint_says_what_to_do(tmp_path):
    for name, path, message in [
        ("ViT-B-32/openia", None, "did you mean 'ViT-B-32/openai'"),
        ("laion/clap-htsat-fused", tmp_path, "use the checkpoint without"),
        ("facebook/wav2vec2-base", None, "hf download facebook/wav2vec2-base --local-dir DIR"),
        ("facebook/wav2vec2-base", tmp_path / "nowhere", "no such file or folder"),
    ]:
        with pytest.raises(UserError, match=message):
            options_for(name, path)


def test_command_prints_the_table_a_checkpoint_and_a_configuration(tmp_path, capsys):
    table = subprocess.run([sys.executable, "-m", "stage1_align.export.checkpoints"], capture_output=True, text=True)
    assert table.returncode == 0
    rows = table.stdout.splitlines()
    assert len(rows) == len(CHECKPOINTS) + 1
    (row,) = [row for row in rows if row.startswith(AUDEERING)]
    assert "cc-by-nc-sa-4.0  " in row and "not allowed" in row
    assert checkpoints.main(["laion_clap/630k-best"]) == 0
    assert "hf download lukewys/laion_clap 630k-best.pt" in capsys.readouterr().out
    checkpoints.main(["FacebookAI/roberta-base", str(tmp_path)])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == {"towers": {"text": {"name": "transformer", "options": {"pretrained": str(tmp_path)}}}}
