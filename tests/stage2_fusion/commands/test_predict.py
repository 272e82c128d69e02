"""`emit predict`: which clips are read, what is written, and what counts as a failure."""

import csv
import json

import numpy as np
import pytest
from helpers import synthetic_features

from shared.dataset.clip import Clip
from shared.errors import UserError
from stage2_fusion.commands import predict as prediction
from stage2_fusion.commands.predict import prepared
from stage2_fusion.config import PredictConfig
from stage2_fusion.data import encoding as encode
from stage2_fusion.models import model_folder


@pytest.fixture
def predictor(tmp_path, monkeypatch):
    """A model folder of an untrained model; clips are prepared and encoded by stand-ins. Gives run(names) -> rows."""
    info = synthetic_features.info()
    described = {
        key: info.to_json()[key] for key in ("label_names", "widths", "quality", "encoders", "prepare") if key in info
    }
    described |= {
        "model": "concat",
        "options": {"width": 8},
        "max_steps": 4,
        "prepare": {"frame_rate": 4},
        "precision": "bf16",
    }
    model = model_folder.build("concat", {"width": 8}, info)
    model_folder.save(tmp_path / "model", model, described, {})
    seen = []

    class Encoders:
        audio = type("Audio", (), {"sample_rate": 16000})

        def to(self, device):
            return self

    def prepared(clips, settings, rate, failures):
        assert settings["frame_rate"] == 4 and rate == 16000
        run.settings = settings
        for clip in clips:
            seen.append(clip)
            if "broken" in clip.id:
                failures.append((clip.id, "cannot be decoded"))
                continue
            for start, length in ((0, 20), (20, 20), (40, 5)) if "long" in clip.id else ((0, 3),):
                yield {"id": clip.id, "start": start, "duration": length}

    def encode_samples(encoders, batch, bf16):
        assert bf16, "as the training features were encoded"
        missing = {"empty": ("vision", "audio", "text")}
        seeds = [sum(map(ord, clip["id"])) + clip["start"] for clip in batch]
        return [
            synthetic_features.sample(np.random.default_rng(seed), missing=missing.get(clip["id"].split(".")[0], ()))
            | {"id": clip["id"], "groups": {}}
            for clip, seed in zip(batch, seeds, strict=True)
        ]

    monkeypatch.setattr(prediction, "prepared", prepared)
    monkeypatch.setattr(prediction, "load_encoders", lambda config, info: Encoders())
    monkeypatch.setattr(encode, "encode_samples", encode_samples)

    def run(*names, **options):
        out = tmp_path / "out" / "predictions.csv"
        clips = [str(tmp_path / name) for name in names]
        count = prediction.predict(PredictConfig(clips=clips, model=tmp_path / "model", out=out, **options))
        with out.open() as file, out.with_name(f"{out.stem}_failures.csv").open() as failed:
            return count, list(csv.DictReader(file)), list(csv.DictReader(failed))

    run.seen = seen
    return run


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"media")


def test_files_are_predicted_and_failures_named(predictor, tmp_path, capsys):
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
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
    assert {clip.id: clip.transcript for clip in predictor.seen}["a.mp4"] == "so good"


def test_a_long_clip_has_a_timeline_and_their_mean_by_length(predictor, tmp_path):
    touch(tmp_path, "long.mp4", "short.mp4")
    count, rows, _ = predictor("long.mp4", "short.mp4", batch_size=2, window=20)
    assert count == 2 and predictor.settings["max_seconds"] == 20
    with (tmp_path / "out" / "predictions_timeline.csv").open() as file:
        timeline = list(csv.DictReader(file))
    times = [(row["Filename"], float(row["start"]), float(row["end"])) for row in timeline]
    assert times == [("long.mp4", 0, 20), ("long.mp4", 20, 40), ("long.mp4", 40, 45), ("short.mp4", 0, 3)]
    for name in ("d0", "d1"):
        first, second, third, alone = (float(row[name]) for row in timeline)
        assert len({first, second, third}) == 3
        assert float(rows[0][name]) == pytest.approx((20 * first + 20 * second + 5 * third) / 45, abs=2e-6)
        assert float(rows[1][name]) == alone


