"""`AlignedEncoders` as people use it: similarity, limits, towers of their own, saving and loading."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers.encoder_inputs import RATE, pixels, same, tone
from helpers.media_files import face, voice, write_video, write_wav
from helpers.stage1_tiny import encoders

from shared.errors import UserError
from stage1_align import AlignedEncoders, AudioTower, RawClip
from stage1_align.towers.mel_cnn import MelCnn


def test_similarity_is_the_cosine_of_each_modality_and_their_mean(model, tmp_path):
    prompts = ["strong joy", "no emotion", "dog"]
    video = write_video(tmp_path / "a.mp4", np.stack([face()] * 20), sound=voice(0.8)[None])
    found = model.similarity(video, prompts)
    texts = model.text.encode(prompts).pooled  # (3, D)
    vision, audio = model.vision.encode(video).pooled[0], model.audio.encode(video).pooled[0]
    assert list(found) == ["vision", "audio", "mean"]
    torch.testing.assert_close(found["vision"], texts @ vision)
    torch.testing.assert_close(found["audio"], texts @ audio)
    torch.testing.assert_close(found["mean"], (texts @ vision + texts @ audio) / 2)
    frames, waveform = pixels(3, 40, 40, 3), voice(1.0)
    found = model.similarity(RawClip(frames, waveform, RATE, "strong joy"), prompts)
    torch.testing.assert_close(found["audio"], texts @ model.audio.encode(waveform, RATE).pooled[0])
    assert found["text"][0] == pytest.approx(1, abs=1e-5)
    assert set(model.similarity((frames, None, None, ""), "dog")) == {"vision", "mean"}
    sound = write_wav(tmp_path / "a.wav", voice(1.0)[None])
    assert set(model.similarity(sound, prompts)) == {"audio", "mean"}


def test_similarity_refuses_what_it_cannot_compare(model):
    for clip, prompts, message in [
        (RawClip(), ["dog"], "has none of the modalities"),
        (RawClip(text="dog"), ["dog", "日本"], "the prompt '日本' has no character"),
        (RawClip(text=["dog", "sad"]), ["dog"], "got 2 clips for text"),
        (3, ["dog"], "similarity: got int: a clip is"),
        ((1, 2, 3, 4, 5), ["dog"], "a clip is a path or the tuple"),
    ]:
        with pytest.raises(UserError, match=message):
            model.similarity(clip, prompts)
    without_text = AlignedEncoders(vision=model.vision, embed_dim=8)
    with pytest.raises(UserError, match="no text tower"):
        without_text.similarity(pixels(40, 40, 3), ["dog"])


def test_importing_the_package_does_not_import_torch():
    code = "import sys, stage1_align; print('torch' in sys.modules, 'AlignedEncoders' in dir(stage1_align))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"], result.stderr
    with pytest.raises(ImportError):
        from stage1_align import Nothing  # noqa: F401


def test_a_script_without_a_main_guard_runs_and_prints_nothing_of_its_own(model, tmp_path):
    model.save_pretrained(tmp_path / "encoders")
    video = write_video(tmp_path / "a.mp4", np.stack([face()] * 20), sound=voice(0.8)[None])
    script = tmp_path / "script.py"
    script.write_text(f"""
from stage1_align import AlignedEncoders
encoders = AlignedEncoders.from_pretrained({str(tmp_path / "encoders")!r})
shapes = [encoders.vision.encode({str(video)!r}), encoders.audio.encode({str(video)!r}), encoders.text.encode("dog")]
print([tuple(one.pooled.shape) for one in shapes])
""")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[(1, 8), (1, 8), (1, 8)]\n", "")


def test_encoding_and_building_leave_the_warning_filters_alone(model):
    before = list(warnings.filters)
    encoders()
    model.text.encode("dog")
    assert warnings.filters == before


@pytest.mark.parametrize(
    "modality, words",
    [
        ("vision", ("(T, H, W, C)", "(T, C, H, W)", "float in [0, 1]", "alpha", "crop_faces", "None")),
        ("audio", ("(S,)", "(S, channels)", "int16", "[-1, 1]", "rate=44100", "None")),
        ("text", ("None", "context_length", "truncated")),
    ],
)
def test_help_shows_shapes_ranges_and_an_example(model, modality, words):
    text = getattr(model, modality).encode.__doc__
    for word in (*words, "(B, D)", "(B, T, C)", "mask bool (B, T)", f">>> encoders.{modality}.encode(", "UserError"):
        assert word in text


class QuietTower(MelCnn):
    """A user's own tower: half as loud."""

    def collate(self, items):
        return super().collate([0.5 * item for item in items])


