"""Models of features that another tool made: what they remember of it, and what they say about other clips."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import yaml
from helpers import stage1_tiny, synthetic_features, tool_files
from helpers.commands import emit

from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from stage2_fusion import Predictor
from stage2_fusion.data.batches import collate
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.report.repeat import external_options

SMALL = ["--train.epochs", 1, "--train.batch_size", 8]


@pytest.fixture(scope="module")
def made(clips, tmp_path_factory):
    """A folder with OpenFace's features of most clips, encoders, features of both together, and a model."""
    folder, rng = tmp_path_factory.mktemp("tools"), np.random.default_rng(0)
    data = ClipDataset.open(clips)
    for row, name in enumerate(data.column("id")):
        if row % 10:
            tool_files.openface(folder / "openface" / f"{name}.csv", 6 + row % 5, rng)
    stage1_tiny.encoders().save_pretrained(folder / "encoders", {"data": "nothing"})
    words = ["--external", f"vision={folder / 'openface'}", "--data", clips, "--damaged_views", 2]
    assert emit("encode", *words, "--encoders", folder / "encoders", "--out", folder / "features") == 0
    assert emit("fuse", *SMALL, "--data", folder / "features", "--run", folder / "fuse") == 0
    return folder


def test_other_modalities_come_from_the_encoders_and_views_lack_what_is_given(made, clips):
    data, prepared = FeatureDataset.open(made / "features"), ClipDataset.open(clips)
    assert data.info.encoders.given == ["vision"] and data.info.encoders.aligned
    assert data.info.widths == {"vision": 49, "audio": 16, "text": 16, "embed": 8}
    encoders = stage1_tiny.encoders()
    kinds: dict[str, set[str]] = {"vision": set(), "audio": set(), "text": set()}
    for row, views in enumerate(data.by_clip()):
        clean = views[0]
        assert bool(clean.vision.steps) == bool(row % 10)
        sound = prepared.waveform(row, 16000)
        expected = encoders.audio.encode_prepared([sound]) if len(sound) else None
        assert clean.audio.steps == (int(expected.mask.sum()) if expected is not None else 0)
        if expected is not None and row < 4:
            np.testing.assert_allclose(clean.audio.sequence, expected.sequence[0][expected.mask[0]].detach(), atol=0.01)
        for view in (views[1], views[2]):
            for name, kind in view.damage.items():
                kinds[name] |= {kind} - {""}
                if kind == "missing":
                    assert not view.modality(name).steps and not view.modality(name).pooled.any()
                elif not kind:
                    np.testing.assert_array_equal(view.modality(name).sequence, clean.modality(name).sequence)
    assert kinds["vision"] == kinds["text"] == {"missing"} and len(kinds["audio"]) > 1


def test_model_says_which_tool_it_needs_and_how_to_make_its_features(made, corpus, tmp_path):
    home = made / "fuse" / "model"
    model = FusionModel.from_pretrained(home)
    tool = model.config.encoders.external["vision"]
    assert tool.title == "OpenFace" and tool.columns == tool_files.OPENFACE and tool.signals == ["confidence"]
    card = (home / "README.md").read_text()
    assert "features of OpenFace (vision)" in " ".join(card.split()) and "AU12_r" in card
    assert (home / "encoders" / "config.json").is_file()  # for audio and text of other clips
    video = next(path for path in sorted((corpus / "clips").iterdir()) if path.suffix == ".mp4")
    with pytest.raises(UserError) as caught:
        emit("predict", "--model", home, video, "--out", tmp_path / "p.csv")
    said = str(caught.value)
    assert "\n" not in said and not (tmp_path / "p.csv").exists()
    assert "vision features of OpenFace (49 channels, gaze_0_x, gaze_0_y, gaze_0_z and 46 more)" in said
    assert "`FeatureExtraction -f clip.mp4 -out_dir openface`" in said
    assert "`emit encode --external vision=openface --encoders MODEL/encoders --data CLIPS --out FEATURES`" in said
    assert f"`emit predict --data FEATURES --model {home}`" in said
    with pytest.raises(UserError, match="OpenFace"):
        Predictor.from_pretrained(home)


def test_what_it_says_can_be_done(made, corpus, clips, tmp_path):
    """Features of other files of the same tool are predicted; those of other columns are refused with the way out."""
    rng, home = np.random.default_rng(1), made / "fuse" / "model"
    for name in ClipDataset.open(clips).column("id")[:5]:
        tool_files.openface(tmp_path / "openface" / f"{name}.csv", 4, rng)
    words = ["--external", f"vision={tmp_path / 'openface'}", "--encoders", home / "encoders", "--data", clips]
    assert emit("encode", *words, "--damaged_views", 0, "--out", tmp_path / "new") == 0
    assert emit("predict", "--data", tmp_path / "new", "--model", home, "--out", tmp_path / "p.csv") == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 41
    fewer = ["--external_columns", "{vision: [AU*_r]}", "--damaged_views", 0]
    assert emit("encode", *words, *fewer, "--out", tmp_path / "fewer") == 0
    with pytest.raises(UserError) as caught:
        emit("predict", "--data", tmp_path / "fewer", "--model", home, "--out", tmp_path / "q.csv")
    said = str(caught.value)
    assert "vision features of OpenFace (17 channels, AU01_r" in said
    assert "run `emit encode` with --external_columns '{vision: [gaze_0_x, gaze_0_y" in said
    again = shlex.split(said[said.index("--external_columns") : said.rindex("'") + 1])
    assert emit("encode", *words, *again, "--damaged_views", 0, "--out", tmp_path / "again") == 0
    assert emit("predict", "--data", tmp_path / "again", "--model", home, "--out", tmp_path / "r.csv") == 0
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()


