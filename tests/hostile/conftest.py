"""The whole pipeline at its smallest: what hostile inputs and interruptions are tried on."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import emit
from helpers.media_files import face, voice, write_video
from helpers.stage1_tiny import TOWERS


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of media, a table, configurations, clips, encoders, features, a model, and `run`: an unfinished
    training run of stage 2. Twelve clips of half a second."""
    folder = tmp_path_factory.mktemp("hostile")
    write_media(folder / "media")
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    align["train"] = {"epochs": 3, "batch_size": 4, "mixed_precision": "no", "checkpoint_every": 1}
    (folder / "align.yaml").write_text(yaml.safe_dump(align))
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}}
    fuse["train"] = {"epochs": 3, "batch_size": 4, "trackers": []}
    (folder / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    (folder / "space.yaml").write_text("train.lr: [0.001, 0.002]\n")
    clips, encoders, features = (folder / name for name in ("clips", "encoders", "features"))
    assert emit("prepare", folder / "media", "--out", clips, "--workers", "1") == 0
    assert emit("align", "--config", folder / "align.yaml", "--data", clips, "--run", folder / "align") == 0
    assert emit("export", folder / "align", "--out", encoders) == 0
    assert emit("encode", "--encoders", encoders, "--data", clips, "--out", features) == 0
    assert emit("fuse", "--config", folder / "fuse.yaml", "--data", features, "--run", folder / "fuse") == 0
    shutil.copytree(folder / "fuse" / "model", folder / "model")
    shutil.copytree(folder / "fuse", folder / "run")
    (folder / "run" / "metrics.json").unlink()  # as if it had been killed after its second epoch
    shutil.rmtree(sorted((folder / "run" / "checkpoints").iterdir())[-1])
    return folder


def write_media(folder: Path) -> None:
    """Twelve different clips in five containers, and labels.csv."""
    folder.mkdir()
    rows = []
    for i in range(12):
        suffix = (".mp4", ".webm", ".mkv", ".ts", ".mp4", ".avi")[i % 6]
        film = np.stack([face(mouth=m) for m in np.linspace(0, 0.2 + i / 12, 8)])
        codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(suffix, "libx264")
        rate = 48000 if suffix == ".webm" else 16000
        write_video(folder / f"c{i}{suffix}", film, sound=voice(0.4 + i / 100, rate)[None], rate=rate, codec=codec)
        split = ("train", "train", "valid", "test")[i % 4]
        rows.append([f"c{i}{suffix}", f"person{i}", f'so much, "fun" {i}', split, i / 12, 1 - i / 12])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "subject", "transcript", "split", "Joy", "Excitement"], *rows])
