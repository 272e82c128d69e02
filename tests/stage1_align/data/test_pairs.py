"""Training batches: their content, and that it is the same at any number of workers and processes."""

import copy
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.stage1_corpora import RATE, png, wav, write_shard, write_shards, write_sounds
from helpers.stage1_tiny import encoders as tiny_encoders

from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from stage1_align.config import LossConfig, PairConfig, SourceConfig
from stage1_align.data.captions import TextAnnotations, draw_text, text_key
from stage1_align.data.mixture import SampleIndex
from stage1_align.data.pairs import PairData, Pairs
from stage1_align.evaluation.retrieval import embed, retrieval
from stage1_align.model import ContrastiveModel


@pytest.fixture(scope="module")
def encoders():
    return tiny_encoders()


@pytest.fixture
def mixed(clips, tmp_path) -> PairConfig:
    """Clips of faces, pictures without sound, and sound without pictures."""
    sources = [
        SourceConfig("clips", str(clips), weight=2),
        SourceConfig("webdataset", str(write_shards(tmp_path / "w", 2, 10)), valid_split=""),
        SourceConfig("csv", str(write_sounds(tmp_path / "s", 5)), valid_split=""),
    ]
    return PairConfig(sources, samples_per_epoch=32, frames=2, captions=["labels", "caption"])


def batches(data, encoders, first=0, rank=0, world=1, workers=0, epoch=1):
    return list(data.loader(epoch, first, rank, world, encoders, workers))


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0))


def test_batches_do_not_depend_on_workers_or_resumption(mixed, encoders):
    data = PairData(mixed, 8, seed=0)
    whole = batches(data, encoders)
    assert len(whole) == data.steps_per_epoch == len(data.loader(1, 0, 0, 1, encoders)) == 4
    assert same(whole, batches(data, encoders, workers=2))
    again = PairData(mixed, 8, seed=0)
    assert again.digest == data.digest
    assert same(whole[3:], batches(again, encoders, first=3, workers=1))
    assert not same(whole, batches(data, encoders, epoch=2))
    assert not data.damage.count


