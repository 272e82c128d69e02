"""Validation by retrieval: a clip's face and voice find its texts, and the texts find their clip. In data with texts
only, the kinds of text find each other. All processes share the work."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.metrics import recall_at
from shared.training.loader import to_device
from stage1_align.data.pairs import PairBatch, ValidationSet

if TYPE_CHECKING:
    from accelerate import Accelerator

KS = (1, 5, 10)
MAX_FRAMES = 10
"""Frames per clip in validation: enough to compare epochs."""

Inputs = dict[str, dict[str, Tensor]]
"""{modality: tensors from the `collate` of its tower}."""


class Halted(Exception):
    """A process was asked to stop before everything was embedded."""


@dataclass
class ValidationEmbeddings:
    """Pooled embeddings of N validation items and their texts, the same on all processes."""

    media: dict[str, np.ndarray]
    """"vision" and "audio", if the model has the tower: float32 (N, D)."""
    present: dict[str, np.ndarray]
    """Whether an item has the modality: bool (N,)."""
    texts: list[np.ndarray]
    """For each kind of text, float32 (M_k, D)."""
    prompts: np.ndarray
    """float32 (P, D)."""


@torch.no_grad()
def embed(
    model: nn.Module,
    accelerator: "Accelerator",
    valid: ValidationSet,
    prompts: Sequence[str] = (),
    batch_size: int = 32,
    halt: Callable[[], bool] = lambda: False,
) -> ValidationEmbeddings:
    """Embeddings of all validation items and of `prompts`. Each process computes its share and receives all of them.

    Calls the model's forward as training does, so that it works for a sharded model. The model is set to evaluation
    mode and stays in it. `halt` is called after each batch on all processes; if it returns True, they raise Halted.
    """
    towers: dict[str, Any] = accelerator.unwrap_model(model).encoders.towers()
    model.eval()
    all_texts = [text for kind in valid.texts for text in kind] + list(prompts)

    def collate_media(rows: list[int]) -> Inputs:
        inputs = {}
        if "vision" in towers:
            inputs["vision"] = towers["vision"].collate([valid.frames(row, _select_frames) for row in rows])
        if "audio" in towers:
            rate = towers["audio"].sample_rate
            inputs["audio"] = towers["audio"].collate([valid.waveform(row, rate) for row in rows])
        return inputs

    def collate_texts(rows: list[int]) -> Inputs:
        return {"text": towers["text"].collate([all_texts[row] for row in rows])}

    outputs: dict[str, np.ndarray] = {}
    if set(towers) - {"text"}:
        outputs = _forward_all(model, accelerator, collate_media, len(valid), batch_size, halt)
    texts = _forward_all(model, accelerator, collate_texts, len(all_texts), batch_size, halt)["text"]
    *kinds, prompt_embeddings = np.split(texts, np.cumsum([len(kind) for kind in valid.texts]))
    modalities = [modality for modality in ("vision", "audio") if modality in outputs]
    return ValidationEmbeddings(
        {modality: outputs[modality] for modality in modalities},
        {modality: outputs[f"has_{modality}"] > 0 for modality in modalities},
        kinds,
        prompt_embeddings,
    )


def _forward_all(
    model: nn.Module,
    accelerator: "Accelerator",
    collate: Callable[[list[int]], Inputs],
    count: int,
    batch_size: int,
    halt: Callable[[], bool],
) -> dict[str, np.ndarray]:
    """Outputs of the model for rows 0 .. count - 1, gathered from all processes: row r belongs to process r % world.

    All processes make the same number of calls with the same number of rows, padded with row 0: the processes of a
    sharded model compute together."""
    from accelerate.utils import gather_object

    rank, world = accelerator.process_index, accelerator.num_processes
    per_process = math.ceil(count / world)
    local_rows: list[tuple[int, dict[str, np.ndarray]]] = []
    for start in range(0, per_process, batch_size):
        rows = [rank + world * i for i in range(start, start + batch_size) if rank + world * i < count]
        padded = rows + [0] * (min(batch_size, per_process - start) - len(rows))
        inputs = to_device(collate(padded), accelerator.device)
        out = model(PairBatch(inputs, torch.zeros(1, len(padded), dtype=torch.long)))
        arrays = {
            name: out[name].flatten(0, 1).float().cpu().numpy()  # (b, D) or (b,)
            for modality in inputs
            for name in (modality, f"has_{modality}")
        }
        local_rows += [(row, {name: array[i] for name, array in arrays.items()}) for i, row in enumerate(rows)]
        if halt():
            raise Halted
    by_row = dict(gather_object(local_rows)) if world > 1 else dict(local_rows)
    return {name: np.stack([by_row[row][name] for row in range(count)]) for name in by_row[0]}


def _select_frames(count: int) -> list[int]:
    """Up to MAX_FRAMES frames, evenly spaced over a clip of `count`."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, MAX_FRAMES)).round()]


