"""Validation: can a clip's face and voice find its words, and the words their clip? Shared by all processes."""

import math
from collections.abc import Callable

import numpy as np
import torch

from shared.metrics import recall_at
from shared.training.loader import to_device
from stage1_align.data.pairs import PairBatch, ValidationSet

KS = (1, 5, 10)


class Halted(Exception):
    """Somebody asked to stop before everything was embedded."""


@torch.no_grad()
def embed(
    model,
    accelerator,
    valid: ValidationSet,
    more: list[str] = (),
    batch_size: int = 32,
    halt: Callable[[], bool] = lambda: False,
) -> dict:
    """Embeddings of all validation items, each process computing its share; every process gets all of them.

    Returns {"vision", "audio": float32 (N, D), where the model has the tower; "texts": n arrays (M_k, D), one for each
    kind of text; "more": (len(more), D)} and "has_vision", "has_audio" bool (N,). Goes through the model's forward as
    training does, so that it works however the model is spread, in evaluation mode, which it leaves on. `halt` is asked
    after each batch, by all processes alike; where it says True they raise Halted.
    """
    encoders = accelerator.unwrap_model(model).encoders
    model.eval()
    towers = encoders.towers()

    def media(rows: list[int]) -> dict:
        items = {}
        if "vision" in towers:
            items["vision"] = towers["vision"].collate([valid.frames(row, _spread) for row in rows])
        if "audio" in towers:
            rate = towers["audio"].sample_rate
            items["audio"] = towers["audio"].collate([valid.waveform(row, rate) for row in rows])
        return items

    everything = [text for kind in valid.texts for text in kind] + list(more)

    def words(rows: list[int]) -> dict:
        return {"text": towers["text"].collate([everything[row] for row in rows])}

    how = batch_size, halt
    found = _shared(model, accelerator, media, len(valid), *how) if len(towers) > ("text" in towers) else {}
    texts = _shared(model, accelerator, words, len(everything), *how)["text"]
    *kinds, rest = np.split(texts, np.cumsum([len(kind) for kind in valid.texts]))
    return {**found, "texts": kinds, "more": rest}


def _shared(
    model, accelerator, collate, count: int, batch_size: int, halt: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """Outputs of the model for rows 0 .. count - 1, of all processes: row r belongs to process r % world. All make the
    same calls of as many rows, row 0 standing in, since a spread model computes together."""
    from accelerate.utils import gather_object

    rank, world = accelerator.process_index, accelerator.num_processes
    mine: list[tuple[int, dict]] = []
    for start in range(0, math.ceil(count / world), batch_size):
        rows = [rank + world * i for i in range(start, start + batch_size) if rank + world * i < count]
        even = rows + [0] * (min(batch_size, math.ceil(count / world) - start) - len(rows))
        batch = PairBatch(to_device(collate(even), accelerator.device), torch.zeros(1, len(even), dtype=torch.long))
        out = model(batch)
        part = {
            name: out[name].flatten(0, 1).float().cpu().numpy()  # (b, D) or (b,)
            for modality in ("vision", "audio", "text")
            if modality in batch.inputs
            for name in (modality, f"has_{modality}")
        }
        mine += [(row, {name: value[i] for name, value in part.items()}) for i, row in enumerate(rows)]
        if halt():
            raise Halted
    everyone = dict(gather_object(mine)) if world > 1 else dict(mine)
    result = {name: np.stack([everyone[row][name] for row in range(count)]) for name in everyone[0]}
    return {name: value > 0 if name.startswith("has_") else value for name, value in result.items()}


def _spread(count: int) -> list[int]:
    """Up to ten frames, evenly over a clip of `count`: enough to tell an epoch from the next."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, 10)).round()]


def retrieval(embedded: dict, valid: ValidationSet, kinds: list[str]) -> dict[str, float]:
    """R@1, R@5 and R@10 of pictures and of sound against each kind of text, in both directions, and the mean of all.

    An item with several captions is found by any of them, and each of them has to find it. Texts of one key are right
    answers to each other's items; a wrong answer as near as the right one is ranked before it. An item that lacks one
    side takes no part.
    """
    metrics = {}
    for n, kind in enumerate(kinds):
        ids = np.unique(valid.keys[n], return_inverse=True)[1]  # (N,)
        owner = np.array(valid.owners[n], dtype=int)  # (M,) the item of each text
        worded = np.isin(np.arange(len(valid)), owner)  # (N,)
        for modality in ("vision", "audio"):
            if modality not in embedded:
                continue
            items = embedded[f"has_{modality}"] & worded  # (N,)
            texts = items[owner] if len(owner) else np.zeros(0, bool)  # (M,)
            if not items.any():
                continue
            similarity = embedded[modality][items] @ embedded["texts"][n][texts].T  # (N', M')
            own, theirs = ids[items], ids[owner[texts]]  # (N',), (M',)
            for k in KS:
                metrics[f"{modality}_to_{kind}_R@{k}"] = recall_at(similarity, own, theirs, k)
                metrics[f"{kind}_to_{modality}_R@{k}"] = recall_at(similarity.T, theirs, own, k)
    metrics["mean_recall"] = float(np.mean(list(metrics.values()))) if metrics else 0.0
    return metrics
