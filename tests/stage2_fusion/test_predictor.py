"""Predictor: the numbers of `emit predict` in one process, from files and from arrays."""

import csv
import dataclasses
import multiprocessing
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import stage1_tiny, synthetic_features
from helpers.media_files import clock, decode_every_frame, face, voice, write_video
from helpers.saved_folders import edit

from shared.commands.prepare import main as prepare
from shared.errors import UserError
from shared.media.decode import decode
from stage2_fusion import ClipArrays, FeatureDataset, FusionModel, Predictor
from stage2_fusion.commands.encode import EncodeConfig, encode
from stage2_fusion.commands.predict import PredictConfig, predict
from stage2_fusion.models.base import FeatureSpec
from stage2_fusion.models.model_config import FusionConfig, TrainedOn
from stage2_fusion.predictor import SyntheticModelWarning


@pytest.fixture(scope="module")
def model_folder(clips, tmp_path_factory):
    """An untrained model on tiny encoders."""
    folder = tmp_path_factory.mktemp("predictor")
    stage1_tiny.encoders().save_pretrained(folder / "encoders", {"data": "nothing"})
    settings = {"damaged_views": 0, "mixed_precision": "no"}
    encode(EncodeConfig(data=clips, out=folder / "features", encoders=folder / "encoders", **settings))
    features = FeatureDataset.open(folder / "features")
    assert features.info.data.synthetic  # the corpus is drawn
    options = synthetic_features.SMALL["dual_stage"]
    config = FusionConfig.from_features(features.info, model="dual_stage", options=options, max_sequence_steps=128)
    model = FusionModel.build("dual_stage", options, FeatureSpec.of(features.info))
    model.fit_statistics(features.samples)
    model.save_pretrained(folder / "model", config)
    return folder / "model"


