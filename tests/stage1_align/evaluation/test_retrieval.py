"""Retrieval by hand: several captions an item, ties, and items that lack a side."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.stage1_tiny import encoders as tiny_encoders

from stage1_align.config import LossConfig, PairConfig
from stage1_align.data.pairs import PairData
from stage1_align.evaluation.retrieval import ValidationEmbeddings, _forward_all, embed, retrieval
from stage1_align.model import ContrastiveModel


class Valid(SimpleNamespace):
    """keys: n lists of N; owners: n lists of M."""

    def __len__(self):
        return len(self.keys[0])


def unit(degrees) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def embeddings(texts, present=None, **media) -> ValidationEmbeddings:
    present = present or {modality: np.ones(len(values), bool) for modality, values in media.items()}
    return ValidationEmbeddings(media, present, texts, np.zeros((0, 2)))


def test_recall_with_five_captions_per_item_by_hand():
    """Similarity falls with the angle. Item 0 at 0 degrees has captions at 80, 85, 90, 95 and 4; item 1 at 90 degrees
    has captions at 3, 5, 6, 7 and 8."""
    embedded = embeddings([unit([80, 85, 90, 95, 4, 3, 5, 6, 7, 8])], vision=unit([0, 90]))
    valid = Valid(keys=[["a", "b"]], owners=[[0] * 5 + [1] * 5])
    metrics = retrieval(embedded, valid, ["caption"])
    # Item 0: the caption at 3 is nearest and wrong, the one at 4 its own: rank 2. Item 1: four wrong captions (90, 85,
    # 95, 80), then its own at 8: rank 5.
    assert [metrics[f"vision_to_caption_R@{k}"] for k in (1, 5, 10)] == [0, 1, 1]
    # The caption at 4 finds item 0; the other four of item 0 are nearer to item 1. All five of item 1 are nearer to
    # item 0.
    assert [metrics[f"caption_to_vision_R@{k}"] for k in (1, 5, 10)] == [0.1, 1, 1]
    assert metrics["mean_recall"] == pytest.approx((0 + 1 + 1 + 0.1 + 1 + 1) / 6)


def test_constant_embeddings_have_no_recall():
    n = 12
    embedded = embeddings([unit([30] * n)], audio=unit([30] * n))
    metrics = retrieval(embedded, Valid(keys=[[str(i) for i in range(n)]], owners=[list(range(n))]), ["transcript"])
    assert set(metrics.values()) == {0.0} and len(metrics) == 7


def test_items_with_the_same_key_are_right_answers_to_each_other():
    embedded = embeddings([unit([40, 0, 90])], vision=unit([0, 40, 90]))
    different = retrieval(embedded, Valid(keys=[["a", "b", "c"]], owners=[[0, 1, 2]]), ["labels"])
    same = retrieval(embedded, Valid(keys=[["a", "a", "c"]], owners=[[0, 1, 2]]), ["labels"])
    assert different["vision_to_labels_R@1"] == pytest.approx(1 / 3) and same["vision_to_labels_R@1"] == 1


def test_items_without_one_side_are_left_out():
    """Item 1 has no picture, item 2 no text; what they have would be nearest to everything else."""
    embedded = embeddings(
        [unit([1, 2, 19]), np.zeros((0, 2))],
        {"vision": np.array([True, False, True, True]), "audio": np.zeros(4, bool)},
        vision=np.concatenate([unit([0]), np.zeros((1, 2)), unit([10, 20])]),
        audio=unit([0, 10, 20, 30]),
    )
    valid = Valid(keys=[["a", "b", "", "d"], [""] * 4], owners=[[0, 1, 3], []])
    assert retrieval(embedded, valid, ["caption", "labels"]) == {
        **{f"{way}_R@{k}": 1.0 for way in ("vision_to_caption", "caption_to_vision") for k in (1, 5, 10)},
        "mean_recall": 1.0,
    }
    embedded.present["vision"] = np.zeros(4, bool)
    assert retrieval(embedded, valid, ["caption", "labels"]) == {}


def test_embeddings_equal_those_of_single_items_in_evaluation_mode(clips):
    """Independent of the batch, in the order of the items."""
    encoders = tiny_encoders()
    valid = PairData(PairConfig(valid_limit=5), 8, 0, clips).valid()
    model = ContrastiveModel(encoders, LossConfig(), ["transcript", "labels"]).train()
    embedded = embed(model, Accelerator(cpu=True), valid, ["much joy"], batch_size=2)
    assert not model.training
    for row in range(5):
        for modality in ("vision", "audio"):
            if modality == "audio":
                item = valid.waveform(row, encoders.audio.sample_rate)
            else:
                item = valid.frames(row, lambda n: [int(i) for i in np.linspace(0, n - 1, min(n, 10)).round()])
            expected = getattr(encoders, modality).encode_prepared([item])
            np.testing.assert_allclose(embedded.media[modality][row], expected.pooled[0].numpy(), atol=1e-5)
            assert embedded.present[modality][row] == bool(expected.mask.any())
    for texts, vectors in zip([*valid.texts, ["much joy"]], [*embedded.texts, embedded.prompts], strict=True):
        assert len(vectors) == len(texts)
        for text, vector in zip(texts, vectors, strict=True):
            with torch.no_grad():  # a text beyond the context is cut, as in training
                expected = encoders.text(**encoders.text.collate([text])).pooled[0]
            torch.testing.assert_close(torch.from_numpy(vector), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "batch_size"), [(5, 2), (4, 2), (1, 8), (7, 3)])
def test_two_processes_compute_the_same_number_of_rows_per_call(monkeypatch, count, batch_size):
    """A model that is sharded over both (FSDP2) hangs when one process computes what the other does not."""
    sizes, gathered = ([], []), []

    def rank(number: int):
        def collate(rows):
            sizes[number].append(len(rows))
            return {"text": {"rows": torch.tensor(rows)}}

        def model(batch):
            rows = batch.inputs["text"]["rows"].float()[None, :, None]  # (1, b, 1)
            return {"text": rows * 10, "has_text": torch.ones_like(rows[..., 0])}

        one = SimpleNamespace(process_index=number, num_processes=2, device=torch.device("cpu"))
        return _forward_all(model, one, collate, count, batch_size, lambda: False)

    def gather(local_rows):
        gathered.extend(local_rows)
        raise InterruptedError

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    for number in (0, 1):
        with pytest.raises(InterruptedError):
            rank(number)
    assert sizes[0] == sizes[1] and sum(sizes[0]) == -(-count // 2)
    monkeypatch.setattr("accelerate.utils.gather_object", lambda local_rows: gathered)
    outputs = rank(0)
    assert outputs["text"][:, 0].tolist() == [10 * row for row in range(count)] and outputs["has_text"].all()


def test_kinds_of_text_find_each_other_where_there_is_neither_picture_nor_sound():
    """Transcripts at 0, 50 and 90 degrees; labels at 10, 20 and 80. Item 2 has the labels of item 1."""
    embedded = embeddings([unit([0, 50, 90]), unit([10, 20, 80])])
    valid = Valid(keys=[["a", "b", "c"], ["x", "y", "y"]], owners=[[0, 1, 2], [0, 1, 2]])
    metrics = retrieval(embedded, valid, ["transcript", "labels"])
    # Nearest labels of 0: 10, its own; of 50: 20 and 80, both mean its own; of 90: 80.
    assert metrics["transcript_to_labels_R@1"] == 1
    # Nearest transcript of 10 and 20: the one at 0, which is right for 10 alone; of 80: its own.
    assert metrics["labels_to_transcript_R@1"] == pytest.approx(2 / 3)
    assert metrics["labels_to_transcript_R@5"] == 1 and len(metrics) == 7
    assert retrieval(embedded, Valid(keys=[["a"] * 3, ["x"] * 3], owners=[[0, 1, 2]] * 2), ["t", "l"]) == {}
