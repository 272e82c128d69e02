"""The recipes of published systems, from the folders of Hume-Vidmimic2 and tiny weights in the published formats to a
submission."""

import csv
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.audio_tiny import GROUP, HUB
from helpers.commands import emit
from helpers.published_tiny import audeering, gte_of_letters, roberta, speech_folder, timm_vit
from safetensors.torch import load_file

from shared.commands.run import describe
from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.pipeline.expand import resolve
from shared.pipeline.recipe_file import read_recipe, shipped_recipes
from stage1_align.export.checkpoints import CHECKPOINTS

SYSTEMS = [name for name in shipped_recipes() if read_recipe(name).source]
SMALL = {
    "batch_size": 16,
    "fuse_epochs": 1,
    "frame_size": 32,
    "frame_rate": 4,
    "align_epochs": 1,
    "damaged_views": 0,
    "clips_shown": 0,
    "text_epochs": 1,
    "audio_epochs": 1,
    "vision_epochs": 1,
    "vision_batch_size": 16,
    "n_folds": 2,
    "folds": "0,1",
}
CLIPS = {"quality_gated": 64}
"""Clips of the dataset; its training clips are divided into folds."""
FAST = {"text_anchored"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> Callable[[int], Path]:
    """The dataset with this many clips."""

    @cache
    def make(clips: int) -> Path:
        folder = tmp_path_factory.mktemp("dataset") / "root"
        assert emit("synth", "--layout", "vidmimic2", "--clips", clips, "--out", folder, "--workers", 1) == 0
        return folder

    return make


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Tiny weights under the names of the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    for recipe in map(read_recipe, SYSTEMS):
        for variable in recipe.variables.values():
            if variable.checkpoint and variable.default:
                place = folder / str(variable.default).removeprefix("{weights}/")
                if not place.exists():
                    place.mkdir()
                    publish(variable.checkpoint.name, place)
    return folder


def publish(name: str, folder: Path) -> None:
    if name.startswith("timm/"):
        timm_vit(folder)
    elif name.startswith("audeering/"):
        audeering(folder)
    elif "wav" in name:
        speech_folder(folder, "wavlm" if "wavlm" in name else "wav2vec2", GROUP)
    elif "hubert" in name:
        speech_folder(folder, "hubert", HUB)
    elif "roberta" in name:
        roberta(folder, ["that is so funny I cannot stop laughing"], positions=140)
    else:
        gte_of_letters(folder)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def small(name: str) -> list[str]:
    return [f"{key}={value}" for key, value in SMALL.items() if key in read_recipe(name).variables]


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SYSTEMS])
def test_system_trains_from_published_weights_to_a_submission(name, roots, weights, tmp_path, capsys):
    root, out = roots(CLIPS.get(name, 16)), tmp_path / "out"
    given = [f"weights={weights}"] if "weights" in read_recipe(name).variables else []
    assert emit("run", name, f"data={root}", f"out={out}", *given, *small(name)) == 0
    shown = "".join(capsys.readouterr())
    assert ("license cc-by-nc-sa-4.0: no commercial use" in shown) == ("audeering" in str(read_recipe(name).variables))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n"] == len(rows(root / "valid_split.csv")) and metrics["split"] == "valid"
    submitted = rows(out / "submission.csv")
    assert [row["Filename"] for row in submitted] == [row["Filename"] for row in rows(root / "test_split.csv")]
    assert list(submitted[0]) == ["Filename", *EMI] and (out / "report.html").is_file()
    if name == "staged_concat":
        joined, alone = (load_file(out / run / "model" / "model.safetensors") for run in ("fuse", "single_text"))
        started = [key for key in alone if key.startswith("encoders.text.")]
        # Those of the single model, but for what one epoch at a twentieth of the learning rate changes.
        assert started and all((joined[key] - alone[key]).abs().max() < 1e-3 for key in started)
    if name in ("statistics_mlp", "quality_gated"):
        assert metrics["model"] == "ensemble" and 1 <= len(metrics["member_weights"]) <= len(EMI)
        assert all(sum(weights) == pytest.approx(1, abs=1e-3) for weights in metrics["member_weights"].values())
    if name == "quality_gated":  # each training clip is predicted by what has not met it
        folds = json.loads((out / "text_folds.json").read_text())
        assert folds["n"] == len(rows(root / "train_split.csv")) and folds["seen"]["in_training"] == 0
        assert folds["seen_by_encoders"] == 0 and len(folds["parts"]) == 2
    if "finetune" in read_recipe(name).variables:
        before, after = (
            load_file(folder / "model.safetensors") for folder in (out / "encoders", out / "fuse/model/encoders")
        )
        changed = [key for key in before if not torch.equal(before[key], after[key])]
        tuned = {"audio"} if name == "lstm_vad" else {"text", "audio"}
        assert {key.partition(".")[0] for key in changed} == tuned
        assert any("word_embeddings" in key for key in changed) == ("text" in tuned)  # down to the first layer
        assert "cc-by-nc-sa-4.0" in (out / "fuse" / "model" / "README.md").read_text()


@pytest.mark.parametrize("name", SYSTEMS)
def test_recipe_names_its_source_its_weights_and_their_licenses(name, weights, tmp_path, capsys):
    recipe = read_recipe(name)
    shown = "\n".join(describe(recipe))
    assert f"source: {recipe.source}" in shown and recipe.departures
    for variable in recipe.variables.values():
        if variable.checkpoint:
            assert f"hf download {variable.checkpoint.name} --local-dir DIR" in shown.replace("\n      ", " ")
        if variable.checkpoint and variable.default:
            assert variable.checkpoint.license == CHECKPOINTS[variable.checkpoint.name].license
    given = [f"weights={weights}"] if "weights" in recipe.variables else []
    assert emit("run", name, f"data={tmp_path}", f"out={tmp_path / 'out'}", *given, "--dry_run") == 0
    printed, said = capsys.readouterr()
    assert printed.count("emit ") >= 7 and not (tmp_path / "out").exists()
    assert said.count("published as") == sum(
        v.checkpoint is not None and bool(v.default) for v in recipe.variables.values()
    )


def test_missing_weights_are_one_line_with_the_commands_that_download_them(weights, tmp_path):
    given = [
        f"data={tmp_path}",
        f"out={tmp_path / 'out'}",
        f"weights={tmp_path}",
        f"vision_weights={weights}/wavlm-large",
    ]
    (tmp_path / "gte-en-mlm-base").mkdir()
    with pytest.raises(UserError) as caught:
        emit("run", "text_anchored", *given)
    message, audio = str(caught.value), "wav2vec2-large-robust-12-ft-emotion-msp-dim"
    assert "\n" not in message and "or give text_weights=DIR, audio_weights=DIR: " in message
    assert f"{tmp_path}/gte-en-mlm-base (has no config.json; license apache-2.0)" in message
    assert f"hf download audeering/{audio} --local-dir {tmp_path}/{audio}" in message and "timm" not in message


def test_weights_in_the_current_folder_need_no_slash(tmp_path):
    """What a step was made from is told by their content, also where the path is one name."""
    values = resolve(read_recipe("lstm_vad"), {"data": "d", "audio_weights": "mine"})
    assert values["audio_weights"] == "./mine"
