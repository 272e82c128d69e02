"""What was exported loads again, whole, in part, or from a hub's cache."""

import json
import shutil

import pytest
import torch
from helpers.stage1_tiny import TEXTS, encoders, items

from shared.cli import run_main
from shared.errors import UserError
from shared.files import write_json
from shared.saved.checksum import seal
from stage1_align import towers
from stage1_align.encoders import AlignedEncoders
from stage1_align.export.export import main as export
from stage1_align.export.export import parity

TRAINING = {
    "data": "made-up clips (digest abc)",
    "command": "emit align --config tiny.yaml",
    "metrics": {"mean_recall": 0.25},
    "config": {
        "towers": {"text": {"options": {"pretrained": "models/roberta-base"}}, "audio": {"options": {"hop": 8}}}
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "encoders"
    trained = encoders(seed=3)
    trained.text.options.license = "mit"
    trained.save_pretrained(path, TRAINING)
    return path


@pytest.fixture
def run_folder(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "run" / "best")
    write_json(tmp_path / "run" / "metrics.json", {})
    return tmp_path / "run"


def test_card_names_data_metrics_command_and_license(folder):
    card = (folder / "README.md").read_text()
    for words in ("made-up clips", "| mean_recall | 0.250 |", "`emit align --config tiny.yaml`"):
        assert words in card
    assert "| text | transformer | 16 | one per frame or token | roberta-base (mit) |" in card
    assert "| random weights |" in card and "| not recorded |" in card  # audio; vision, of which nothing is known


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_one_tower_loads_without_the_others(folder, modality, tmp_path, monkeypatch):
    """Registry entries, weights and tokenizer of the other towers are removed."""
    whole = AlignedEncoders.from_pretrained(folder).tower(modality).encode_prepared(items()[modality])
    for other in {"vision", "audio", "text"} - {modality}:
        monkeypatch.setattr(towers.TOWERS[other], "parts", {})
    part = shutil.copytree(folder, tmp_path / "part")
    if modality != "text":
        shutil.rmtree(part / "tokenizer")
    rewrite_weights(part, lambda name: name.startswith(f"{modality}."))
    seal(part)
    alone = AlignedEncoders.from_pretrained(part, only=[modality])
    encoded = alone.tower(modality).encode_prepared(items()[modality])
    assert torch.equal(encoded.pooled, whole.pooled) and torch.equal(encoded.sequence, whole.sequence)
    others = {"vision", "audio", "text"} - {modality}
    assert list(alone.towers()) == [modality] and all(getattr(alone, other) is None for other in others)
    with pytest.raises(UserError, match=f"no {min(others)} tower.*{modality}"):
        alone.tower(min(others))


def rewrite_weights(folder, keep):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if keep(name)}, folder / "model.safetensors")


def test_encoders_without_a_tower_are_exported_and_loaded(folder, tmp_path):
    pair = AlignedEncoders.from_pretrained(folder, only=("text", "audio"))
    pair.save_pretrained(tmp_path / "pair")
    assert "made-up clips" in (tmp_path / "pair" / "README.md").read_text()  # what they were loaded with is kept
    again = AlignedEncoders.from_pretrained(tmp_path / "pair")
    assert again.vision is None and parity(again, pair) == 0
    with pytest.raises(UserError, match="has no vision tower"):
        AlignedEncoders.from_pretrained(tmp_path / "pair", only=("vision",))
    with pytest.raises(UserError, match="did you mean 'audio'"):
        AlignedEncoders.from_pretrained(folder, only=("adio",))
    with pytest.raises(UserError, match="only is 3; name modalities"):
        AlignedEncoders.from_pretrained(folder, only=3)