def retrieval(embedded: ValidationEmbeddings, valid: ValidationSet, kinds: Sequence[str]) -> dict[str, float]:
    """R@1, R@5 and R@10 between each of vision and audio and each kind of text, in both directions, and their mean.

    An item with several captions counts as found by any of them, and each caption has to find the item. Texts with the
    same key are correct answers to each other's items. A wrong answer as near as the right one ranks before it. Items
    that lack one side are left out. A kind with only one text to choose from is left out too, because every model finds
    it. Without any recall there is no mean. Without vision and audio, recall is between the kinds of text.
    """
    metrics = {} if embedded.media else _between_texts(embedded, valid, kinds)
    for kind, keys, owners, texts in zip(kinds, valid.keys, valid.owners, embedded.texts, strict=True):
        item_ids = np.unique(keys, return_inverse=True)[1]  # (N,)
        owner = np.array(owners, dtype=int)  # (M,), the item of each text
        has_text = np.isin(np.arange(len(valid)), owner)  # (N,)
        for modality, media in embedded.media.items():
            items = embedded.present[modality] & has_text  # (N,)
            used_texts = items[owner] if len(owner) else np.zeros(0, bool)  # (M,)
            if len(set(item_ids[items])) < 2:
                continue
            similarity = media[items] @ texts[used_texts].T  # (N', M')
            ids, text_ids = item_ids[items].tolist(), item_ids[owner[used_texts]].tolist()  # N', M'
            for k in KS:
                metrics[f"{modality}_to_{kind}_R@{k}"] = recall_at(similarity, ids, text_ids, k)
                metrics[f"{kind}_to_{modality}_R@{k}"] = recall_at(similarity.T, text_ids, ids, k)
    return metrics | ({"mean_recall": float(np.mean(list(metrics.values())))} if metrics else {})


def _between_texts(embedded: ValidationEmbeddings, valid: ValidationSet, kinds: Sequence[str]) -> dict[str, float]:
    """R@1, R@5 and R@10 from each kind of text to every other kind, among the items that have both."""
    metrics: dict[str, float] = {}
    for a, b in itertools.permutations(range(len(kinds)), 2):
        item_ids = np.unique(valid.keys[b], return_inverse=True)[1]  # (N,), equal where texts of kind b mean the same
        first, second = (np.array(valid.owners[kind], dtype=int) for kind in (a, b))  # (M_a,), (M_b,)
        is_query, is_candidate = np.isin(first, second), np.isin(second, first)  # (M_a,), (M_b,)
        ids, candidate_ids = item_ids[first[is_query]].tolist(), item_ids[second[is_candidate]].tolist()
        if len(set(candidate_ids)) < 2:
            continue
        similarity = embedded.texts[a][is_query] @ embedded.texts[b][is_candidate].T  # (M'_a, M'_b)
        metrics |= {f"{kinds[a]}_to_{kinds[b]}_R@{k}": recall_at(similarity, ids, candidate_ids, k) for k in KS}
    return metrics
