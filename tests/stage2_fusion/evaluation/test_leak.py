"""The leak probe by hand: what the nearest training transcript gives away."""

import json

import numpy as np
import pytest
from helpers import synthetic_features

from shared.dataset.splits import split_dataset
from shared.files import write_json
from stage2_fusion.data.features import read_clips, read_info, write
from stage2_fusion.evaluation.leak import nearest_labels, probe, read_transcripts, seen_by_encoders


def test_nearest_by_hand():
    train = ["red red blue", "blue green", "green blue", "yellow"]
    labels = np.array([[0.1, 1], [0.2, np.nan], [0.6, np.nan], [0.9, 0]])
    found = nearest_labels(["Red!", "green, blue", "yellow red", "black", ""], train, labels)
    mean = [np.mean([0.1, 0.2, 0.6, 0.9]), 0.5]
    np.testing.assert_allclose(found[0], [0.1, 1])
    np.testing.assert_allclose(found[1], [0.4, 0.5])  # two texts tie; of the second dimension neither is labelled
    # yellow: ln(5/2) + 1 both ways; "red red blue" points elsewhere in part
    np.testing.assert_allclose(found[2], [0.9, 0])
    np.testing.assert_allclose(found[3:], [mean, mean])
    banned = nearest_labels(["yellow"], train, labels, np.array([[True, True, True, False]]))
    np.testing.assert_allclose(banned, [mean])


def test_nearest_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    said = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(40)]
    train, texts, labels = said[:25], said[25:], rng.random((25, 2))
    df = {word: sum(word in text.split() for text in train) for word in words}

    def vector(text):
        values = np.array([text.split().count(w) * (np.log(26 / (1 + df[w])) + 1) if df[w] else 0 for w in words])
        return values / max(np.linalg.norm(values), 1e-12)

    for text, found in zip(texts, nearest_labels(texts, train, labels), strict=True):
        similarity = np.array([vector(text) @ vector(other) for other in train])
        near = similarity > similarity.max() - 1e-9
        np.testing.assert_allclose(found, labels[near].mean(axis=0) if similarity.max() > 0 else labels.mean(axis=0))


@pytest.fixture()
def features(tmp_path):
    """Four training clips, three to be scored; subjects s0 to s2."""
    rows = synthetic_features.samples({"train": 4, "test": 3}, views=0)
    for i, row in enumerate(rows):
        row["groups"] = {"subject": f"s{i % 3}" if i < 6 else ""}
    info = synthetic_features.info() | {"views": 0}
    write(tmp_path / "f", rows, info)
    return tmp_path / "f", info, rows


def test_why_nothing_is_compared(features, tmp_path):
    path, info, rows = features
    ids, labels = [r["id"] for r in rows[4:]], np.stack([r["labels"] for r in rows[4:]])
    found = probe(path, info, ids, labels, None)
    assert found["pcc"] is None and "nowhere" in found["why"]
    assert found["shared_groups"] == {"subject": pytest.approx(2 / 3)}  # the last belongs to nobody
    assert probe(path, info, ids, labels, ["train000"])["shared_groups"] == {"subject": 0}  # only s0 trained
    other = probe(path, info, ids, labels, ["of another dataset"])  # what this one calls train taught nobody
    assert other["shared_groups"] is None and "no labelled training clips" in other["why"]


def test_a_new_split_does_not_undo_what_the_encoders_saw(tmp_path):
    aligned = {"path": "nowhere", "digest": "e" * 16, "config": {"training": {"data_digest": "d" * 16}}}
    rows = synthetic_features.samples({"train": 20, "test": 10}, views=1)
    info = write(tmp_path / "f", rows, synthetic_features.info() | {"encoders": aligned})
    split_dataset(tmp_path / "f", tmp_path / "fold", folds=2)
    test = [clip["id"] for clip in read_clips(tmp_path / "fold") if clip["split"] == "test"]
    found = seen_by_encoders(tmp_path / "fold", read_info(tmp_path / "fold"), test)
    assert found == sum(name.startswith("train") for name in test) > 0
    assert seen_by_encoders(tmp_path / "f", info, [f"test{i:03d}" for i in range(10)]) == 0
    elsewhere = info | {"data": {**info["data"], "digest": "other"}}
    assert seen_by_encoders(tmp_path / "f", elsewhere, test) is None


def test_real_transcripts(clips, tmp_path):
    """Against the synthetic corpus: test clips whose seed video is in training share its words."""
    from shared.dataset.clip_dataset import ClipDataset

    data = ClipDataset.open(clips)
    info = {"data": {"path": str(clips), "digest": data.digest}, "label_names": data.label_names}
    transcripts = read_transcripts(info["data"])
    assert transcripts == dict(zip(data.column("id"), data.column("transcript"), strict=True))
    rows = synthetic_features.samples({"train": len(data)}, k=len(data.label_names), views=0)
    for row, name, part, labels in zip(rows, data.column("id"), data.column("split"), data.labels(), strict=True):
        row |= {"id": name, "split": part, "labels": labels, "groups": {"subject": name}}
    made = synthetic_features.info(len(data.label_names)) | {"views": 0, "data": {**info["data"], "prepare": {}}}
    made["label_names"] = data.label_names
    write(tmp_path / "f", rows, made)
    test = [row for row in rows if row["split"] == "test"]
    labels = np.stack([row["labels"] for row in test])
    found = probe(tmp_path / "f", made, [row["id"] for row in test], labels, None)
    train = [row for row in rows if row["split"] == "train"]
    guess = nearest_labels(
        [transcripts[row["id"]] for row in test],
        [transcripts[row["id"]] for row in train],
        np.stack([row["labels"] for row in train]),
    )
    usable = [k for k in range(labels.shape[1]) if guess[:, k].std() > 0 and labels[:, k].std() > 0]
    assert usable and found["why"] is None
    for k in usable:
        assert found["pcc"]["per_dimension"][made["label_names"][k]] == pytest.approx(
            np.corrcoef(guess[:, k], labels[:, k])[0, 1]
        )
    plain = {"".join(c for c in transcripts[row["id"]].lower() if c.isalnum()) for row in train} - {""}
    same = ["".join(c for c in transcripts[row["id"]].lower() if c.isalnum()) in plain for row in test]
    assert found["same_transcript"] == pytest.approx(np.mean(same))
    # A clip is never compared with itself.
    inside = probe(tmp_path / "f", made, [train[0]["id"]], labels[:1], [train[0]["id"]])
    assert inside["same_transcript"] == 0
    write_json(tmp_path / "dataset.json", json.loads((clips / "dataset.json").read_text()) | {"digest": "other"})
    (tmp_path / "data").symlink_to(clips / "data")
    made["data"] = {**made["data"], "path": str(tmp_path)}
    assert "holds other clips by now" in probe(tmp_path / "f", made, [test[0]["id"]], labels[:1], None)["why"]