def test_a_user_tower_is_named_by_import_path_and_comes_back(tmp_path):
    path = f"{__name__}:QuietTower"
    options = {"n_fft": 512, "mel_bins": 16, "channels": [8, 8], "width": 8, "center": False}
    built = AlignedEncoders.build({"audio": {"name": path, "options": options}}, 8).eval()
    assert isinstance(built.audio, AudioTower)
    built.save_pretrained(tmp_path / "encoders")
    loaded = AlignedEncoders.from_pretrained(tmp_path / "encoders")
    same(loaded.audio.encode(tone(RATE), RATE), built.audio.encode(tone(RATE), RATE))
    plain = AlignedEncoders.build({"audio": {"name": "mel_cnn", "options": options}}, 8).eval()
    plain.load_state_dict(built.state_dict())
    same(plain.audio.encode(tone(RATE) / 2, RATE), built.audio.encode(tone(RATE), RATE))
    for name, message in (
        ("os:system", "it must be a subclass of stage1_align.AudioTower"),
        ("stage1_align.towers.vision_open_clip:OpenClipVision", "must be a subclass of stage1_align.AudioTower"),
        ("no_such_package:Tower", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=message):
            AlignedEncoders.build({"audio": {"name": name}}, 8)


def test_only_takes_one_name_too(model, tmp_path):
    model.save_pretrained(tmp_path / "encoders")
    assert list(AlignedEncoders.from_pretrained(tmp_path / "encoders", only="audio").towers()) == ["audio"]


@pytest.mark.parametrize("name, values", [("audio", ("max_seconds",)), ("vision", ("max_seconds", "frame_rate"))])
@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "8", None, True])
def test_limits_without_meaning_are_refused_before_a_file_is_read(model, name, values, wrong):
    for value in values:
        with pytest.raises(UserError, match=rf"{name}\.encode: {value} is {wrong!r}; give a finite number above 0"):
            getattr(model, name).encode("nowhere.mp4", **{value: wrong})


@pytest.mark.parametrize("prompts", [None, 3, b"dog"])
def test_prompts_that_are_no_texts_are_refused(model, prompts):
    with pytest.raises(UserError, match=r"similarity: got .*: prompts are a text or a list of texts"):
        model.similarity(RawClip(text="dog"), prompts)


@pytest.mark.parametrize("source", [None, 3, b"encoders", ["encoders"], "a\0b"])
def test_source_that_is_no_folder_is_refused(source):
    with pytest.raises(UserError, match=r"give a folder|no exported encoders here"):
        AlignedEncoders.from_pretrained(source)


@pytest.mark.parametrize("content", ["null", "[1]", '{"format": "emit-encoders/2", "towers": [1]'])
def test_damaged_config_is_named(model, tmp_path, content):
    model.save_pretrained(tmp_path / "encoders")
    (tmp_path / "encoders" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        AlignedEncoders.from_pretrained(tmp_path / "encoders")


@pytest.mark.parametrize("own", [{"format": "emit-fusion/3"}, None])
@pytest.mark.parametrize("place", ["encoders", "model/encoders"])
def test_encoders_in_a_fusion_model_are_pointed_to(model, tmp_path, own, place):
    """The folder of a model, or of the run that trained it, in place of the encoders within."""
    model.save_pretrained(tmp_path / place)
    if own is not None:
        (tmp_path / "config.json").write_text(json.dumps(own))
        (tmp_path / "model.safetensors").write_bytes(b"weights of a fusion model")
    with pytest.raises(UserError, match=rf"no exported encoders here; give .*{place}$"):
        AlignedEncoders.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "outer")
    model.save_pretrained(tmp_path / "outer" / "encoders")
    assert AlignedEncoders.from_pretrained(tmp_path / "outer").towers().keys() == model.towers().keys()


def test_saving_deletes_nothing_but_what_was_saved(model, tmp_path):
    mine, file = tmp_path / "mine", tmp_path / "notes.txt"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    file.write_text("notes")
    for folder, words in ((mine, "holds other files"), (file, "is a file"), ("", "give the name"), (None, "give the")):
        with pytest.raises(UserError, match=words):
            model.save_pretrained(folder)
    assert (mine / "thesis.txt").read_text() == "years of work" and file.read_text() == "notes"
    for _ in range(2):
        model.save_pretrained(tmp_path / "encoders")
