"""The sections of a report about clips: values against hand-computed ones, and runs with parts missing."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.synthetic_evaluations import write_evaluation
from helpers.synthetic_features import config, info, samples, write_features

from shared.dataset.clip_dataset import ClipSample
from shared.dataset.label_scale import LabelScale
from shared.metrics import roc_auc
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.robustness import RobustnessConfig
from stage2_fusion.commands.robustness import robustness as run_robustness
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.data.features import FeatureDataset, write
from stage2_fusion.evaluation.damage_signals import compare
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FusionModel
from stage2_fusion.report import write_report
from stage2_fusion.report.clip_choice import (
    ScoredClip,
    choose_clips,
    clip_errors,
    partial_rank_correlation,
    rank_correlation,
    spread_without,
)
from stage2_fusion.report.clip_figures import envelope, scores_figure, strip_rows, timeline_figure
from stage2_fusion.report.content import Figure, Table
from stage2_fusion.report.figures import style
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.scored import scored_model
from stage2_fusion.report.sections.clips import with_intervals
from stage2_fusion.report.sections.damage import is_uniform, typical_view
from stage2_fusion.report.sections.embedding_map import gap_share, multiple_correlation, project
from stage2_fusion.report.write import make_section
from stage2_fusion.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder: features with damaged views, a small model, its evaluation."""
    out = tmp_path_factory.mktemp("run")
    features = write_features(out / "features", {"train": 40, "valid": 16, "test": 24}, k=3)
    train(config(features, out / "fuse", "--config", "dual_stage", "--train.epochs", "2"))
    evaluate(EvaluateConfig(model=out / "fuse" / "model", data=features, out=out / "m.json", bootstrap=20))
    return out


def sections(given, *names, **options):
    """The sections of a report, which are not drawn: {name: section}."""
    inputs = Inputs.of([given], **options)
    with style():
        return {name: make_section(name, inputs) for name in names}


def blocks(section):
    """The blocks of a section at any depth."""
    found, rest = [], list(section.blocks)
    while rest:
        block = rest.pop(0)
        found.append(block)
        rest[:0] = getattr(block, "blocks", None) or getattr(block, "figures", None) or []
    return found


def alts(section):
    return [block.alt for block in blocks(section) if isinstance(block, Figure)]


def is_made(section):
    return not any("could not be made" in line for line in section.missing)


# --- the map ---------------------------------------------------------------------------------------------------------


def test_projection_is_the_best_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [5, 2]
    values = plane @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T + 7  # (50, 6), exactly two dimensions
    projection = project({"vision": values}, centered=False)
    centered = values - values.mean(0)
    assert np.allclose(np.square(projection.points["vision"]).sum(), np.square(centered).sum())
    assert sum(projection.shares) == pytest.approx(1) and projection.shares[0] > projection.shares[1]
    variances = np.linalg.eigvalsh(np.cov(values.T))[::-1]
    assert projection.shares[0] == pytest.approx(variances[0] / variances.sum())
    again = project({"vision": values, "text": values + 100}, centered=True)  # the gap is taken away
    assert np.allclose(np.abs(again.points["text"]), np.abs(projection.points["vision"]))


def test_projection_of_one_channel_has_no_second_component():
    projection = project({"vision": np.arange(9.0)[:, None]}, centered=True)
    assert projection.shares == (1.0, 0.0) and not projection.points["vision"][:, 1].any()


def test_gap_is_the_variance_between_modalities():
    at = {"vision": np.array([[0.0], [2.0]]), "text": np.array([[10.0], [12.0]])}
    assert gap_share(at) == pytest.approx(100 / 104)  # between: 4 x 25, within: 4 x 1
    assert gap_share({"vision": at["vision"], "text": at["vision"]}) == 0


def test_fit_of_a_plane_is_a_multiple_correlation():
    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(40, 2)), rng.normal(size=40)
    gram = np.corrcoef(np.column_stack([points, labels]).T)
    to = gram[2, :2]
    assert multiple_correlation(points, labels) == pytest.approx(np.sqrt(to @ np.linalg.solve(gram[:2, :2], to)))
    assert multiple_correlation(points, points @ [1, 2] + 3) == pytest.approx(1)
    assert multiple_correlation(points, np.ones(40)) is None
    assert multiple_correlation(points, np.where(np.arange(40) < 7, labels, np.nan)) is None


# --- damage ----------------------------------------------------------------------------------------------------------