def test_two_processes_hold_the_two_halves_of_a_batch(mixed, encoders):
    data = PairData(mixed, 8, seed=0)
    whole = batches(data, encoders)
    halves = [batches(data, encoders, rank=rank, world=2) for rank in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(one.text_id, torch.cat([first.text_id, second.text_id], 1))
        for modality, name in (("audio", "samples"), ("vision", "frames")):
            parts = [half.inputs[modality][name] for half in (first, second)]
            assert torch.equal(one.inputs[modality][name], torch.cat(parts))


def test_missing_modality_is_masked_and_missing_labels_are_nan(mixed, encoders):
    data = PairData(mixed, 32, seed=0)
    batch = batches(data, encoders)[0]
    source, _ = data.mixture.composition(1, 0)
    has_picture, has_sound = batch.inputs["vision"]["mask"].any(1).numpy(), batch.inputs["audio"]["samples"].numpy() > 0
    assert has_picture[source == 1].all() and not has_sound[source == 1].any()
    assert has_sound[source == 2].all() and not has_picture[source == 2].any()
    encoded = encoders.text(**batch.inputs["text"]).mask.any(1).view(2, 32).numpy()  # (n, b)
    assert not encoded[0][source > 0].any() and encoded[1].tolist() == (source > 0).tolist()
    labels = batch.labels
    assert labels.shape == (32, len(data.label_names)) and labels.dtype == torch.float32
    assert labels[source > 0].isnan().all() and not labels[source == 0].isnan().all()


def test_labels_of_two_sources_are_merged_by_name(tmp_path, encoders):
    sources = []
    for name, header in (("a", "joy,awe"), ("b", "awe,fear")):
        table = write_sounds(tmp_path / name, 2)
        table.write_text(f"audio,{header}\n0.wav,0.1,0.2\n1.wav,0.1,0.2\n")
        sources.append(SourceConfig("csv", str(table), options={"labels": header.split(",")}))
    data = PairData(PairConfig(sources, captions=["labels"]), 4, seed=0)
    batch = batches(data, encoders)[0]
    assert data.label_names == ["joy", "awe", "fear"]
    source, _ = data.mixture.composition(1, 0)
    wanted = {0: [0.1, 0.2, -1], 1: [-1, 0.1, 0.2]}
    assert np.allclose(batch.labels.nan_to_num(-1.0), [wanted[k] for k in source.tolist()])
    ids = batch.text_id[0]
    assert ids[source == 0].unique().numel() == ids[source == 1].unique().numel() == 1  # the names differ
    assert ids.unique().numel() == 2


def test_damaged_media_are_skipped_counted_and_reported_once(tmp_path, encoders, capsys):
    records = {f"{i}": {"png": b"junk" if i < 3 else png(i), "txt": f"color {i}".encode()} for i in range(8)}
    spec = SourceConfig("webdataset", str(write_shard(tmp_path / "s.tar", records)))
    data = PairData(PairConfig([spec], samples_per_epoch=8, captions=["caption"]), 8, seed=0)
    for workers in (0, 2):
        batch = batches(data, encoders, workers=workers)[0]
        assert batch.inputs["vision"]["mask"].any(1).sum() == 5 and len(batch.damage) == 3
    assert data.damage.count == {spec.path: 6}
    warnings = capsys.readouterr().err
    assert warnings.count("\n") == 1 and "1 damaged so far" in warnings and "not a readable picture" in warnings


def test_sample_depends_on_its_index_alone_and_changes_each_epoch(clips):
    data = PairData(PairConfig(frames=2, word_dropout=0.5), 8, seed=0, clips=clips)
    pairs = Pairs(data.sources, data.label_names, data.config, RATE, 0)
    one, again, later = pairs[SampleIndex(0, 0, 5, 3)], pairs[SampleIndex(0, 0, 5, 3)], pairs[SampleIndex(1, 0, 5, 3)]
    assert np.array_equal(one.frames, again.frames) and np.array_equal(one.waveform, again.waveform)
    assert one.texts == again.texts
    assert not np.array_equal(one.frames, later.frames) or not len(one.frames)
    assert data.digest == ClipDataset.open(clips).digest


def test_key_of_a_text_does_not_depend_on_dropped_words(clips):
    data = PairData(PairConfig(word_dropout=0.5, frames=1), 8, seed=0, clips=clips)
    pairs = Pairs(data.sources, data.label_names, data.config, RATE, 0)
    samples = [pairs[SampleIndex(epoch, 0, row, row)] for epoch in range(4) for row in range(4)]
    keys = [sample.keys for sample in samples[:4]]
    assert [sample.keys for sample in samples] == keys * 4
    assert len({sample.texts[0] for sample in samples}) > 4  # the wording does change


def key(kind, names=("Joy", "Awe"), **annotations):
    return text_key(kind, TextAnnotations(**annotations), list(names))


def test_keys_are_equal_when_texts_mean_the_same():
    close, other = np.array([0.5, 0.1]), np.array([0.5, 0.6])
    assert key("labels", labels=close) == key("labels", labels=np.array([0.6, 0.15]))
    assert key("labels", labels=close) != key("labels", labels=other)
    assert key("labels", labels=close) == key("labels", ("awe", "joy"), labels=close[::-1])
    assert key("labels", labels=close) != key("labels", ("Joy", "Fear"), labels=close)
    assert key("labels", labels=np.array([np.nan, np.nan])) == "" == key("caption") == key("transcript")
    assert key("transcript", transcript="So  Funny!") == key("transcript", transcript="so funny")
    assert key("transcript", transcript="?!") not in ("", key("transcript", transcript="..."))


def test_all_captions_of_an_item_share_a_key():
    five = ["a dog", "a bark", "woof"]
    assert key("caption", captions=five) == key("caption", captions=["Woof", *five[::-1]])
    assert key("caption", captions=["A dog"]) == key("caption", captions=["a  dog", "a dog"])
    assert key("caption", captions=five) != key("caption", captions=["a dog"])
    drawn = {
        draw_text("caption", TextAnnotations(captions=five), [], np.random.default_rng(s), "{emotions}")
        for s in range(30)
    }
    assert drawn == set(five)


def test_labels_fill_the_template_and_only_transcripts_lose_words():
    rng = np.random.default_rng(0)
    annotations = TextAnnotations("one two three four", ["a b c d e f g h"], np.array([0.9]))
    text = draw_text("labels", annotations, ["Joy"], rng, "a person showing {emotions}", 0.99)
    assert text in ("a person showing strong joy", "a person showing intense joy")
    assert (
        draw_text("labels", TextAnnotations(labels=np.array([np.nan])), ["Joy"], rng, "a person showing {emotions}")
        == ""
    )
    assert draw_text("caption", annotations, ["Joy"], rng, "", 0.99) == "a b c d e f g h"
    assert len(draw_text("transcript", annotations, ["Joy"], rng, "", 0.99).split()) == 1
    with pytest.raises(UserError, match="leaves out the labels"):
        PairData(PairConfig(label_template="a person"), 1, 0)


def test_long_sound_is_cropped_at_random_each_epoch(tmp_path, encoders):
    spec = SourceConfig("csv", str(write_sounds(tmp_path, 4)), valid_split="")
    config = PairConfig([spec], captions=["caption"], max_seconds=0.02, augment=False)
    data = PairData(config, 4, seed=0)
    sounds = [batches(data, encoders, epoch=epoch)[0].inputs["audio"] for epoch in range(2)]
    assert all(sound["samples"].tolist() == [320] * 4 for sound in sounds)
    assert not torch.equal(sounds[0]["waveform"], sounds[1]["waveform"])
    assert [len(sound) for sound in data.waveforms(RATE, 3)] == [320] * 3


def test_sources_of_any_kind_can_validate(mixed, clips, tmp_path, encoders):
    (tmp_path / "valid.csv").write_bytes((tmp_path / "s" / "sounds.csv").read_bytes())
    config = copy.deepcopy(mixed)
    config.sources[2] = SourceConfig(
        "csv", str(tmp_path / "{split}.csv"), split="valid", options={"root": str(tmp_path / "s")}
    )
    config.valid_limit = 4
    valid = PairData(config, 8, seed=0).valid()
    assert len(valid) == 8  # from the clips and the sounds; the pictures have no validation split
    assert valid.texts[1] == [f"tone {i}" for i in (0, 1, 3, 4)] and valid.owners == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert valid.keys[1] == [""] * 4 + valid.texts[1] and all(valid.texts[0])
    model = ContrastiveModel(encoders, LossConfig(), config.captions)
    metrics = retrieval(embed(model, Accelerator(cpu=True), valid), valid, config.captions)
    assert metrics["caption_to_audio_R@5"] == 1.0 and "vision_to_caption_R@1" not in metrics
    with pytest.raises(UserError, match="no source has a validation split"):
        PairData(PairConfig(mixed.sources[1:], 8, captions=["caption"]), 8, seed=0).valid()


def test_clips_validate_as_they_are(clips):
    valid = PairData(PairConfig(), 8, seed=0, clips=clips).valid()
    reference = ClipDataset.open(clips, "valid")
    assert len(valid) == len(reference) and valid.texts[0] == [text for text in reference.column("transcript") if text]
    np.testing.assert_array_equal(valid.labels, reference.labels())
    for row in range(len(valid)):
        assert np.array_equal(valid.waveform(row, RATE), reference.waveform(row, RATE))
        assert np.array_equal(valid.frames(row, lambda n: list(range(n))), reference[row].frames)


def test_corpus_holds_every_text_and_every_degree(mixed, clips):
    corpus = PairData(mixed, 8, seed=0).corpus()
    assert {f"color {i}" for i in range(20)} | {f"tone {i}" for i in range(5)} <= set(corpus)
    assert "slight joy" in corpus and "" not in corpus


def test_kinds_of_text_that_a_source_lacks_raise(mixed):
    mixed.captions = ["transcript", "labels"]
    with pytest.raises(UserError, match=r"has only caption, but pairs.captions is \[transcript, labels\]; add it"):
        PairData(mixed, 8, seed=0)


def test_without_weights_an_epoch_shows_each_item_once(mixed, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sources = [SourceConfig("csv", str(write_sounds(tmp_path / name, n)), None) for name, n in (("a", 3), ("b", 9))]
    data = PairData(PairConfig(sources, captions=["caption"]), 4, seed=0)
    rows = [
        pair for step in range(data.steps_per_epoch) for pair in zip(*data.mixture.composition(0, step), strict=True)
    ]
    assert data.steps_per_epoch == 3 and len(set(rows)) == 12
    with pytest.raises(UserError, match="some weights are null"):
        PairConfig([sources[0], SourceConfig("csv", "other.csv", 1.0)])
    mixed.sources = [SourceConfig("webdataset", mixed.sources[1].path, None, valid_split="")]
    with pytest.raises(UserError, match="a stream has no length; give the sources weights"):
        PairData(mixed, 4, seed=0)


def test_digest_changes_with_the_data(tmp_path):
    def digest_of(weight=1.0):
        spec = SourceConfig("csv", str(tmp_path / "sounds.csv"), weight)
        other = SourceConfig("csv", str(tmp_path / "other.csv"), 1.0)
        return PairData(PairConfig([spec, other], captions=["caption"]), 2, seed=0).digest

    write_sounds(tmp_path, 3)
    shutil.copy(tmp_path / "sounds.csv", tmp_path / "other.csv")
    before = digest_of()
    assert digest_of() == before != digest_of(2.0)
    with (tmp_path / "sounds.csv").open("a") as table:
        table.write("2.wav,another caption\n")
    (tmp_path / "3.wav").write_bytes(wav(3, tmp_path))
    assert digest_of() != before
