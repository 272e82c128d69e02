"""Every shipped recipe at its smallest: real commands, from media files to the result that it promises."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.commands import emit
from helpers.media_files import face, voice, write_video, write_wav
from helpers.published_tiny import whisper_folder
from helpers.real_material import real
from helpers.stage1_tiny import TOWERS

from shared.cli import emit_command
from shared.dataset.clip import EMI
from shared.pipeline.recipe_file import read_recipe
from stage2_fusion.search import trials


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list[str]:
    """Variables that make both stages as small as they get."""
    folder = tmp_path_factory.mktemp("small configurations")
    train = {"epochs": 1, "batch_size": 64}
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": train}
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": train}
    for name, values in (("align", align), ("fuse", fuse)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return [f"{name}_config={folder / f'{name}.yaml'}" for name in ("align", "fuse")]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def media(folder: Path, kind: str, count: int) -> list[Path]:
    """Short clips: pictures and sound, or one of both."""
    paths = []
    for number in range(count):
        if kind == "sound":
            paths.append(folder / f"{number}.wav")
            write_wav(paths[-1], voice(0.5 + 0.02 * number)[None])
        else:
            film = np.stack([face(mouth=m) for m in np.linspace(0, number / count, 8)])
            paths.append(folder / f"{number}.mp4")
            write_video(paths[-1], film, sound=voice(0.5)[None] if kind == "both" else None)
    return paths


@pytest.mark.parametrize("kind", ["both", "pictures", "sound"])
def test_own_clips_become_a_scored_model_and_a_report(small, kind, tmp_path, capsys):
    """Twenty clips of two people, rated 1 to 7 in a semicolon table, some ratings missing, no splits, no words."""
    folder = tmp_path / "my clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file;person;Tension;Calm"]
    for number, path in enumerate(media(folder, kind, 20)):
        joy, calm = (f"{value:.1f}".replace(".", ",") for value in rng.uniform(1, 7, 2))
        lines.append(f"{path.name};{'AB'[number % 2]};{joy if number % 7 else ''};{calm}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    out = tmp_path / "my results"
    given = [f"data={folder / 'ratings.csv'}", f"out={out}", "label_range=1,7", "frame_size=32", "damaged_views=0"]
    assert emit("run", "own", *given, *small) == 0
    shown = "".join(capsys.readouterr())
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["pcc"]["per_dimension"]) == {"Tension", "Calm"} and metrics["n"] == 3
    assert "fewer than three groups" in shown and "a batch holds 14 clips" in shown
    predictions = [float(row[name]) for row in rows(out / "metrics_predictions.csv") for name in ("Tension", "Calm")]
    assert min(predictions) > 1 and max(predictions) < 7  # on the scale of the ratings
    assert "<html" in (out / "report.html").read_text()
    assert emit("run", "own", *given, *small) == 0
    assert capsys.readouterr().out.count("already done") == 9


def test_hume_vidmimic2_becomes_a_validation_score_and_a_submission(small, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    assert emit("synth", "--layout", "vidmimic2", "--clips", 24, "--out", root, "--workers", 1) == 0
    assert (
        emit("run", "zero_to_submission", f"data={root}", f"out={out}", "damaged_views=0", "frame_size=32", *small) == 0
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n"] == len(rows(root / "valid_split.csv")) and metrics["split"] == "valid"
    submitted = rows(out / "submission.csv")
    assert [row["Filename"] for row in submitted] == sorted(row["Filename"] for row in rows(root / "test_split.csv"))
    assert list(submitted[0]) == ["Filename", *EMI]
    assert all(0 <= float(row[name]) <= 1 for row in submitted for name in EMI)


@pytest.mark.slow
def test_voices_are_scored_over_all_folds(small, tmp_path):
    from test_readme import write_voices

    write_voices(tmp_path / "voices")
    train = {"epochs": 1, "batch_size": 8}
    align = {"towers": {"vision": None, **{k: TOWERS[k] for k in ("audio", "text")}, "embed_dim": 8}, "train": train}
    align |= {"pairs": {"captions": ["labels"]}, "loss": {"pairs": {"audio_text": 1.0}}}
    (tmp_path / "align.yaml").write_text(yaml.safe_dump(align))
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": {"batch_size": 8}}
    (tmp_path / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    given = [f"{name}_config={tmp_path / f'{name}.yaml'}" for name in ("align", "fuse")]
    given += ["n_folds=2", "folds=0,1", "seeds=0,1", "fuse_epochs=1", f"out={tmp_path / 'out'}"]
    assert emit("run", "ravdess", f"data={tmp_path / 'voices'}", *given) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n"] == 64 and len(metrics["parts"]) == 2


AV_ROWS = {"logistic regression", "kernel ridge", "ridge", "ridge, face alone", "ridge, voice alone"}
AV_ROWS |= {"dual_stage", "dual_stage, face alone", "dual_stage, voice alone", "concat"}


def check_faces_and_voices(out: Path, systems: set[str], clips: int, seeds: int) -> None:
    """What `ravdess_av` tables: all clips, each scored by models that have not met it."""
    board = {row["system"]: row for row in rows(out / "board.csv")}
    averaged = {f"{name}, mean of the seeds" for name in ("dual_stage", "concat") if seeds > 1}
    assert set(board) == AV_ROWS | averaged | systems
    assert {int(row["clips"]) for row in board.values()} == {clips}
    assert all(board[name]["difference"] for name in set(board) - {"dual_stage"})
    assert not any(row["note"] for row in board.values())
    joined = json.loads((out / "dual_stage" / "0.json").read_text())
    assert joined["seen"] == {"in_training": 0, "in_choosing": 0} and joined["seen_by_encoders"] == 0
    costs = rows(out / "robustness.csv")
    assert {(row["model"], row["seeds"]) for row in costs} == {(name, str(seeds)) for name in ("dual_stage", "concat")}
    assert {row["clips"] for row in costs if row["how"] == "missing"} == {str(clips)}
    assert {row["modality"] for row in costs if row["how"] == "damaged"} >= {"audio"}


@pytest.mark.slow
@pytest.mark.parametrize("align_epochs", ["null", "1"])
def test_faces_and_voices_are_tabled_over_all_folds(align_epochs, tmp_path):
    from test_readme import write_voices

    write_voices(tmp_path / "voices")
    names = sorted(path.stem for path in (tmp_path / "voices").iterdir())
    units = np.random.default_rng(0).uniform(0, 3, (len(names), 3))
    lines = [f"{name},{','.join(map(str, row))}" for name, row in zip(names, units, strict=True)]
    (tmp_path / "faces.csv").write_text("\n".join(["path,AU01_r,AU12_r,AU25_r", *lines]))
    (tmp_path / "whisper").mkdir()
    whisper_folder(tmp_path / "whisper", "WhisperForConditionalGeneration")
    train = {"batch_size": 8}
    fuse = {"options": {"width": 16, "heads": 2, "steps": 8}, "train": train}
    (tmp_path / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    out = tmp_path / "out"
    given = [f"data={tmp_path / 'voices'}", f"faces={tmp_path / 'faces.csv'}", f"audio_weights={tmp_path / 'whisper'}"]
    given += [f"fuse_config={tmp_path / 'fuse.yaml'}", "fuse_epochs=1", "epochs=1", "n_folds=2", "folds=0,1"]
    given += [f"out={out}", f"align_epochs={align_epochs}"]
    systems, seeds = ["statistics_mlp"], ["seeds=0,1"]
    if align_epochs == "null":
        systems, seeds = read_recipe("ravdess_av").variables["systems"].default, ["seeds=0", "averaged=[]"]
    assert emit("run", "ravdess_av", *given, *seeds, f"systems={','.join(systems)}") == 0
    check_faces_and_voices(out, set(systems), len(names), seeds=len(seeds[0].split(",")))
    shared = {os.stat(path).st_ino for path in out.glob("fold*/features/data/*") if path.suffix == ".arrow"}
    assert (len(shared) == 1) == (align_epochs == "null")  # one encoder and one set of rows serve all folds


@pytest.mark.slow
def test_real_faces_and_voices_go_through_a_real_whisper(tmp_path):
    """Four actors of RAVDESS, half a minute of training."""
    faces = real("ravdess_face_au/au_actors_01_16.csv")
    weights, voices = real("weights/whisper_tiny_en_encoder"), real("ravdess_speech_16k")
    for actor in ("01", "02", "03", "04"):
        (tmp_path / "voices" / f"actor_{actor}").mkdir(parents=True)
        for file in sorted((voices / f"actor_{actor}").iterdir())[::2]:
            (tmp_path / "voices" / f"actor_{actor}" / file.name).symlink_to(file)
    out = tmp_path / "out"
    given = [
        f"data={tmp_path / 'voices'}",
        f"faces={faces}",
        f"audio_weights={weights}",
        f"out={out}",
        "seeds=0",
        "averaged=[]",
    ]
    given += ["n_folds=2", "folds=0,1", "systems=statistics_mlp"]
    given += ["fuse_epochs=2", "epochs=2", "damaged_views=1"]
    assert emit("run", "ravdess_av", *given) == 0
    check_faces_and_voices(out, {"statistics_mlp"}, 120, seeds=1)


@pytest.mark.slow
def test_stages_tables_each_way_to_train_the_towers_for_each_number_of_labels(small, tmp_path):
    values, given = {"train": {"epochs": 1, "batch_size": 8}}, []
    for variable in small:
        name, _, path = variable.partition("=")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(yaml.safe_load(Path(path).read_text()) | values))
        given.append(f"{name}={tmp_path / f'{name}.yaml'}")
    given.append(f"labels_config={tmp_path / 'align_config.yaml'}")
    out = tmp_path / "out"
    sizes = ["clips=36", "pool_clips=12", "more_clips=16", "budgets=10", "seeds=3", "tuned_frames=2"]
    epochs = [f"{name}epochs=1" for name in ("pool_", "more_", "both_", "tuned_")]
    assert emit("run", "stages", f"out={out}", *sizes, *epochs, *given) == 0
    free = {"statistics", "no stage 1", "end to end", "transcripts", "transcripts of 12 other clips"}
    free |= {f"transcripts of 12 + 16 other clips{then}" for then in ("", ", end to end")}
    labels = {"label words", "label words, transcripts", "label words, transcripts also of 12 other clips"}
    for board, systems in (("board", free | labels), ("board_10", free)):
        named = {row["system"] for row in rows(out / f"{board}.csv")}
        assert named >= systems and not named & (labels - systems)
    budget = json.loads((out / "3" / "untrained" / "tuned_10" / "model" / "config.json").read_text())["trained_on"]
    assert len(budget["clips"]) == 10
    for towers in ("transcripts", "pool", "more", "words", "both", "both_pool"):  # deviations hold their training
        assert yaml.safe_load((out / "3" / towers / "align" / "config.yaml").read_text())["seed"] == 3, towers


@pytest.mark.slow
def test_dynamics_tables_the_models_of_time_beside_means_and_statistics(small, tmp_path):
    out = tmp_path / "out"
    given = ["clips=60", "encoder_clips=24", "seeds=0,1", "epochs=2", f"out={out}", *small]
    assert emit("run", "dynamics", *given) == 0
    board = {row["system"]: row for row in rows(out / "board.csv")}
    parts = {"dual_stage", "without_tcn", "without_bilstm", "with_decoder", "means_over_time"}
    assert set(board) >= parts | {"statistics", "ridge"}
    assert {board[name]["seeds"] for name in parts} == {"2"}


def test_leaderboard_searches_every_system_alike_and_begins_with_the_baselines(clips, small, tmp_path, monkeypatch):
    def in_this_process(file: Path, trainings: trials.Trainings) -> str:
        return "" if emit("fuse", "--config", file) == 0 else "failed"

    monkeypatch.setattr(trials, "run_trial", in_this_process)
    align = small[0].partition("=")[2]
    untrained = ("--train.epochs", 0, "--train.shrink_batch", "true")
    assert emit("align", "--config", align, "--data", clips, "--run", tmp_path / "a", *untrained) == 0
    assert emit("export", tmp_path / "a", "--out", tmp_path / "e") == 0
    features, out = tmp_path / "f", tmp_path / "out"
    assert emit("encode", "--encoders", tmp_path / "e", "--data", clips, "--out", features, "--damaged_views", 1) == 0
    space = {"train.lr": {"low": 1e-3, "high": 1e-2}, "options.width": [8, 16], "train.epochs": [1]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space | {"train.damaged_views": [True]}))
    given = [f"data={features}", f"clips={clips}", f"out={out}", f"space={tmp_path / 'space.yaml'}"]
    given += ["systems=concat,lstm_vad", "against=concat", "trials=2", "seeds=5,6", "published_seeds=7"]
    assert emit("run", "leaderboard", *given) == 0
    board = rows(out / "board.csv")
    assert {row["system"] for row in board[:2]} == {"statistics", "ridge"}
    seeds = {row["system"]: row["seeds"] for row in board}
    assert seeds["concat"] == seeds["lstm_vad"] == "2" and seeds["lstm_vad, published settings"] == "1"
    tried = [
        {(row["trial"], row["train.lr"]) for row in rows(out / s / "search" / "results.csv")}
        for s in ("concat", "lstm_vad")
    ]
    assert tried[0] == tried[1] and len(tried[0]) == 2
    repeat = yaml.safe_load((out / "lstm_vad" / "search" / "repeats" / "6" / "config.yaml").read_text())
    best = yaml.safe_load((out / "lstm_vad" / "search" / "best.yaml").read_text())
    assert repeat["seed"] == 6 and repeat["options"] == best["options"] and repeat["train"]["lr"] == best["train"]["lr"]
    other = tmp_path / "other"
    further = [f"data={features}", f"clips={clips}", f"out={other}", f"settings={out}", "systems=concat", "seeds=5"]
    assert emit("run", "leaderboard", *further, "against=concat", "published_seeds=7") == 0
    assert not (other / "concat" / "search").exists()
    found = [json.loads((folder / "concat" / "5.json").read_text())["predictions_digest"] for folder in (out, other)]
    assert found[0] == found[1]  # on the same data they are the same model


@pytest.mark.slow
def test_partial_damage_scores_models_of_ordinary_clips_on_damage_that_passes(small, tmp_path):
    out = tmp_path / "out"
    given = ["clips=60", "train_clips=48", "seeds=0,1", f"out={out}", *small]
    assert emit("run", "partial_damage", *given) == 0
    board = {row["system"]: row for row in rows(out / "board.csv")}
    weighted = {"weights per step", "weights per clip", "uniform weights", "weights per step, damage of whole clips"}
    trained = weighted | {"concat"}
    assert set(board) >= trained | {"statistics", "ridge"}
    assert {board[name]["seeds"] for name in trained} == {"2"}
    assert not any(row["note"] for row in board.values())  # ids of the two corpora coincide, their clips do not
    scored = json.loads((out / "per_step" / "0.json").read_text())
    assert scored["damage"]["vision"]["auc"] > 0 and scored["damage"]["text"] is None
    assert scored["seen"] == {"in_training": 0, "in_choosing": 0} and scored["seen_by_encoders"] == 0
    shares = [
        yaml.safe_load((out / name / "0" / "config.yaml").read_text())["train"]["passing_damage"]
        for name in ("per_step", "per_clip", "uniform", "concat", "whole_clips")
    ]
    assert shares == [1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.fixture(scope="module")
def small_demo(small, tmp_path_factory) -> list[str]:
    """The variables of a recipe that reads features: those of a demo of 60 clips, and two seeds of one epoch."""
    demo = tmp_path_factory.mktemp("demo") / "demo"
    assert emit("run", "demo", "clips=60", f"out={demo}", "labels_config=null", *small) == 0
    data = [f"data={demo / 'features'}", f"truth={demo / 'corpus' / 'truth.csv'}"]
    return [*data, "seeds=0,1", "epochs=1", small[1]]


@pytest.mark.slow
def test_ablations_table_each_part_and_each_modality(small_demo, tmp_path):
    assert emit("run", "ablations", *small_demo, f"out={tmp_path}") == 0
    board = {row["system"]: row for row in rows(tmp_path / "board.csv")}
    parts = {f"without {part}" for part in ("TCN", "BiLSTM", "shortcut")}
    others = {"uniform weights", "means over time", "vision alone", "audio alone", "text alone"}
    systems = parts | {"dual_stage", "with decoder"} | others
    assert set(board) > systems | {"ridge"} and {board[name]["seeds"] for name in systems} == {"2"}
    names = ("dual_stage", "with_decoder", "means")
    layers = [json.loads((tmp_path / name / "0.json").read_text())["configuration"] for name in names]
    assert [of["decoder_layers"] for of in layers] == [0, 2, 0]
    assert layers[2]["tcn_layers"] == layers[2]["lstm_layers"] == 0 < layers[0]["tcn_layers"]


@pytest.mark.slow
def test_robustness_tables_damage_beside_plain_concatenation(small_demo, tmp_path):
    out = tmp_path / "out"
    assert emit("run", "robustness", *small_demo, f"out={out}", "left_out=no_face") == 0
    systems = {"dual_stage", "fewer_kinds", "concat", "concat_on_damage"}
    board = {row["system"]: row for row in rows(out / "board.csv")}
    assert set(board) >= systems and {board[name]["seeds"] for name in systems} == {"2"}
    costs = rows(out / "robustness.csv")
    assert {(row["model"], row["seeds"]) for row in costs} == {(name, "2") for name in systems}
    assert not any(row["relative"] for row in costs if row["model"] == "concat")
    vision = json.loads((out / "fewer_kinds" / "0.json").read_text())["damage_detectors"][0]
    assert vision["unmet"] == ["no_face"] and vision["left_out"] is not None and vision["regression"] is not None


KILLED = """
import os, signal
from shared import cli
from shared.training import checkpoint