def test_weight_and_signals_are_compared_on_the_same_clips():
    rows = [row for row in samples({"test": 60}, seed=3) if row.vision.steps and row.audio.steps and row.text.steps]
    kinds = [row.damage["vision"] for row in rows]
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1, (len(rows), 3))
    each = compare("vision", "on purpose", rows, kinds, [row.id for row in rows], weights, ["face_found", "sharpness"])
    positive = np.array(kinds) != ""
    assert each.damaged == positive.sum() and each.undamaged == (~positive).sum()
    assert each.weight.auc == pytest.approx(roc_auc(-weights[:, 0], positive))
    means = np.array([row.vision.quality.mean(0) for row in rows])
    expected = {name: roc_auc(-means[:, q], positive) for q, name in enumerate(["face_found", "sharpness"])}
    assert {signal.name: signal.auc for signal in each.signals} == pytest.approx(expected)
    assert each.signals[0].auc == max(expected.values()) and each.signals[0].low_is_damaged
    assert each.lead == pytest.approx(each.weight.auc - each.signals[0].auc)
    assert each.lead_interval[0] <= each.lead <= each.lead_interval[1]


def test_raw_signal_may_be_high_where_there_is_damage():
    rows = [row for row in samples({"test": 40}, seed=5) if row.audio.steps]
    for row in rows:
        row.audio.quality[:, 2] = 0.9 if row.damage["audio"] else 0.1
    weights = np.full((len(rows), 3), 0.3)
    names = ["level", "snr", "clipping"]
    kinds = [row.damage["audio"] for row in rows]
    each = compare("audio", "on purpose", rows, kinds, [row.id for row in rows], weights, names)
    best = next(signal for signal in each.signals if signal.name == "clipping")
    assert best.auc == 1 and not best.low_is_damaged and best.by_kind == {"synthetic": 1.0}
    assert each.weight.auc == 0.5 and is_uniform(weights)


