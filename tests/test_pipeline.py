"""From media files to predictions, through both stages, at the smallest size: every step is the real command."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import emit
from helpers.stage1_tiny import TOWERS

from shared.dataset.clip import EMI


@pytest.fixture(scope="module")
def pipeline(corpus, clips, tmp_path_factory) -> Path:
    """A folder with aligned encoders, features and a fusion model."""
    folder = tmp_path_factory.mktemp("pipeline")
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    align["train"] = {"epochs": 1, "batch_size": 8, "mixed_precision": "no"}
    (folder / "align.yaml").write_text(yaml.safe_dump(align))
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}}
    fuse["train"] = {"epochs": 2, "batch_size": 8}
    (folder / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    assert emit("align", "--config", folder / "align.yaml", "--data", clips, "--run", folder / "align") == 0
    assert emit("export", folder / "align", "--out", folder / "encoders") == 0
    assert emit("encode", "--encoders", folder / "encoders", "--data", clips, "--out", folder / "features") == 0
    assert emit("fuse", "--config", folder / "fuse.yaml", "--data", folder / "features", "--run", folder / "fuse") == 0
    return folder


def test_evaluate_scores_the_test_subjects(pipeline, corpus):
    out = pipeline / "metrics.json"
    model, features = pipeline / "fuse" / "model", pipeline / "features"
    assert emit("evaluate", "--model", model, "--data", features, "--truth", corpus / "truth.csv", "--out", out) == 0
    metrics = json.loads(out.read_text())
    assert set(metrics["pcc"]["per_dimension"]) == set(EMI)
    assert -1 <= metrics["pcc"]["mean"] <= 1
    assert metrics["pcc"]["interval"] is None  # the test clips are of one subject
    seeds = pipeline / "seeds.json"
    assert emit("evaluate", "--model", model, "--data", features, "--groups", "seed", "--out", seeds) == 0
    low, high = json.loads(seeds.read_text())["pcc"]["interval"]
    assert low < high
    assert 0 < metrics["ceiling"]["mean"] <= 1
    with (corpus / "labels.csv").open() as file:
        test = {Path(row["Filename"]).stem for row in csv.DictReader(file) if row["split"] == "test"}
    assert metrics["n"] == len(test)


def test_predict_writes_a_row_or_a_failure_for_every_file(pipeline, corpus, tmp_path, capsys):
    media = sorted(path for path in (corpus / "clips").iterdir() if path.suffix != ".txt")[:2]
    broken, empty = tmp_path / "text.mp4", tmp_path / "empty.webm"
    broken.write_text("not a video")
    empty.touch()
    out = tmp_path / "predictions.csv"
    assert emit("predict", "--model", pipeline / "fuse" / "model", *media, broken, empty, "--out", out) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["Filename", *EMI]
    assert [row["Filename"] for row in rows] == sorted(path.name for path in media)
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in EMI)
    with (tmp_path / "predictions_failures.csv").open() as file:
        failed = {row["Filename"]: row["reason"] for row in csv.DictReader(file)}
    assert set(failed) == {"text.mp4", "empty.webm"}
    assert all(failed.values())


def test_clip_longer_than_training_clips_is_predicted_to_its_end(pipeline, tmp_path):
    import numpy as np
    from helpers.media_files import face, voice, write_video

    film = np.stack([face(mouth=m) for m in np.linspace(0, 1, 63)])
    write_video(tmp_path / "long.mp4", film, sound=voice(2.52)[None])
    out = tmp_path / "predictions.csv"
    model = pipeline / "fuse" / "model"
    assert emit("predict", "--model", model, tmp_path / "long.mp4", "--window", "1", "--out", out) == 0
    with out.open() as file, (tmp_path / "predictions_timeline.csv").open() as parts:
        row, timeline = list(csv.DictReader(file)), list(csv.DictReader(parts))
    times = [(float(part["start"]), float(part["end"])) for part in timeline]
    assert [start for start, _ in times] == [0, 1, 2] and [end for _, end in times[:2]] == [1, 2]
    assert 2.5 < times[2][1] < 2.7
    for name in EMI:
        mean = (
            sum(float(p[name]) * (end - start) for p, (start, end) in zip(timeline, times, strict=True)) / times[2][1]
        )
        assert float(row[0][name]) == pytest.approx(mean, abs=2e-6)


def test_folder_and_its_files_get_the_same_predictions(pipeline, corpus, tmp_path):
    media = sorted(path for path in (corpus / "clips").iterdir() if path.suffix != ".txt")[:2]
    (tmp_path / "folder").mkdir()
    for path in media:
        (tmp_path / "folder" / path.name).write_bytes(path.read_bytes())
    model, files = pipeline / "fuse" / "model", sorted((tmp_path / "folder").iterdir())
    assert emit("predict", "--model", model, tmp_path / "folder", "--out", tmp_path / "a.csv") == 0
    assert emit("predict", "--model", model, *files, "--out", tmp_path / "b.csv") == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_features_of_other_encoders_are_refused(pipeline, clips, tmp_path):
    from shared.errors import UserError
    from stage1_align.encoders import AlignedEncoders

    other = AlignedEncoders.from_pretrained(pipeline / "encoders")
    other.vision.project.bias.data += 0.1
    other.save_pretrained(tmp_path / "encoders")
    with pytest.raises(UserError, match="made with other encoders"):
        emit("encode", "--encoders", tmp_path / "encoders", "--data", clips, "--out", pipeline / "features")


def test_finished_steps_report_nothing_to_do(pipeline, clips, capsys):
    emit("export", pipeline / "align", "--out", pipeline / "encoders")
    emit("encode", "--encoders", pipeline / "encoders", "--data", clips, "--out", pipeline / "features")
    assert capsys.readouterr().out.count("nothing to do") == 2