def test_export_equals_the_run_and_is_not_written_twice(run_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert export([str(run_folder), "--out", str(out)]) == 0
    a, b = AlignedEncoders.from_pretrained(run_folder / "best"), AlignedEncoders.from_pretrained(out)
    assert a.digest == b.digest and parity(a, b) <= 1e-6
    with torch.no_grad():
        b.audio.project.bias += 1e-4
    assert parity(a, b) > 1e-6  # the check at export would see that much
    capsys.readouterr()
    written = (out / "model.safetensors").stat().st_mtime_ns
    export([str(run_folder), "--out", str(out)])
    assert "nothing to do" in capsys.readouterr().out and (out / "model.safetensors").stat().st_mtime_ns == written


def test_folder_without_a_tokenizer_kind_loads(folder, tmp_path):
    """Before there was more than one kind of tokenizer, config.json did not name it."""
    old = shutil.copytree(folder, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["towers"]["text"]["tokenizer"]
    for option in ("pretrained", "license"):
        del config["towers"]["text"]["options"][option]
    write_json(old / "config.json", config | {"format": "emit-encoders/1"})
    with pytest.raises(UserError, match="earlier version, without a checksum"):
        AlignedEncoders.from_pretrained(old)
    seal(old)
    assert parity(AlignedEncoders.from_pretrained(old), AlignedEncoders.from_pretrained(folder)) == 0


def test_open_clip_tokenizer_is_exported_and_loaded(tmp_path):
    cfg = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
    built = AlignedEncoders.build({"text": {"name": "open_clip", "options": {"text_cfg": cfg}}}, 8).eval()
    built.save_pretrained(tmp_path / "out")
    loaded = AlignedEncoders.from_pretrained(tmp_path / "out")
    assert loaded.text.tokenizer.kind == "open_clip"
    assert torch.equal(loaded.text.encode_prepared(TEXTS).pooled, built.text.encode_prepared(TEXTS).pooled)
    loaded.save_pretrained(tmp_path / "again")
    assert AlignedEncoders.from_pretrained(tmp_path / "again").digest == loaded.digest
    (tmp_path / "out" / "tokenizer" / "bpe.txt.gz").unlink()
    with pytest.raises(UserError, match=r"tokenizer/bpe.txt.gz is missing since"):
        AlignedEncoders.from_pretrained(tmp_path / "out")
    seal(tmp_path / "out")
    with pytest.raises(UserError, match="no tokenizer here"):
        AlignedEncoders.from_pretrained(tmp_path / "out")


def test_hub_is_asked_only_for_a_source_with_hf_hub(folder, tmp_path, monkeypatch):
    """A real cache as the hub's library lays it out, offline."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--encoders"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("a" * 40))
    loaded = AlignedEncoders.from_pretrained("hf-hub:some/encoders", only=("text",))
    assert loaded.digest == AlignedEncoders.from_pretrained(folder).digest
    for source, words in (("hf-hub:some/others", "cannot be downloaded"), ("some/encoders", "emit export")):
        with pytest.raises(UserError, match=words) as error:
            AlignedEncoders.from_pretrained(source)
        assert "\n" not in str(error.value)


def test_push_to_hub_uploads_a_folder_that_loads(folder, tmp_path, monkeypatch):
    """With a stand-in for the hub's client, which keeps what it is given."""
    import huggingface_hub

    created = []

    class Hub:
        def create_repo(self, repo_id, private, exist_ok):
            created.append((repo_id, private, exist_ok))

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "uploaded")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    pushed = AlignedEncoders.from_pretrained(folder)
    pushed.push_to_hub("some/encoders")
    assert created == [("some/encoders", True, True)]
    files = sorted(str(p.relative_to(tmp_path / "uploaded")) for p in (tmp_path / "uploaded").rglob("*") if p.is_file())
    assert files == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer/sentencepiece.model",
        "training_clips.safetensors",
    ]
    assert parity(pushed, AlignedEncoders.from_pretrained(tmp_path / "uploaded")) == 0
    assert "made-up clips" in (tmp_path / "uploaded" / "README.md").read_text()


def test_push_to_hub_without_a_network_is_an_error(folder, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"some/encoders: not uploaded \(") as error:
        AlignedEncoders.from_pretrained(folder, only=("text",)).push_to_hub("some/encoders")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["", "model", "model/encoders"])
def test_encoders_of_a_fusion_model_are_exported_as_they_are(given, run_folder, tmp_path, capsys):
    shutil.copytree(run_folder / "best", tmp_path / "tuned" / "model" / "encoders")
    (tmp_path / "tuned" / "config.yaml").write_text("data: runs/features\n")
    out = tmp_path / "out"
    assert export([str(tmp_path / "tuned" / given), "--out", str(out)]) == 0
    assert AlignedEncoders.from_pretrained(out).digest == AlignedEncoders.from_pretrained(run_folder / "best").digest
    assert f"next   emit encode --encoders {out} --data CLIPS --out " in capsys.readouterr().err


def test_missing_or_damaged_run_is_an_error_of_one_line(run_folder, tmp_path, capsys):
    def fails(match, *arguments):
        with pytest.raises(SystemExit) as stop:
            run_main(lambda: export([*arguments]))
        message = capsys.readouterr().err.strip()
        assert stop.value.code == 1 and match in message and "\n" not in message

    fails("no finished stage-1 run", str(tmp_path), "--out", str(tmp_path / "out"))
    shutil.copytree(run_folder / "best", tmp_path / "tuned" / "model" / "encoders")
    last = (str(tmp_path / "tuned"), "--which", "last")
    fails("not a stage-1 run, so --which last does not apply", *last, "--out", str(tmp_path / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("notes")
    fails("holds something other", str(run_folder), "--out", str(tmp_path / "full"))
    rewrite_weights(run_folder / "best", lambda name: name != "audio.project.bias")
    fails("damaged", str(run_folder), "--out", str(tmp_path / "out"))
    (run_folder / "best" / "model.safetensors").unlink()
    fails("missing", str(run_folder), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
