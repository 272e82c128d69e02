"""Validation: can a clip's face and voice find its words, and the words their clip?"""

import numpy as np
import torch

from shared.dataset import ClipDataset
from shared.metrics import recall_at
from stage1_align.encoders import AlignedEncoders
from stage1_align.model import PAIRS

KS = (1, 5, 10)


@torch.no_grad()
def embed(encoders: AlignedEncoders, clips: ClipDataset, texts: list[list[str]], batch_size: int = 32) -> dict:
    """Pooled embeddings of clips, with the texts of each: "vision", "audio" float32 (N, D), "text" (n, N, D), and
    has_<modality> bool (N,) or (n, N). `texts` holds n lists of N texts."""
    parts: dict[str, list[np.ndarray]] = {}

    def add(name: str, tower, values: list) -> None:
        encoded = tower.encode(values)
        parts.setdefault(name, []).append(encoded.pooled.cpu().numpy())  # (b, D)
        parts.setdefault(f"has_{name}", []).append(encoded.mask.any(1).cpu().numpy())  # (b,)

    for start in range(0, len(clips), batch_size):
        rows = range(start, min(start + batch_size, len(clips)))
        add("vision", encoders.vision, [clips.clip(row, _spread)["frames"] for row in rows])
        add("audio", encoders.audio, [clips.waveform(row, encoders.audio.sample_rate) for row in rows])
    for kind in texts:
        for start in range(0, len(kind), batch_size):
            add("text", encoders.text, kind[start : start + batch_size])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    for name in ("text", "has_text"):
        joined[name] = joined[name].reshape(len(texts), len(clips), *joined[name].shape[1:])
    return joined


def _spread(count: int) -> list[int]:
    """Up to ten frames, evenly over a clip of `count`: enough to tell an epoch from the next."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, 10)).round()]


def retrieval(embedded: dict[str, np.ndarray], keys: list[list[str]], kinds: list[str]) -> dict[str, float]:
    """R@1, R@5 and R@10 of each pair in both directions for each kind of text, and the mean of all. Clips whose texts
    have one key (n lists of N) are all correct answers; a clip that lacks an item of the pair takes no part."""
    metrics = {}
    for n, kind in enumerate(kinds):
        ids = np.unique(keys[n], return_inverse=True)[1]  # (N,)
        for a, _ in PAIRS.values():
            both = embedded[f"has_{a}"] & embedded["has_text"][n]  # (N,)
            if not both.any():
                continue
            similarity = embedded[a][both] @ embedded["text"][n][both].T  # (N, N)
            for k in KS:
                metrics[f"{a}_to_{kind}_R@{k}"] = recall_at(similarity, ids[both], ids[both], k)
                metrics[f"{kind}_to_{a}_R@{k}"] = recall_at(similarity.T, ids[both], ids[both], k)
    metrics["mean_recall"] = float(np.mean(list(metrics.values()))) if metrics else 0.0
    return metrics