def test_report_and_page_of_such_a_model(made, tmp_path):
    assert emit("report", made / "fuse", "--out", tmp_path / "report.html", "--clips_shown", 0) == 0
    text = (tmp_path / "report.html").read_text()
    assert "vision of OpenFace (49 channels, gaze_0_x, gaze_0_y, gaze_0_z and 46 more)" in text
    with pytest.raises(UserError, match="vision features of OpenFace") as caught:
        emit("serve", "--model", made / "fuse" / "model")
    assert "\n" not in str(caught.value)


def test_names_that_a_shell_or_yaml_would_change_are_quoted(made):
    """mfcc_sma[1], as openSMILE calls it, and y, which YAML takes for yes."""
    config = FusionModel.from_pretrained(made / "fuse" / "model").config
    info = FeatureDataset.open(made / "features").info
    columns = ["mfcc_sma[1]", "y", "AU01_r", "null"]
    tool = dataclasses.replace(config.encoders.external["vision"], columns=columns)
    encoders = dataclasses.replace(config.encoders, external={"vision": tool}, digest="other")
    with pytest.raises(UserError) as caught:
        dataclasses.replace(config, encoders=encoders).check_inputs(info, made)
    said = str(caught.value)
    _, option = shlex.split(said[said.index("--external_columns") :])
    assert yaml.safe_load(option) == {"vision": columns} and "AU01_r," in option


def test_report_repeats_how_the_files_were_read(made, clips, tmp_path):
    words = ["--external", f"vision=openface:{made / 'openface'}", "--data", clips, "--damaged_views", 0]
    asked = {"external_columns": {"vision": ["AU*_r"]}, "external_made_by": {"vision": "OpenFace, on a cluster"}}
    asked_words = [word for option, value in asked.items() for word in (f"--{option}", json.dumps(value))]
    assert emit("encode", *words, *asked_words, "--out", tmp_path / "features") == 0
    external = read_info(tmp_path / "features").external
    again = external_options(external)
    assert emit("encode", *again, *words[2:], "--out", tmp_path / "again") == 0
    assert read_info(tmp_path / "again").digest == read_info(tmp_path / "features").digest
    assert read_info(tmp_path / "again").external == external


def test_given_features_cannot_train_a_tower_along(made, tmp_path):
    words = [*SMALL, "--data", made / "features", "--run", tmp_path / "run", "--finetune", "{text: 1}"]
    with pytest.raises(UserError, match="its features of vision are given, not computed by encoders"):
        emit("fuse", *words)


def test_features_are_up_to_date_only_with_the_same_files(made, clips, tmp_path, capsys):
    words = ["--data", clips, "--damaged_views", 2, "--encoders", made / "encoders", "--out", made / "features"]
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in (made / "openface").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert emit("encode", *words, "--external", f"vision={copy}") == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="made with other external_made_by"):
        emit("encode", *words, "--external", f"vision={copy}", "--external_made_by", "{vision: by me}")
    path = next(iter(sorted(copy.glob("*.csv"))))
    path.write_text(path.read_text().replace("0.", "1.", 40))
    with pytest.raises(UserError, match="made with other external features"):
        emit("encode", *words, "--external", f"vision={copy}")


def test_channels_of_any_unit_reach_the_model_at_one_scale():
    """Energies of 1e-6 and variances of 1e7 vary by one standard deviation; a constant channel stays at zero."""
    samples = synthetic_features.samples({"train": 40})
    units = np.array([1e-6, 1e7, 1.0, 1e-4, 0.0, 3.0], np.float32)
    for sample in samples:
        sequence = sample.audio.sequence.astype(np.float32) * units + 2 * units
        sample.audio = dataclasses.replace(sample.audio, sequence=sequence)
    values = np.concatenate([sample.audio.sequence for sample in samples]).astype(np.float64)
    info = synthetic_features.info()
    model = FusionModel.build("concat", {}, FeatureSpec.of(info))
    model.fit_statistics(samples)
    x = model.eval().inputs(collate(samples))["audio"]
    seen = x.x[x.mask].double().numpy()
    assert np.abs(seen[:, 4]).max() < 1e-3
    for channel in (0, 1, 2, 3, 5):
        expected = (values[:, channel] - values[:, channel].mean()) / values[:, channel].std()
        np.testing.assert_allclose(seen[:, channel], expected.clip(-10, 10), atol=1e-3)