@pytest.fixture(scope="module")
def predictor(model_folder):
    return Predictor.from_pretrained(model_folder, device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A clip of 3.2 seconds without a face, with a transcript beside it."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    times = np.arange(80) / 25
    write_video(path, clock(times), times, voice(3.2)[None])
    path.with_suffix(".txt").write_text("no emotion at all today")
    return path


def media_files(corpus, count):
    return sorted(path for path in (corpus / "clips").iterdir() if path.suffix != ".txt")[:count]


def test_predictions_equal_those_of_the_command(predictor, model_folder, corpus, tmp_path, capfd):
    paths = media_files(corpus, 6)
    out = tmp_path / "predictions.csv"
    predict(PredictConfig(clips=[str(path) for path in paths], model=model_folder, out=out))
    with out.open() as file:
        rows = {row.pop("Filename"): row for row in csv.DictReader(file)}
    capfd.readouterr()
    results = predictor.predict(paths, batch_size=4)
    assert capfd.readouterr() == ("", "") and not multiprocessing.active_children()
    for path, result in zip(paths, results, strict=True):
        assert result.id == str(path) and result.error is None
        for name, value in result.intensities.items():
            assert value == pytest.approx(float(rows[path.name][name]), abs=1e-6)
            assert predictor(path).intensities[name] == pytest.approx(value, abs=1e-6)


def test_arrays_give_the_numbers_of_the_file(predictor, video):
    expected = predictor(video)
    media = decode(video, 25.0, 100.0)
    frames, times = decode_every_frame(video)
    arrays = {"frames": frames, "frame_times": times, "waveform": media.waveform, "rate": media.sample_rate}
    arrays["text"] = "no emotion at all today"
    for result in (predictor(**arrays), predictor(ClipArrays(**arrays)), predictor([ClipArrays(**arrays)])[0]):
        assert result.intensities == pytest.approx(expected.intensities, abs=1e-6)
        np.testing.assert_allclose(result.weights.weights, expected.weights.weights, atol=1e-6)
        assert result.transcript == expected.transcript == "no emotion at all today"


def test_repairs_are_in_the_result_also_of_windows(predictor, tmp_path):
    path = write_video(tmp_path / "one.ts", clock(np.arange(50) / 25), sound=voice(2.0)[None])
    path.write_bytes(path.read_bytes() * 2)
    joined = "time stamps start again in 1 place: the parts of the recording follow each other"
    for remarks in (predictor(path).remarks, predictor.predict([path], window=1.0)[0].remarks):
        assert joined in remarks and "no face found; using a center crop" in remarks
    (silent,) = predictor([ClipArrays(frames=clock(np.arange(50) / 25), frame_rate=25)])
    assert any(line.startswith("no audio") for line in silent.remarks)


def test_missing_modalities_are_masked(predictor, video):
    result = predictor(text="strong joy")
    assert [result.found[name].present for name in ("vision", "audio", "text")] == [False, False, True]
    assert not result.weights.weights[:, :2].any() and result.found["audio"].quality == {}
    silent = predictor(frames=decode_every_frame(video)[0], frame_rate=25)
    assert [silent.found[name].present for name in ("vision", "audio", "text")] == [True, False, False]
    assert silent.found["vision"].quality["face_found"] == 0.0
    heard = predictor(waveform=voice(2.0), rate=16000)
    assert 0 <= heard.found["audio"].quality["speech"] <= 1 and not heard.weights.weights[:, [0, 2]].any()


def test_text_of_the_caller_replaces_the_file_beside_the_clip(predictor, video):
    assert predictor(video, text="strong joy").transcript == "strong joy"


def test_long_clip_gets_a_timeline(predictor, video):
    result = predictor.predict(video, window=1.5)
    np.testing.assert_allclose(result.timeline.times, [[0, 1.5], [1.5, 3], [3, 3.2]], atol=0.05)
    assert result.timeline.values.shape == (3, 6) and len(result.weights.times) == len(result.weights.weights)
    assert (np.diff(result.weights.times) > 0).all() and result.weights.times[-1] < 3.3
    assert result.weights.attention.shape == (6, len(result.weights.times))
    lengths = np.diff(result.timeline.times, axis=1)[:, 0]
    mean = np.average(result.timeline.values, axis=0, weights=lengths)
    np.testing.assert_allclose(list(result.intensities.values()), mean, atol=1e-6)


def test_unreadable_file_raises_alone_and_is_marked_in_a_list(predictor, video, tmp_path):
    broken, words = tmp_path / "broken.mp4", tmp_path / "words.mp4"
    broken.write_bytes(b"no film")
    words.write_bytes(b"no film")
    words.with_suffix(".txt").write_text("strong joy")
    with pytest.raises(UserError, match=r"broken\.mp4: not a readable media file"):
        predictor(broken)
    with pytest.raises(UserError, match=r"nowhere\.mp4: no such file"):
        predictor("nowhere.mp4")
    first, second, third, fourth = predictor([broken, video, words, ClipArrays()])
    assert "not a readable media file" in first.error and first.intensities == {} and first.timeline is None
    assert second.error is None and second.intensities == pytest.approx(predictor(video).intensities, abs=1e-5)
    assert third.incomplete.startswith("predicted by its words alone") and third.intensities
    assert "neither frames nor sound nor text" in fourth.error
    with pytest.raises(UserError, match=r"the text '\.\.\.' has no letter, digit or symbol"):
        predictor(text="...")
    assert predictor([]) == []


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((), {}, "nothing to predict"),
        ((7,), {}, "a clip is int; expected the path of a media file"),
        (("a.mp4",), {"rate": 16000}, "give either a file or arrays"),
        ((["a.mp4"],), {"text": "a"}, "put arrays into the list as ClipArrays"),
        ((["a.mp4", None],), {}, "a clip is NoneType"),
        (("a.mp4",), {"batch_size": 0}, "batch_size is 0"),
        (("a.mp4",), {"window": -1.0}, "window is -1.0: expected a number from 0.1"),
        ((), {"frames": np.zeros((2, 5, 8, 8), np.uint8), "frame_rate": 25}, "no axis can be the channels"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_arguments_without_meaning_are_refused(predictor, arguments, options, words):
    with pytest.raises(UserError, match=words):
        predictor.predict(*arguments, **options)


def test_folder_is_refused_with_advice(predictor, tmp_path):
    with pytest.raises(UserError, match="is a folder; give a media file, or a list of them"):
        predictor(tmp_path)


def test_unknown_device_is_one_line(model_folder):
    with pytest.raises(UserError, match="device tpuu: "):
        Predictor.from_pretrained(model_folder, device="tpuu")


def test_missing_and_other_encoders_are_named(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("encoders"))
    with pytest.raises(UserError, match="no encoders here; give --encoders"):
        Predictor.from_pretrained(tmp_path / "model")
    stage1_tiny.encoders(seed=1).save_pretrained(tmp_path / "other", {})
    with pytest.raises(UserError, match="give --encoders with those"):
        Predictor.from_pretrained(tmp_path / "model", encoders=tmp_path / "other")
    with pytest.raises(UserError, match="reads no action units"):
        Predictor.from_pretrained(model_folder, blendshapes=tmp_path)


def test_quality_signals_in_another_order_are_refused(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    names = FusionModel.from_pretrained(folder).config.quality["vision"]
    edit(folder, "quality", "vision", value=names[::-1])
    with pytest.raises(UserError, match="quality signals of another version"):
        Predictor.from_pretrained(folder)


def test_model_of_synthetic_faces_warns_before_it_scores(model_folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Predictor.from_pretrained(model_folder)
    model = FusionModel.from_pretrained(model_folder)
    model.save_pretrained(tmp_path, dataclasses.replace(model.config, trained_on=TrainedOn(synthetic=True)))
    with pytest.warns(SyntheticModelWarning, match="synthetic drawn faces"):
        Predictor.from_pretrained(tmp_path)
    assert "never met a person" in (tmp_path / "README.md").read_text()


def test_script_without_a_main_guard_predicts(model_folder, video, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from stage2_fusion import Predictor\n"
        f"print(sum(Predictor.from_pretrained({str(model_folder)!r})({str(video)!r}).intensities.values()) > 0)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n" and done.stderr == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": np.inf}, "window is inf: expected a number from 0.1"),
        ({"window": 0.001}, "window is 0.001"),
        ({"window": True}, "window is True"),
        ({"window": "5"}, "window is '5'"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"batch_size": "4"}, "batch_size is '4'"),
        ({"batch_size": None}, "batch_size is None"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(predictor, options, words):
    with pytest.raises(UserError, match=words):
        predictor.predict(text="strong joy", **options)


@pytest.mark.parametrize("options", [{"encoders": 3}, {"blendshapes": [1]}, {"window": 1e-9}])
def test_places_and_settings_of_the_wrong_kind_are_refused_when_it_is_loaded(predictor, options):
    (name,) = options
    with pytest.raises(UserError, match=f"^{name} is "):
        Predictor.from_pretrained(predictor.model.folder, **options)


def test_times_that_are_not_seconds_of_the_clip_are_refused(predictor):
    frames = np.zeros((20, 60, 60, 3), np.uint8)
    steps = np.arange(20)
    for wrong in (steps * 40.0, 1.7e9 + steps / 25, steps * 1e6):  # milliseconds, Unix time, nanoseconds
        with pytest.raises(UserError, match="give seconds from the start of the clip"):
            predictor(frames=frames, frame_times=wrong)
    with pytest.raises(UserError, match="frame_rate is 1e-09"):
        predictor(frames=frames, frame_rate=1e-9)


def test_words_of_unknown_characters_are_no_words(predictor, video):
    with pytest.raises(UserError, match="neither picture, sound nor words could be used"):
        predictor(text="日本語")
    result = predictor(video, text="日本語")
    assert not result.found["text"].present and not result.weights.weights[:, 2].any()
    assert result.intensities == pytest.approx(predictor(video, text="").intensities, abs=1e-6)
    with pytest.raises(UserError, match=r"text: got str .*not valid Unicode"):
        predictor(text="so funny \ud83d")


def test_name_that_is_too_long_is_no_such_file(predictor):
    with pytest.raises(UserError, match="no such file"):
        predictor("x" * 300)


@pytest.mark.parametrize("source", [None, 3, b"model", "a\0b"])
def test_model_source_that_is_no_folder_is_refused(source):
    with pytest.raises(UserError, match=r"give a folder|no fusion model here"):
        FusionModel.from_pretrained(source)


def test_threads_give_the_same_numbers(predictor, tmp_path):
    faces = np.stack([face(x=100 + i % 30) for i in range(50)])
    path = write_video(tmp_path / "face.mp4", faces)
    expected = predictor(path)
    assert expected.found["vision"].quality["face_found"] == 1
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(predictor, [path] * 12))
    for result in results:
        assert result.intensities == pytest.approx(expected.intensities, abs=1e-6)


def test_a_script_from_another_folder_runs_with_warnings_as_errors_and_prints_nothing(model_folder, video, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"""
import warnings
from stage2_fusion import Predictor
from stage2_fusion.predictor import SyntheticModelWarning
warnings.simplefilter("error")
warnings.simplefilter("ignore", SyntheticModelWarning)
for _ in range(2):
    Predictor.from_pretrained({str(model_folder)!r})({str(video)!r})
""")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_words_are_read_to_their_end_and_unknown_ones_are_left_out(predictor):
    start = "the dog " * 20
    long, same, other, unknown = predictor(
        [ClipArrays(text=text) for text in (start, start, start + "that is so funny", "Привет, мир!")]
    )
    assert long.intensities == pytest.approx(same.intensities, abs=1e-6)
    assert long.intensities != pytest.approx(other.intensities, abs=1e-5)
    assert unknown.error and not unknown.intensities
    arrays = {"frames": np.zeros((8, 64, 64, 3), np.uint8), "frame_rate": 4}
    with_words, without = predictor(text="Привет, мир!", **arrays), predictor(**arrays)
    assert "its words are left out" in with_words.incomplete and without.incomplete is None
    assert with_words.intensities == pytest.approx(without.intensities, abs=1e-6)


def test_encode_says_which_words_are_unknown_or_read_in_windows(model_folder, tmp_path, capsys):
    texts = {"a": "so funny", "b": "Привет, мир!", "c": "the dog " * 20 + "funny", "d": "the dog " * 20 + "sad"}
    (tmp_path / "labels.csv").write_text("\n".join(["file,text", *(f'{name}.mp4,"{texts[name]}"' for name in texts)]))
    prepare([str(tmp_path / "labels.csv"), "--out", str(tmp_path / "clips"), "--workers", "1"])
    capsys.readouterr()
    settings = {"damaged_views": 0, "mixed_precision": "no", "workers": 0}
    encoders = model_folder.parent / "encoders"
    encode(EncodeConfig(data=tmp_path / "clips", out=tmp_path / "features", encoders=encoders, **settings))
    out = capsys.readouterr().out
    assert "1 of 4 texts count as missing, such as 'b'" in out
    assert "2 of 4 texts are longer than context_length 16, such as 'c', 'd'" in out and "read in windows" in out
    samples = {sample.id: sample.text for sample in FeatureDataset.open(tmp_path / "features").samples}
    assert samples["b"].steps == 0 and samples["c"].steps > 16
    assert np.abs(samples["c"].pooled.astype(float) - samples["d"].pooled).max() > 1e-3


def test_predictions_are_on_the_scale_of_the_training_labels(model_folder, predictor, video, tmp_path):
    """Joy from 1 to 7, the others in [0, 1]: in Python and in the files of `emit predict`."""
    model = FusionModel.from_pretrained(model_folder)
    config = dataclasses.replace(model.config, label_ranges={"Joy": [1.0, 7.0]})
    model.save_pretrained(tmp_path / "model", config)
    one, own = predictor(video), Predictor.from_pretrained(tmp_path / "model", device="cpu")(video)
    expected = one.intensities | {"Joy": 1 + 6 * one.intensities["Joy"]}
    assert own.intensities == pytest.approx(expected, abs=1e-5) and own.intensities["Joy"] > 1
    joy = list(one.intensities).index("Joy")
    np.testing.assert_allclose(own.timeline.values[:, joy], 1 + 6 * one.timeline.values[:, joy], atol=1e-5)
    predict(PredictConfig(clips=[str(video)], model=tmp_path / "model", out=tmp_path / "p.csv"))
    for name in ("p.csv", "p_timeline.csv"):
        with (tmp_path / name).open(newline="") as file:
            row = next(csv.DictReader(file))
        assert float(row["Joy"]) == pytest.approx(own.intensities["Joy"], abs=1e-4)
        assert float(row["Amusement"]) == pytest.approx(one.intensities["Amusement"], abs=1e-4)
