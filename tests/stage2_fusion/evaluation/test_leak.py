"""The leak probe: what the nearest training transcript reveals, against hand computation and slow loops."""

import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.saved_folders import edit

from shared.dataset.clip_dataset import ClipDataset
from stage2_fusion.data.feature_info import DataInfo
from stage2_fusion.data.features import ClipLabels, write
from stage2_fusion.evaluation import leak
from stage2_fusion.evaluation.leak import nearest_labels, probe_leak, read_transcripts


def test_nearest_labels_match_hand_computation():
    train = ["red red blue", "blue green", "green blue", "yellow"]
    labels = np.array([[0.1, 1], [0.2, np.nan], [0.6, np.nan], [0.9, 0]])
    predictions = nearest_labels(["Red!", "green, blue", "yellow red", "black", ""], train, labels)
    mean = [np.mean([0.1, 0.2, 0.6, 0.9]), 0.5]
    np.testing.assert_allclose(predictions[0], [0.1, 1])
    np.testing.assert_allclose(predictions[1], [0.4, 0.5])  # two texts tie; neither is labeled in dimension 1
    np.testing.assert_allclose(predictions[2], [0.9, 0])  # "red red blue" has one more word that does not match
    np.testing.assert_allclose(predictions[3:], [mean, mean])
    others = nearest_labels(["yellow", "red"], train, labels, np.array([3, -1]))
    np.testing.assert_allclose(others, [mean, [0.1, 1]])


def test_probe_takes_less_memory_than_all_pairs_of_clips(tmp_path, monkeypatch):
    """2,000 training clips, compared with each other in blocks of 8; every text is that of two clips."""
    count = 2000
    labels = np.arange(count, dtype=np.float32)[:, None] // 2
    clips = [ClipLabels(f"clip{i}", "train", labels[i], {"subject": f"s{i}"}) for i in range(count)]
    info, names = synthetic_features.info(1), [clip.id for clip in clips]
    monkeypatch.setattr(leak, "BLOCK", 8)
    monkeypatch.setattr(leak, "read_info", lambda path: info)
    monkeypatch.setattr(leak, "read_clips", lambda path: clips)
    monkeypatch.setattr(leak, "read_transcripts", lambda data: {name: f"the w{i // 2}" for i, name in enumerate(names)})
    tracemalloc.start()
    try:
        probe = probe_leak(tmp_path, info, names, labels, names)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert probe.pcc.mean == pytest.approx(1) and probe.same_transcript == 1
    assert peak < count * count


def test_nearest_labels_equal_slow_loop():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    transcripts = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(40)]
    train, texts, labels = transcripts[:25], transcripts[25:], rng.random((25, 2))
    df = {word: sum(word in text.split() for text in train) for word in words}

    def vector(text):
        values = np.array([text.split().count(w) * (np.log(26 / (1 + df[w])) + 1) if df[w] else 0 for w in words])
        return values / max(np.linalg.norm(values), 1e-12)

    for text, prediction in zip(texts, nearest_labels(texts, train, labels), strict=True):
        similarity = np.array([vector(text) @ vector(other) for other in train])
        nearest = similarity > similarity.max() - 1e-9
        expected = labels[nearest].mean(axis=0) if similarity.max() > 0 else labels.mean(axis=0)
        np.testing.assert_allclose(prediction, expected)


def test_probe_says_why_nothing_is_compared(tmp_path):
    """Four training clips, three scored; subjects s0 to s2, the last clip without one."""
    samples = synthetic_features.samples({"train": 4, "test": 3}, views=0)
    for i, sample in enumerate(samples):
        sample.groups = {"subject": f"s{i % 3}" if i < 6 else ""}
    info = write(tmp_path / "f", samples, synthetic_features.info(views=0))
    ids, labels = [sample.id for sample in samples[4:]], np.stack([sample.labels for sample in samples[4:]])
    probe = probe_leak(tmp_path / "f", info, ids, labels, [sample.id for sample in samples[:4]])
    assert probe.pcc is None and "nowhere" in probe.why
    assert probe.shared_groups == {"subject": pytest.approx(2 / 3)}
    only_s0 = probe_leak(tmp_path / "f", info, ids, labels, ["train000"])
    assert only_s0.shared_groups == {"subject": 0}
    elsewhere = probe_leak(tmp_path / "f", info, ids, labels, ["of another dataset"])
    assert elsewhere.shared_groups is None and "no labeled training clips" in elsewhere.why
    assert "not known" in probe_leak(tmp_path / "f", info, ids, labels, None).why


def test_probe_finds_seed_videos_on_both_sides_of_split(clips, tmp_path):
    """On the synthetic corpus, test clips share their words with training clips of the same seed video."""
    data = ClipDataset.open(clips)
    stored = DataInfo(str(clips), data.digest)
    transcripts = read_transcripts(stored)
    assert transcripts == dict(zip(data.column("id"), data.column("transcript"), strict=True))
    samples = synthetic_features.samples({"train": len(data)}, k=len(data.label_names), views=0)
    columns = zip(samples, data.column("id"), data.column("split"), data.labels(), strict=True)
    samples = [
        replace(sample, id=name, split=split, labels=labels, groups={"subject": name})
        for sample, name, split, labels in columns
    ]
    info = synthetic_features.info(len(data.label_names), views=0, data=stored, label_names=data.label_names)
    write(tmp_path / "f", samples, info)
    train, test = ([sample for sample in samples if sample.split == split] for split in ("train", "test"))
    labels = np.stack([sample.labels for sample in test])
    train_ids = [sample.id for sample in train]
    probe = probe_leak(tmp_path / "f", info, [sample.id for sample in test], labels, train_ids)
    predictions = nearest_labels(
        [transcripts[sample.id] for sample in test],
        [transcripts[sample.id] for sample in train],
        np.stack([sample.labels for sample in train]),
    )
    varied = [k for k in range(labels.shape[1]) if predictions[:, k].std() > 0 and labels[:, k].std() > 0]
    assert varied and probe.why is None
    for k in varied:
        expected = np.corrcoef(predictions[:, k], labels[:, k])[0, 1]
        assert probe.pcc.per_dimension[info.label_names[k]] == pytest.approx(expected)

    def letters(sample):
        return "".join(c for c in transcripts[sample.id].lower() if c.isalnum())

    known = {letters(sample) for sample in train} - {""}
    assert probe.same_transcript == pytest.approx(np.mean([letters(sample) in known for sample in test]))
    # A clip is never compared with itself.
    itself = probe_leak(tmp_path / "f", info, [train[0].id], labels[:1], [train[0].id])
    assert itself.same_transcript == 0
    other = shutil.copytree(clips, tmp_path / "other")
    edit(other, "counts", value={})  # sealing a change changes the digest
    moved = replace(info, data=replace(stored, path=str(other)))
    assert "now holds other clips" in probe_leak(tmp_path / "f", moved, [test[0].id], labels[:1], train_ids).why