def test_example_is_the_clip_whose_weight_fell_by_the_median():
    rows = [row for row in samples({"test": 30}, seed=2) if not row.view or row.damage["vision"]]
    pairs = {row.id for row in rows if row.view}
    weights = np.full((len(rows), 3), 0.9)
    falls = np.linspace(0.1, 0.7, len(pairs))
    for fall, i in zip(falls, [i for i, row in enumerate(rows) if row.view], strict=True):
        weights[i, 0] -= fall
    before, after = typical_view(FeatureDataset(info(), rows), weights, "vision")
    assert rows[before].id == rows[after].id and rows[after].view == 1
    assert weights[before, 0] - weights[after, 0] == pytest.approx(falls[(len(falls) - 1) // 2])


# --- which clips -----------------------------------------------------------------------------------------------------


def clip(name, error=None, label=0.5, spread=None):
    return ScoredClip(name, np.array([0.5]), np.array([np.nan if error is None else label]), error, spread)


def test_error_is_over_the_labeled_dimensions():
    predictions = np.array([[0.5, 0.2], [0.1, 0.9], [0.3, 0.3]])
    labels = np.array([[0.1, 0.4], [np.nan, 0.5], [np.nan, np.nan]])
    assert clip_errors(predictions, labels) == pytest.approx([0.3, 0.4, np.nan], nan_ok=True)


def test_best_clips_express_something():
    clips = [clip(f"flat {i}", 0.01, 0.0) for i in range(5)]
    clips += [clip("good", 0.1, 0.9), clip("fair", 0.2, 0.8), clip("bad", 0.5, 0.7, spread=0.3)]
    clips += [clip("unsure", 0.15, 0.6, spread=0.2)]
    chosen = {choice.title: [each.id for each in choice.clips] for choice in choose_clips(clips, 1)}
    assert chosen == {"Worst": ["bad"], "Least certain": ["unsure"], "Best": ["good"]}


def test_without_labels_only_certainty_is_known():
    choices = choose_clips([clip("a", spread=0.1), clip("b", spread=0.4), clip("c")], 3)
    assert [(choice.title, [each.id for each in choice.clips]) for choice in choices] == [("Least certain", ["b", "a"])]


def test_spread_is_the_mean_move_without_a_modality(run):
    model = FusionModel.from_pretrained(run / "fuse" / "model")
    data = FeatureDataset.open(run / "features", "test", views=(0,)).samples[:6]
    data[0] = data[0].without("audio").without("text")  # one modality alone: nothing to leave out
    values = spread_without(model, data)
    assert np.isnan(values[0])
    names = [name for name in ("vision", "audio", "text") if data[1].modality(name).steps]
    versions = run_model(model, [data[1], *(data[1].without(name) for name in names)], 8).predictions
    assert values[1] == pytest.approx(np.abs(versions[1:] - versions[0]).mean(), abs=1e-6)


def test_partial_rank_correlation_takes_a_common_cause_away():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=400)
    a, b = cause + 0.3 * rng.normal(size=400), cause + 0.3 * rng.normal(size=400)
    assert rank_correlation(a, b) > 0.8 and abs(partial_rank_correlation(a, b, cause)) < 0.15
    assert rank_correlation(a, np.ones(400)) is None
    assert rank_correlation(np.array([1, 2, 3]), np.array([1, 100, 101])) == pytest.approx(1)


# --- drawings --------------------------------------------------------------------------------------------------------


def media(frames=4, sound=800):
    return ClipSample(
        "c", "test", "so <b>sad</b> $x_1$", 2.0, np.zeros(2, np.float32), {"subject": "s1"},
        np.zeros((frames, 16, 16, 3), np.uint8), np.linspace(0, 1.9, frames, dtype=np.float32),
        np.sin(np.arange(sound, dtype=np.float32)), np.zeros((frames, 5), np.float32),
        np.zeros((20, 5), np.float32), np.zeros(2, np.float32),
    )  # fmt: skip


def test_strip_shows_the_frame_of_each_part():
    times = np.array([0.0, 0.5, 1.0, 1.5])
    assert strip_rows(times, 2.0, 4) == [0, 1, 2, 3]
    assert strip_rows(times, 2.0, 2) == [1, 3] and strip_rows(times[:1], 2.0, 3) == [0, 0, 0]


def test_envelope_holds_the_extremes():
    wave = np.array([0, 1, -1, 0.5, 0.2, -0.3])
    low, high = envelope(wave, 3)
    assert low.tolist() == [0, -1, -0.3] and high.tolist() == [1, 0.5, 0.2]
    assert envelope(wave[:1], 240)[0].tolist() == [0]


@pytest.mark.parametrize(("frames", "sound"), [(0, 800), (4, 0), (0, 0), (1, 1)])
def test_clips_without_a_modality_are_drawn(frames, sound):
    figure = timeline_figure("x", clip("c", 0.1), media(frames, sound), None, ["Joy"])
    expected = ["faces"] * (frames > 0) + ["sound"] * (sound > 0)
    assert figure is None if not expected else figure.alt == f"Clip c over time: {', '.join(expected)}."


# --- sections --------------------------------------------------------------------------------------------------------


def test_whole_run_is_shown(run, tmp_path):
    path = run / "robustness.json"
    run_robustness(RobustnessConfig([str(run / "fuse" / "model")], data=run / "features", out=path, bootstrap=20))
    try:
        made = sections(run, "embeddings", "damage", "robustness", "clips")
    finally:
        path.rename(tmp_path / "robustness.json")
    rows = json.loads((tmp_path / "robustness.json").read_text())["rows"]
    shown = [row["pcc"] for row in rows if row["modality"] == "vision" and row["how"] == "missing"]
    assert any(f"missing {shown[0]:.3f} to {shown[-1]:.3f}" in alt for alt in alts(made["robustness"]))
    detected = json.loads((run / "m.json").read_text())["damaged_on_purpose"]["damage"]
    table = next(block for block in blocks(made["damage"]) if isinstance(block, Table))
    cells = {row[0]: row[2] for row in table.rows}
    for name in ("vision", "audio", "text"):
        assert cells.get(f"{name} on purpose") == (detected[name] and f"{detected[name]['auc']:.3f}")
    assert len(alts(made["embeddings"])) == 1 + 3 and len(alts(made["clips"])) == 9 * 2
    assert any("no clip dataset" in line for line in made["clips"].missing)


@pytest.mark.parametrize("model", ["concat", "late_fusion", "lstm_vad"])
def test_models_without_weights_over_time_are_shown(tmp_path, model):
    features = write_features(tmp_path / "features", {"train": 24, "valid": 12, "test": 12})
    train(config(features, tmp_path / "fuse", "--config", model, "--train.epochs", "1"))
    evaluate(EvaluateConfig(model=tmp_path / "fuse" / "model", data=features, out=tmp_path / "m.json", bootstrap=20))
    made = sections(tmp_path, "damage", "clips")
    assert all(map(is_made, made.values())) and alts(made["clips"])
    if model == "concat":
        assert "gives every modality the same weight" in made["damage"].lead


def test_model_without_an_evaluation_is_shown(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").glob("m*"):
        path.unlink()
    made = sections(tmp_path / "run", "embeddings", "damage", "clips")
    assert all(map(is_made, made.values())) and "The median clip is wrong by" in made["clips"].lead


def test_evaluation_of_another_model_is_not_explained_by_this_one(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "m.json").read_text())
    content["made_from"]["model_digest"] = "f" * 16
    (tmp_path / "run" / "m.json").write_text(json.dumps(content))
    made = sections(tmp_path / "run", "damage", "clips")
    assert all(any("f" * 16 in line for line in section.missing) for section in made.values())
    assert len(alts(made["clips"])) == 6  # the scores of the best and the worst


def test_evaluation_alone_says_what_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.random((30, 2))
    path = write_evaluation(tmp_path / "m.json", labels + 0.2 * rng.normal(size=(30, 2)), labels)
    made = sections(path, "embeddings", "damage", "robustness", "clips")
    assert all(section.missing and is_made(section) for section in made.values())
    assert "emit robustness" in made["robustness"].missing[0]
    stored = read_evaluation(path)
    worst = np.abs(stored.predictions - stored.labels).mean(axis=1).max()
    assert f"the worst by {worst:.3f}" in made["clips"].lead


def test_precomputed_features_have_no_map(run, tmp_path):
    data = FeatureDataset.open(run / "features")
    for row in data.samples:
        for name in ("vision", "audio", "text"):
            part = row.modality(name)
            setattr(row, name, replace(part, pooled=np.zeros_like(part.pooled)))
    encoders = EncoderInfo("", "e" * 16, {}, precomputed=["vision", "audio"])
    write(tmp_path / "run" / "features", data.samples, replace(data.info, encoders=encoders))
    assert "from a dataset or another tool" in sections(tmp_path / "run", "embeddings")["embeddings"].missing[0]


def test_features_without_labels_are_shown(run, tmp_path):
    data = FeatureDataset.open(run / "features", "test")
    for row in data.samples:
        row.labels[:] = np.nan
    write(tmp_path / "run" / "features", data.samples, data.info)
    shutil.copytree(run / "fuse", tmp_path / "run" / "fuse")
    made = sections(tmp_path / "run", "embeddings", "damage", "clips")
    # The model names other features: those of the run are not taken for the ones it was trained on.
    assert all(is_made(section) for section in made.values())


@pytest.mark.parametrize("rows", [[], [{"model": "x"}], "rows", [None]])
def test_damaged_robustness_file_is_a_line(tmp_path, rows):
    (tmp_path / "robustness.json").write_text(json.dumps({"rows": rows, "shares": [0, 1]}))
    made = sections(tmp_path, "robustness")["robustness"]
    assert is_made(made) and "robustness.json" in made.missing[0] and not made.blocks


@pytest.mark.usefixtures("drawn")
def test_names_cannot_change_the_page(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.random((12, 2))
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$\\frac{1}{0}$", "a" * 5000]
    predictions = labels.copy()
    predictions[:4] += 0.5  # the worst ones
    ids = [*hostile, *(f"c{i}" for i in range(8))]
    path = write_evaluation(tmp_path / "m.json", predictions, labels, ids=ids)
    html = write_report([path], tmp_path / "r.html", sections=["clips"], clips_shown=4).path.read_text()
    assert "<script" not in html and "<img src=x" not in html and "a" * 200 not in html
    assert "&lt;script&gt;" in html and "could not be made" not in html


def test_intervals_are_those_of_the_model(run, monkeypatch):
    inputs = Inputs.of([run])
    monkeypatch.setattr("stage2_fusion.report.sections.clips.COVERAGE", 0.8)  # seven groups allow no more
    model, evaluation = scored_model(inputs), inputs.evaluation
    rows = evaluation.predictions[:3]
    clips = [ScoredClip(name, values, values, 0.0, None) for name, values in zip("abc", rows, strict=True)]
    found = with_intervals(inputs, clips, {"a": None})
    expected = model.calibration.bounds(model.config.scale, rows, 0.8)
    assert np.allclose([each.interval for each in found], np.stack(expected, axis=1))
    monkeypatch.setattr("stage2_fusion.report.sections.clips.COVERAGE", 0.99)
    assert np.isnan([each.interval for each in with_intervals(inputs, clips, {"a": None})]).all()


def test_no_face_of_an_earlier_report_stays(run, tmp_path):
    folder = tmp_path / "r_figures"
    folder.mkdir()
    for name in ("clip-1-time.png", "clip-12-scores.svg", "clip-art.png", "mine-1-time.png"):
        (folder / name).write_text("x")
    write_report([run], tmp_path / "r.html", sections=["clips"], clips_shown=0)
    assert sorted(path.name for path in folder.iterdir()) == ["clip-art.png", "mine-1-time.png"]


def test_pictures_sound_and_words_can_be_left_out(run):
    made = sections(run, "clips", clips_shown=0)["clips"]
    (table,) = made.blocks
    assert len(table.rows) == 9 and any("left out by --clips_shown 0" in line for line in made.missing)


def test_drawing_of_scores_has_the_scale_of_the_labels():
    scale = LabelScale.of(["a", "b"], {"a": [1, 7], "b": [1, 7]})
    one = ScoredClip("c", np.array([0.5, 0]), np.array([1, np.nan]), 0.5, None)
    assert scores_figure("x", one, ["a", "b"], scale).alt.endswith("a 4.00 (7.00), b 1.00 (not labeled).")
