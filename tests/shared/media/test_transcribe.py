"""Transcription: of speech only, cached, and only of clips without a transcript."""

import json
import sys
import types

import numpy as np
import pytest
from helpers.media_files import voice, write_wav

from shared.commands.prepare import main
from shared.dataset.clip import Clip
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media import transcribe
from shared.media.speech import RATE, speech_probability
from shared.media.transcribe import RECOGNIZERS, Segment


class Parrot:
    """Returns the same segments for any sound, as recognizers do for silence; counts its calls."""

    calls = 0

    def __init__(self, path: str = ""):
        self.digest = f"parrot {path}"

    def check(self):
        pass

    def recognize(self, waveform):
        type(self).calls += 1
        if self.digest == "parrot fails":
            raise RuntimeError("out of\nmemory")
        seconds = len(waveform) / RATE
        return [Segment(0, seconds / 2, " So  funny,"), Segment(seconds / 2, seconds, "thank you for watching. ")]


@pytest.fixture(autouse=True)
def parrot(monkeypatch):
    monkeypatch.setitem(RECOGNIZERS.parts, "parrot", "test_transcribe:Parrot")
    monkeypatch.setattr(Parrot, "calls", 0)
    transcribe.load_recognizer.cache_clear()
    return Parrot


def whisper(folder, weights=b"weights"):
    """The files of a model of CTranslate2, without its content."""
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(weights)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")


