"""Stage 1 on texts alone: with words made of their labels, or a tower as it is."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import emit
from helpers.stage1_tiny import TOWERS

from shared import config as configuration
from shared.errors import UserError
from stage1_align.config import AlignConfig
from stage1_align.train import train


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A clip dataset of 24 texts for training and 8 for validation."""
    folder = tmp_path_factory.mktemp("texts")
    kinds, splits = ("bad", "good"), ["train"] * 24 + ["valid"] * 8
    rows = [f"{kinds[n % 2]} day number {n},{n % 2},{split},{n % 5}" for n, split in enumerate(splits)]
    (folder / "t.csv").write_text("\n".join(["text,joy,split,subject", *rows]) + "\n")
    assert emit("prepare", folder / "t.csv", "--out", folder / "clips", "--workers", 1) == 0
    return folder / "clips"


def align(data: Path, run: Path, captions: list[str], epochs: int, *options: str) -> Path:
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"captions": captions}}
    values["train"] = {"epochs": epochs, "batch_size": 8, "mixed_precision": "no", "trackers": []}
    settings = run.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(values))
    return train(configuration.load(AlignConfig, settings, ["--data", str(data), "--run", str(run), *options]))


def test_texts_align_with_words_made_of_their_labels_and_retrieval_chooses_the_epoch(texts, tmp_path):
    run = align(texts, tmp_path / "r", ["transcript", "labels"], 2, "--towers.leave_out_unused", "true")
    assert json.loads((run / "best" / "config.json").read_text())["towers"].keys() == {"text"}
    best = json.loads((run / "metrics.json").read_text())["best"]
    assert {f"{way}_R@1" for way in ("transcript_to_labels", "labels_to_transcript")} < best.keys()
    assert best["mean_recall"] > 0.5


def test_a_text_tower_alone_is_exported_as_it_is_and_words_read_it(texts, tmp_path, capsys):
    alone = ("--towers.vision", "null", "--towers.audio", "null")
    run = align(texts, tmp_path / "r", ["transcript"], 0, *alone)
    assert emit("export", run, "--out", tmp_path / "encoders") == 0
    capsys.readouterr()
    assert emit("encode", "--encoders", tmp_path / "encoders", "--data", texts, "--out", tmp_path / "features") == 0
    assert f"next   emit fuse --config words --data {tmp_path / 'features'} " in capsys.readouterr().err
    assert emit("split", tmp_path / "features", "--out", tmp_path / "fold") == 0
    assert f"next   emit fuse --config words --data {tmp_path / 'fold'} " in capsys.readouterr().err
    with pytest.raises(UserError, match="no pair trains the text tower; add one, or align texts with"):
        align(texts, tmp_path / "s", ["transcript"], 1, *alone)
