"""Retrieval by hand: several captions an item, ties, and items that lack a side."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers.stage1_tiny import encoders as tiny_encoders

from stage1_align.config import LossConfig, PairConfig
from stage1_align.data.pairs import PairData
from stage1_align.evaluation.retrieval import _shared, embed, retrieval
from stage1_align.model import ContrastiveModel


class Valid(SimpleNamespace):
    """keys: n lists of N; owners: n lists of M."""

    def __len__(self):
        return len(self.keys[0])


def unit(degrees) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_five_captions_an_item_by_hand():
    """Angles apart order the likeness. Item 0 at 0 degrees has captions at 80, 85, 90, 95 and 4; item 1, at 90, has
    captions at 3, 5, 6, 7 and 8."""
    embedded = {
        "vision": unit([0, 90]),
        "has_vision": np.array([True, True]),
        "texts": [unit([80, 85, 90, 95, 4, 3, 5, 6, 7, 8])],
    }
    valid = Valid(keys=[["a", "b"]], owners=[[0] * 5 + [1] * 5])
    found = retrieval(embedded, valid, ["caption"])
    # Item 0: 3 degrees is nearer and wrong, then 4 is its own: rank 2. Item 1: four wrong ones (90, 85, 95, 80) and,
    # of the rest, its own at 8: rank 5.
    assert [found[f"vision_to_caption_R@{k}"] for k in (1, 5, 10)] == [0, 1, 1]
    # Caption 4 of item 0 finds item 0; the other four are nearer to item 1. All five of item 1 are nearer to item 0.
    assert [found[f"caption_to_vision_R@{k}"] for k in (1, 5, 10)] == [0.1, 1, 1]
    assert found["mean_recall"] == pytest.approx((0 + 1 + 1 + 0.1 + 1 + 1) / 6)


def test_a_model_that_tells_nothing_apart_earns_nothing():
    n = 12
    embedded = {"audio": unit([30] * n), "has_audio": np.ones(n, bool), "texts": [unit([30] * n)]}
    valid = Valid(keys=[[str(i) for i in range(n)]], owners=[list(range(n))])
    found = retrieval(embedded, valid, ["transcript"])
    assert set(found.values()) == {0.0} and len(found) == 7


def test_items_of_one_key_are_right_answers_to_each_other():
    embedded = {"vision": unit([0, 40, 90]), "has_vision": np.ones(3, bool), "texts": [unit([40, 0, 90])]}
    told_apart = retrieval(embedded, Valid(keys=[["a", "b", "c"]], owners=[[0, 1, 2]]), ["labels"])
    same = retrieval(embedded, Valid(keys=[["a", "a", "c"]], owners=[[0, 1, 2]]), ["labels"])
    assert told_apart["vision_to_labels_R@1"] == pytest.approx(1 / 3) and same["vision_to_labels_R@1"] == 1


def test_items_that_lack_a_side_take_no_part():
    """Item 1 has no picture, item 2 no text; what they have would be nearest to everything else."""
    embedded = {
        "vision": np.concatenate([unit([0]), np.zeros((1, 2)), unit([10, 20])]),
        "has_vision": np.array([True, False, True, True]),
        "audio": unit([0, 10, 20, 30]),
        "has_audio": np.zeros(4, bool),
        "texts": [unit([1, 2, 19]), np.zeros((0, 2))],
    }
    valid = Valid(keys=[["a", "b", "", "d"], [""] * 4], owners=[[0, 1, 3], []])
    found = retrieval(embedded, valid, ["caption", "labels"])
    assert found == {
        **{f"{way}_R@{k}": 1.0 for way in ("vision_to_caption", "caption_to_vision") for k in (1, 5, 10)},
        "mean_recall": 1.0,
    }
    nothing = {**embedded, "has_vision": np.zeros(4, bool)}
    assert retrieval(nothing, valid, ["caption", "labels"]) == {"mean_recall": 0.0}


def test_embeddings_are_those_of_one_item_at_a_time_in_evaluation_mode(clips):
    """Whatever the batch, in the order of the items."""
    encoders = tiny_encoders()
    valid = PairData(PairConfig(valid_limit=5), 8, 0, clips).valid()
    model = ContrastiveModel(encoders, LossConfig(), ["transcript", "labels"]).train()
    found = embed(model, Accelerator(cpu=True), valid, ["much joy"], batch_size=2)
    assert not model.training
    for row in range(5):
        for modality in ("vision", "audio"):
            if modality == "audio":
                item = valid.waveform(row, encoders.audio.sample_rate)
            else:
                item = valid.frames(row, lambda n: [int(i) for i in np.linspace(0, n - 1, min(n, 10)).round()])
            wanted = getattr(encoders, modality).encode_prepared([item])
            np.testing.assert_allclose(found[modality][row], wanted.pooled[0].numpy(), atol=1e-5)
            assert found[f"has_{modality}"][row] == bool(wanted.mask.any())
    for texts, vectors in zip([*valid.texts, ["much joy"]], [*found["texts"], found["more"]], strict=True):
        assert len(vectors) == len(texts)
        for text, vector in zip(texts, vectors, strict=True):
            torch.testing.assert_close(
                torch.from_numpy(vector), encoders.text.encode_prepared([text]).pooled[0], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize(("count", "batch_size"), [(5, 2), (4, 2), (1, 8), (7, 3)])
def test_two_processes_compute_as_many_rows_at_a_time(monkeypatch, count, batch_size):
    """A model spread over both (FSDP2) waits for ever where one computes what the other does not."""
    sizes, gathered = ([], []), []

    def rank(number: int):
        def collate(rows):
            sizes[number].append(len(rows))
            return {"text": {"rows": torch.tensor(rows)}}

        def model(batch):
            rows = batch.inputs["text"]["rows"].float()[None, :, None]  # (1, b, 1)
            return {"text": rows * 10, "has_text": torch.ones_like(rows[..., 0])}

        one = SimpleNamespace(process_index=number, num_processes=2, device=torch.device("cpu"))
        return _shared(model, one, collate, count, batch_size, lambda: False)

    def gather(mine):
        gathered.extend(mine)
        raise InterruptedError

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    for number in (0, 1):
        with pytest.raises(InterruptedError):
            rank(number)
    assert sizes[0] == sizes[1] and sum(sizes[0]) == -(-count // 2)
    monkeypatch.setattr("accelerate.utils.gather_object", lambda mine: gathered)
    found = rank(0)
    assert found["text"][:, 0].tolist() == [10 * row for row in range(count)] and found["has_text"].all()