@pytest.fixture
def speech(monkeypatch):
    """Loud parts of `voice` count as speech, without the network."""

    def loud(samples, rate):
        count = -(-len(samples) // 512)
        padded = np.zeros(count * 512, np.float32)
        padded[: len(samples)] = samples
        return (np.abs(padded.reshape(-1, 512)).mean(axis=1) > 0.005).astype(np.float32)

    monkeypatch.setattr(transcribe, "speech_probability", loud)


def test_silence_and_noise_are_not_transcribed(parrot, tmp_path):
    """With the real network; the recognizer is not called."""
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    for samples in (np.zeros(32000, np.float32), noise, np.zeros(0, np.float32)):
        assert (speech_probability(samples, RATE) < 0.5).all()
        assert transcribe.transcribe(samples, RATE, parrot(), tmp_path) == ("", "nobody speaks")
    assert parrot.calls == 0


def test_segments_without_speech_are_dropped(parrot, speech):
    talk = voice(4.0)
    assert transcribe.transcribe(talk, RATE, parrot()) == ("So funny, thank you for watching.", "")
    talk[32000:] = 0
    assert transcribe.transcribe(talk, RATE, parrot()) == ("So funny,", "")
    assert transcribe.transcribe(np.repeat(talk, 3), 3 * RATE, parrot())[0] == "So funny,"  # at its own rate


def test_transcripts_are_cached(parrot, speech, tmp_path):
    talk = voice(2.0)
    first = transcribe.transcribe(talk, RATE, parrot(), tmp_path)
    assert transcribe.transcribe(talk, RATE, parrot(), tmp_path) == first and parrot.calls == 1
    transcribe.transcribe(talk, RATE, parrot("other weights"), tmp_path)
    transcribe.transcribe(voice(2.0, seed=5), RATE, parrot(), tmp_path)
    assert parrot.calls == 3
    for file in tmp_path.iterdir():
        file.write_text("{")  # a damaged file is written again
    assert transcribe.transcribe(talk, RATE, parrot(), tmp_path) == first and parrot.calls == 4


def test_failed_transcription_is_not_cached(parrot, speech, tmp_path):
    for times in (1, 2):
        text, reason = transcribe.transcribe(voice(2.0), RATE, parrot("fails"), tmp_path)
        assert text == "" and reason == "its sound could not be transcribed (out of memory)" and parrot.calls == times


def test_given_transcript_wins_and_silent_clip_misses_text(parrot, speech, tmp_path):
    recipe = Recipe(transcribe="parrot:weights")
    loud = write_wav(tmp_path / "loud.wav", voice(2.0)[None])
    quiet = write_wav(tmp_path / "quiet.wav", np.zeros((1, 32000)))
    row, verdict = prepare_clip(Clip("a", loud, "my own words"), recipe)
    assert row["transcript"] == "my own words" and parrot.calls == 0
    row, verdict = prepare_clip(Clip("a", loud), recipe)
    assert row["transcript"].startswith("So funny") and "text" not in verdict.missing and row["text_quality"][0] == 1
    row, verdict = prepare_clip(Clip("a", quiet), recipe)
    assert row["transcript"] == "" and "text" in verdict.missing and "no transcript: nobody speaks" in verdict.detail
    assert row["text_quality"][0] == 0


def test_faster_whisper_gets_the_resampled_waveform(monkeypatch, tmp_path, speech):
    """A stand-in with the interface of the package."""
    calls = {}

    class WhisperModel:
        def __init__(self, path, **options):
            calls.update(path=path, **options)

        def transcribe(self, waveform, **options):
            calls.update(shape=waveform.shape, dtype=waveform.dtype, **options)
            parts = ((0.0, 1.0, " One."), (1.0, 2.0, " Two."))
            return (types.SimpleNamespace(start=a, end=b, text=text) for a, b, text in parts), None

    module = types.ModuleType("faster_whisper")
    module.WhisperModel, module.__spec__ = WhisperModel, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    monkeypatch.setitem(sys.modules, "ctranslate2", types.SimpleNamespace(get_cuda_device_count=lambda: 0))
    whisper(tmp_path)
    recognizer = transcribe.load_recognizer(str(tmp_path))
    assert transcribe.transcribe(voice(2.0), RATE, recognizer) == ("One. Two.", "")
    assert calls["path"] == str(tmp_path) and calls["local_files_only"] is True
    assert (calls["device"], calls["compute_type"], calls["cpu_threads"]) == ("cpu", "int8", 1)
    assert calls["shape"] == (32000,) and calls["dtype"] == np.float32


def test_tuned_model_of_the_same_size_is_another_one(tmp_path, monkeypatch):
    """Its transcripts are not those that were kept of the model it began from."""
    monkeypatch.setitem(sys.modules, "faster_whisper", types.SimpleNamespace(__spec__=types.SimpleNamespace()))
    weights = bytearray(1_000_000)
    whisper(tmp_path, weights)
    before = transcribe.FasterWhisper(str(tmp_path)).digest
    assert transcribe.FasterWhisper(str(tmp_path)).digest == before
    weights[300_000:340_000] = bytes(range(250)) * 160
    whisper(tmp_path, weights)
    assert transcribe.FasterWhisper(str(tmp_path)).digest != before


def test_missing_model_or_package_is_an_early_error(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", voice(1.0)[None])
    command = [str(tmp_path / "a.wav"), "--out", str(tmp_path / "out"), "--workers", "1", "--transcribe"]
    with pytest.raises(UserError, match="no Whisper model here"):
        main([*command, str(tmp_path / "nowhere")])
    (tmp_path / "model.bin").write_bytes(b"")
    for name in ("config.json", "tokenizer.json"):
        transcribe.load_recognizer.cache_clear()
        with pytest.raises(UserError, match=rf"{name} of this Whisper model is missing"):
            main([*command, str(tmp_path)])
        (tmp_path / name).write_text("{}")
    transcribe.load_recognizer.cache_clear()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UserError, match=r"pip install 'emit-toolkit\[asr\]'"):
        main([*command, str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_damaged_model_is_an_early_error(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", voice(0.3)[None])

    def damaged(path, **options):
        raise RuntimeError("File model.bin is\nincomplete")

    module = types.ModuleType("faster_whisper")
    module.WhisperModel, module.__spec__ = damaged, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    whisper(tmp_path)
    command = [str(tmp_path / "a.wav"), "--out", str(tmp_path / "out"), "--transcribe", str(tmp_path)]
    with pytest.raises(UserError, match=r"cannot be loaded \(File model.bin is incomplete\)"):
        main(command)
    assert not (tmp_path / "out").exists()


def test_failed_transcriptions_are_counted(parrot, speech, tmp_path, monkeypatch, capsys):
    def run_here(job, items, workers, seconds):
        yield from ((i, job(item), "") for i, item in enumerate(items))

    monkeypatch.setattr("shared.dataset.prepare_dataset.run_jobs", run_here)
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in" / "loud.wav", voice(2.0)[None])
    write_wav(tmp_path / "in" / "quiet.wav", np.zeros((1, 16000)))
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--transcribe", "parrot:fails"]) == 0
    assert "the sound of 1 clip could not be transcribed" in capsys.readouterr().out


def test_prepare_caches_transcripts_beside_the_dataset(tmp_path, monkeypatch):
    """In a worker process, which imports the recognizer by name."""
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in" / "quiet.wav", np.zeros((1, 16000)))
    model = tmp_path / "whisper"
    whisper(model)
    package = tmp_path / "packages" / "faster_whisper.py"
    package.parent.mkdir()
    package.write_text("class WhisperModel:\n    def __init__(self, path, **options):\n        pass\n")
    monkeypatch.syspath_prepend(str(package.parent))
    assert (
        main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1", "--transcribe", str(model)]) == 0
    )
    clips = ClipDataset.open(tmp_path / "out")
    assert clips[0].transcript == "" and clips.info.recipe.transcribe == str(model)
    (kept,) = (tmp_path / "out.transcripts").iterdir()
    assert json.loads(kept.read_text()) == {"text": "", "why": "nobody speaks"}


def test_impossible_transcript_folder_is_an_error(tmp_path):
    write_wav(tmp_path / "a.wav", voice(0.3)[None])
    command = [str(tmp_path / "a.wav"), "--out", str(tmp_path / "out"), "--workers", "1", "--transcribe", "parrot"]
    with pytest.raises(UserError, match=r"a\.wav/kept: cannot be written"):
        main([*command, "--transcripts", str(tmp_path / "a.wav" / "kept")])
