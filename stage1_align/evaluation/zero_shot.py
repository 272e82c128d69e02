"""Zero-shot intensity: how far the likeness of a clip to words for an emotion follows the emotion's label.

The score of a clip for a dimension is its cosine to the words for it ("much joy", "strong joy", ...) less its cosine to
the words for none ("no emotion"), as CLIP classifies by the words for classes (Radford et al. 2021, arXiv 2103.00020,
section 3.1). No label was used, unless captions were made of labels, or soft targets, in training.
"""

import numpy as np

from shared.metrics import pcc
from stage1_align.data.captions import DEGREES

NONE = "no emotion"


def prompts(label_names: list[str], template: str) -> list[str]:
    """The words for none, then those for each dimension, as many for each."""
    words = [word for _, several in DEGREES[2:] for word in several]
    phrases = [NONE] + [f"{word} {name.lower()}" for name in label_names for word in words]
    return [template.replace("{emotions}", phrase) for phrase in phrases]


def intensities(embedded: np.ndarray, texts: np.ndarray, dimensions: int) -> np.ndarray:
    """Unit embeddings of clips (N, D) and of `prompts` (1 + K P, D) -> scores float (N, K)."""
    none, some = texts[0], texts[1:].reshape(dimensions, -1, texts.shape[1]).mean(1)  # (D,), (K, D)
    some = some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-9)  # (K, D)
    return embedded @ some.T - (embedded @ none)[:, None]  # (N, K)


def zero_shot(embedded: dict, labels: np.ndarray, label_names: list[str]) -> dict[str, float]:
    """Mean over the labelled dimensions of the PCC of scores with labels (N, K), for each modality, and for the sum of
    their scores where both are there; {} without labels. `embedded` holds the prompts under "more"."""
    labelled = ~np.isnan(labels).all(1)  # (N,)
    if not label_names or not labelled.any():
        return {}
    scores = {
        modality: intensities(embedded[modality], embedded["more"], len(label_names))  # (N, K)
        for modality in ("vision", "audio")
        if modality in embedded and (embedded[f"has_{modality}"] & labelled).any()
    }
    metrics, total = {}, np.zeros(labels.shape)
    for modality, score in scores.items():
        there = embedded[f"has_{modality}"]  # (N,)
        metrics[f"zero_shot_{modality}"] = _mean_pcc(score[there], labels[there])
        total += score
    if len(scores) > 1:
        both = embedded["has_vision"] & embedded["has_audio"]  # (N,)
        metrics["zero_shot_both"] = _mean_pcc(total[both], labels[both])
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _mean_pcc(scores: np.ndarray, labels: np.ndarray) -> float:
    labelled = [k for k in range(labels.shape[1]) if not np.isnan(labels[:, k]).all()]
    return float(np.mean([pcc(scores[:, k], labels[:, k]) for k in labelled])) if labelled else float("nan")
