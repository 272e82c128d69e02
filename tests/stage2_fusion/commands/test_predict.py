"""`emit predict`: which clips are read, what is written, and what counts as a failure."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic_features

from shared.dataset import prepare_dataset
from shared.dataset.clip import Clip
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media.remarks import Remark, Remarks
from stage2_fusion import predictor as library
from stage2_fusion.commands import predict as prediction
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig, TrainedOn
from stage2_fusion.prediction import predicting
from stage2_fusion.prediction.basis import NOT_KNOWN
from stage2_fusion.prediction.preparing import collect_failures, prepare_here

CONFIG = {"model": "concat", "options": {"width": 8}, "max_sequence_steps": 4}


def save_model(folder: Path, **values) -> None:
    """An untrained model whose encoders ran in bf16."""
    info = dataclasses.replace(synthetic_features.info(), precision="bf16")
    config = FusionConfig.from_features(info, **{**CONFIG, **values})
    FusionModel.build(config.model, config.options, FeatureSpec.of(config)).save_pretrained(folder, config)


def clip_sample(name: str, start: float, duration: float) -> ClipSample:
    empty = np.zeros(0, np.float32)
    rows = np.zeros((1, 8, 8, 3), np.uint8), empty, empty, np.zeros((1, 5)), np.zeros((0, 5)), empty
    return ClipSample(name, "", "", duration, empty, {}, *rows, start=start)


@pytest.fixture
def predictor(tmp_path, monkeypatch):
    """A model folder of an untrained model; stand-ins prepare and encode the clips. Gives run(names) -> rows."""
    save_model(tmp_path / "model")
    clips_read = []

    class Encoders:
        audio = type("Audio", (), {"sample_rate": 16000})
        text = None

        def to(self, device):
            return self

    def prepare_each(clips, recipe, begun):
        assert recipe.frame_rate == 4 and recipe.sample_rates == [16000]
        run.recipe = recipe
        for clip in clips:
            clips_read.append(clip)
            if "broken" in clip.id:
                yield clip, None, "cannot be decoded"
                continue
            for start, length in ((0, 20), (20, 20), (40, 5)) if "long" in clip.id else ((0, 3),):
                sample = clip_sample(clip.id, start, length)
                if "repaired" in clip.id:
                    lost = Remark("{} frame(s) left out", is_problem=True)
                    sample.remarks = Remarks({Remark("2 sound tracks: number 1 is used"): 1, lost: 2})
                yield clip, sample, ""

    def encode_samples(encoders, batch, bf16):
        assert bf16, "as the training features were encoded"
        missing = {"empty": ("vision", "audio", "text")}
        return [
            dataclasses.replace(
                synthetic_features.sample(
                    np.random.default_rng(sum(map(ord, clip.id)) + int(clip.start)),
                    missing=missing.get(clip.id.split(".")[0], ()),
                ),
                id=clip.id,
            )
            for clip in batch
        ]

    monkeypatch.setattr(library, "SIGNALS", synthetic_features.QUALITY)
    monkeypatch.setattr(predicting, "prepare_each", prepare_each)
    monkeypatch.setattr(library, "load_encoders", lambda model, encoders, blendshapes: Encoders())
    monkeypatch.setattr(library, "encode_samples", encode_samples)

    def run(*names, **options):
        out = tmp_path / "out" / "predictions.csv"
        clips = [str(tmp_path / name) for name in names]
        count = prediction.predict(prediction.PredictConfig(clips=clips, model=tmp_path / "model", out=out, **options))
        with out.open() as file, out.with_name(f"{out.stem}_failures.csv").open() as failed:
            return count, list(csv.DictReader(file)), list(csv.DictReader(failed))

    run.clips_read = clips_read
    return run


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"media")


def test_files_are_predicted_and_failures_are_named(predictor, tmp_path, capsys):
    touch(tmp_path, "b.mp4", "a.mp4", "broken.mp4", "empty.mp4")
    (tmp_path / "a.txt").write_text("so good")
    count, rows, failures = predictor("b.mp4", "a.mp4", "broken.mp4", "empty.mp4", "nowhere.mp4", batch_size=2)
    assert count == 2
    assert [row["Filename"] for row in rows] == ["a.mp4", "b.mp4"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("d0", "d1"))
    reasons = {row["Filename"]: row["reason"] for row in failures}
    assert reasons["broken.mp4"] == "cannot be decoded"
    assert "neither" in reasons["empty.mp4"]
    assert any(name.endswith("nowhere.mp4") and "no such file" in reason for name, reason in reasons.items())
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 4 and "not known" in said[-1], "an untrained model has no calibration"
    assert {clip.id: clip.transcript for clip in predictor.clips_read}["a.mp4"] == "so good"


def test_long_clip_gets_a_timeline_and_its_length_weighted_mean(predictor, tmp_path):
    touch(tmp_path, "long.mp4", "short.mp4")
    count, rows, _ = predictor("long.mp4", "short.mp4", batch_size=2, window=20)
    assert count == 2 and predictor.recipe.max_seconds == 20
    with (tmp_path / "out" / "predictions_timeline.csv").open() as file:
        timeline = list(csv.DictReader(file))
    times = [(row["Filename"], float(row["start"]), float(row["end"])) for row in timeline]
    assert times == [("long.mp4", 0, 20), ("long.mp4", 20, 40), ("long.mp4", 40, 45), ("short.mp4", 0, 3)]
    for name in ("d0", "d1"):
        first, second, third, alone = (float(row[name]) for row in timeline)
        assert len({first, second, third}) == 3
        assert float(rows[0][name]) == pytest.approx((20 * first + 20 * second + 5 * third) / 45, abs=2e-6)
        assert float(rows[1][name]) == alone


def test_windows_are_explained_with_times_of_the_clip(predictor, tmp_path):
    touch(tmp_path, "long.mp4")
    save_model(tmp_path / "model", model="dual_stage", options={"width": 16, "steps": 4})
    predictor("long.mp4", batch_size=2, window=20, explain=True)
    with (tmp_path / "out" / "predictions_explained.jsonl").open() as file:
        first, second, third = (json.loads(line) for line in file)
    assert {line["Filename"] for line in (first, second, third)} == {"long.mp4"}
    for line, (start, end) in ((first, (0, 20)), (second, (20, 40)), (third, (40, 45))):
        assert start <= line["times"][0] <= line["times"][-1] <= end
        assert all(len(values) == len(line["times"]) for values in line["weights"].values())
        assert any(sum(values) > 0 for values in line["weights"].values())


def test_clip_with_broken_media_is_predicted_by_its_words(tmp_path):
    (tmp_path / "broken.mp4").write_text("no film")
    clips = [Clip(name, tmp_path / "broken.mp4", words) for name, words in (("a", "so it goes"), ("b", None))]
    recipe = Recipe(frame_rate=4)
    for prepared in (
        prepare_dataset.prepare_each(clips, recipe),
        prepare_here([(clip, None) for clip in clips], recipe),
    ):
        failures = {}
        samples = list(collect_failures(prepared, failures, {}))
        assert [(sample.id, sample.transcript) for sample in samples] == [("a", "so it goes")]
        assert failures["a"].startswith("predicted by its words alone: not a readable media file")
        assert failures["b"].startswith("not a readable media file")


def test_remarks_of_all_windows_are_said_once_for_each_kind(predictor, tmp_path, capsys):
    touch(tmp_path, "a.mp4", "long-repaired.mp4", "repaired.mp4")
    count, rows, failures = predictor("a.mp4", "long-repaired.mp4", "repaired.mp4")
    assert count == 3 and not failures and list(rows[0]) == ["Filename", "d0", "d1"]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "long-repaired.mp4: 6 frames left out (and 1 more clip like it)",
        "long-repaired.mp4: 2 sound tracks: number 1 is used (and 1 more clip like it)",
        NOT_KNOWN,
    ]
    with (tmp_path / "out" / "predictions_remarks.csv").open() as file:
        written = [(row["Filename"], row["remark"]) for row in csv.DictReader(file)]
    assert written == [
        ("long-repaired.mp4", "6 frames left out"),
        ("long-repaired.mp4", "2 sound tracks: number 1 is used"),
        ("repaired.mp4", "2 frames left out"),
        ("repaired.mp4", "2 sound tracks: number 1 is used"),
    ]


def test_predictions_do_not_depend_on_the_batch_size(predictor, tmp_path):
    names = [f"{i}.mp4" for i in range(5)]
    touch(tmp_path, *names)
    one, many = predictor(*names, batch_size=1)[1], predictor(*names, batch_size=5)[1]
    for a, b in zip(one, many, strict=True):
        assert a["Filename"] == b["Filename"] and float(a["d0"]) == pytest.approx(float(b["d0"]), abs=1e-5)


def test_clips_of_the_same_name_are_named_by_their_paths(predictor, tmp_path):
    touch(tmp_path, "x/a.mp4", "y/a.mp4")
    count, rows, _ = predictor("x/a.mp4", "y/a.mp4", "x/a.mp4")
    assert count == 2 and len({row["Filename"] for row in rows}) == 2


def test_tables_of_every_kind_are_read_and_skipped_rows_are_reported(predictor, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "e.xyz")
    pq.write_table(pa.table({"path": ["a.mp4"]}), tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema([("path", pa.string())])) as file:
        file.write_table(pa.table({"path": ["b.mp4"]}))
    (tmp_path / "t.TSV").write_text("path\ttext\nc.mp4\tso\nd.mp4\tso\tgood\n")
    _, rows, failures = predictor("t.parquet", "t.arrow", "t.TSV", "e.xyz")
    assert [row["Filename"] for row in rows] == ["a", "b", "c", "e.xyz"] and not failures
    assert "t.TSV: 1 row left out" in capsys.readouterr().err


def test_run_without_a_prediction_is_not_a_success(predictor, tmp_path):
    touch(tmp_path, "broken.mp4")
    count, rows, failures = predictor("broken.mp4")
    assert count == 0 and rows == [] and len(failures) == 1


def test_no_clips_is_an_error_of_one_line(predictor, tmp_path):
    with pytest.raises(UserError, match=r"no clips to predict: .*nowhere: no such file or folder"):
        predictor("nowhere")


def test_model_of_synthetic_faces_says_so(predictor, tmp_path, capsys):
    touch(tmp_path, "a.mp4")
    save_model(tmp_path / "model", trained_on=TrainedOn(synthetic=True))
    predictor("a.mp4")
    assert "note: " in (said := capsys.readouterr().err) and "trained on synthetic drawn faces" in said


def test_command_does_not_import_torch_for_its_help():
    code = "import sys, stage2_fusion.commands.predict, stage2_fusion; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