complete, calls = checkpoint.complete, []

def killed(folder, progress):
    calls.append(progress)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    complete(folder, progress)

checkpoint.complete = killed
cli.main()
"""
"""`emit`, killed while it writes its second checkpoint: the first one is whole."""


def test_killed_run_goes_on_where_it_was(clips, small, tmp_path, capfd):
    """Killed twice in stage 1, with the checkpoint of one more epoch each time, and then to its end."""
    (tmp_path / "r.yaml").write_text("""
summary: stage 1
variables: { out: { default: x, help: Folder. }, align_config: YAML, data: Clips }
steps:
  - { name: folds, run: "emit split {data} --out {out}/clips" }
  - { name: stage 1, run: "emit align --config {align_config} --data {out}/clips --run {out}/align --train.epochs 4
                                      --train.shrink_batch true" }
""")
    words = [tmp_path / "r.yaml", f"data={clips}", f"out={tmp_path / 'out'}", small[0]]
    command = [sys.executable, "-P", "-c", KILLED, "run", *map(str, words)]
    one_process = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # with a GPU, each step has a process of its own
    for epoch in (1, 2):
        process = subprocess.run(command, env=one_process, capture_output=True, text=True, check=False)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert ("continuing in epoch 2" in process.stdout) == (epoch == 2)
    assert emit("run", *words) == 0
    shown = capfd.readouterr().out
    assert "folds (1 of 2): already done" in shown and "continuing in epoch 3" in shown
    log = [json.loads(line) for line in (tmp_path / "out" / "align" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log if "epoch" in line] == [1, 2, 3, 4]
    assert emit("run", *words) == 0 and capfd.readouterr().out.count("already done") == 2


@pytest.mark.slow
def test_trainings_at_once_save_their_state_at_sigterm_and_go_on(clips, small, tmp_path):
    """Stopped in the middle of both trainings, twice; the second time they go on from where the first one stopped."""
    (tmp_path / "r.yaml").write_text("""
summary: two trainings
variables: { out: { default: x, help: Folder. }, align_config: YAML, data: Clips }
steps:
  - for: { s: [0, 1] }
    steps:
      - { name: stage 1, run: "emit align --config {align_config} --data {data} --run {out}/{s} --train.epochs 1000
                                          --train.shrink_batch true --seed {s}" }
""")
    out = tmp_path / "out"
    command = emit_command("run", tmp_path / "r.yaml", f"data={clips}", f"out={out}", small[0], "--jobs", 2)
    for again in (False, True):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines, begun = [], set()
            for line in process.stdout:
                lines.append(line)
                begun |= set(re.findall(r"^\[stage 1 \(s (\d)\)\] epoch", line))
                if begun == {"0", "1"} and process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    break
            shown = "".join([*lines, process.stdout.read()])
        assert process.returncode == 128 + signal.SIGTERM, shown
        assert len(re.findall(r"\] .*continuing in epoch", shown)) == 2 * again
        for run in ("0", "1"):
            (*_, last) = sorted((out / run / "checkpoints").glob("[0-9]*"))
            steps = [json.loads(line)["step"] for line in (out / run / "log.jsonl").read_text().splitlines()]
            assert int(last.name) >= max(steps) and not (out / run / "metrics.json").exists()