def test_windows_are_explained_with_their_times(predictor, tmp_path):
    touch(tmp_path, "long.mp4")
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    described |= {"model": "dual_stage", "options": {"width": 16, "steps": 4}}
    model = model_folder.build("dual_stage", described["options"], synthetic_features.info())
    model_folder.save(tmp_path / "model", model, described, {})
    predictor("long.mp4", batch_size=2, window=20, explain=True)
    with (tmp_path / "out" / "predictions_explained.jsonl").open() as file:
        first, second, third = (json.loads(line) for line in file)
    assert {line["Filename"] for line in (first, second, third)} == {"long.mp4"}
    for line, (start, end) in ((first, (0, 20)), (second, (20, 40)), (third, (40, 45))):
        assert start <= line["times"][0] <= line["times"][-1] <= end
        assert all(len(values) == len(line["times"]) for values in line["weights"].values())
        assert any(sum(values) > 0 for values in line["weights"].values())


def test_what_a_prediction_rests_on_is_said_where_media_are_broken(tmp_path):
    failures = []
    (tmp_path / "broken.mp4").write_text("no film")
    clips = [Clip(name, tmp_path / "broken.mp4", words) for name, words in (("a", "so it goes"), ("b", None))]
    samples = list(prepared(clips, {"frame_rate": 4}, 16000, failures))
    assert [(sample["id"], sample["transcript"]) for sample in samples] == [("a", "so it goes")]
    reasons = dict(failures)
    assert reasons["a"].startswith("predicted by its words alone: not a readable media file")
    assert reasons["b"].startswith("not a readable media file")


def test_batches_change_nothing(predictor, tmp_path):
    names = [f"{i}.mp4" for i in range(5)]
    touch(tmp_path, *names)
    one, many = predictor(*names, batch_size=1)[1], predictor(*names, batch_size=5)[1]
    for a, b in zip(one, many, strict=True):
        assert a["Filename"] == b["Filename"] and float(a["d0"]) == pytest.approx(float(b["d0"]), abs=1e-5)


def test_same_names_in_different_folders_are_told_apart(predictor, tmp_path):
    touch(tmp_path, "x/a.mp4", "y/a.mp4")
    count, rows, _ = predictor("x/a.mp4", "y/a.mp4", "x/a.mp4")
    assert count == 2 and len({row["Filename"] for row in rows}) == 2


def test_tables_of_every_kind_are_read_and_what_they_lack_is_said(predictor, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "e.xyz")
    pq.write_table(pa.table({"path": ["a.mp4"]}), tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema([("path", pa.string())])) as file:
        file.write_table(pa.table({"path": ["b.mp4"]}))
    (tmp_path / "t.TSV").write_text("path\ttext\nc.mp4\tso\nd.mp4\tso\tgood\n")
    _, rows, failures = predictor("t.parquet", "t.arrow", "t.TSV", "e.xyz")
    assert [row["Filename"] for row in rows] == ["a", "b", "c", "e.xyz"] and not failures
    assert "t.TSV: 1 rows left out" in capsys.readouterr().err


def test_a_clip_without_anything_is_no_success(predictor, tmp_path):
    touch(tmp_path, "broken.mp4")
    count, rows, failures = predictor("broken.mp4")
    assert count == 0 and rows == [] and len(failures) == 1


def test_nothing_to_predict_is_one_line(predictor, tmp_path):
    with pytest.raises(UserError, match=r"no clips to predict: .*nowhere: no such file or folder"):
        predictor("nowhere")


def test_missing_encoders_are_named(tmp_path):
    info = {"encoders": {"digest": "abc"}}
    with pytest.raises(UserError, match="no encoders here; give --encoders"):
        prediction.load_encoders(PredictConfig(clips=["a"], model=tmp_path), info)
