"""Zero-shot intensity: how well the similarity of a clip to texts about an emotion follows the emotion's label.

The score of a clip for a dimension is its cosine similarity to texts about it ("much joy", "strong joy", ...) minus its
similarity to a neutral text ("no emotion"), as CLIP classifies with texts about classes (Radford et al. 2021, arXiv
2103.00020, section 3.1). No label is used, unless training used captions generated from labels, or soft targets.
"""

from collections.abc import Sequence

import numpy as np

from shared.metrics import pcc, scorable
from stage1_align.data.captions import DEGREES
from stage1_align.evaluation.retrieval import ValidationEmbeddings

NONE = "no emotion"


def prompts(label_names: Sequence[str], template: str) -> list[str]:
    """The neutral text, then the texts for each dimension, the same number for each."""
    degrees = [word for _, words in DEGREES[2:] for word in words]
    phrases = [NONE] + [f"{degree} {name.lower()}" for name in label_names for degree in degrees]
    return [template.replace("{emotions}", phrase) for phrase in phrases]


def intensities(embedded: np.ndarray, texts: np.ndarray, dimensions: int) -> np.ndarray:
    """Unit embeddings of clips (N, D) and of `prompts` (1 + K P, D) to scores, float (N, K)."""
    none, emotions = texts[0], texts[1:].reshape(dimensions, -1, texts.shape[1]).mean(1)  # (D,), (K, D)
    emotions = emotions / np.maximum(np.linalg.norm(emotions, axis=1, keepdims=True), 1e-9)  # (K, D)
    return embedded @ emotions.T - (embedded @ none)[:, None]  # (N, K)


def zero_shot(embedded: ValidationEmbeddings, labels: np.ndarray, label_names: Sequence[str]) -> dict[str, float]:
    """PCC of scores with labels (N, K), averaged over the dimensions with a defined PCC: for each modality, and for the
    sum of the modalities' scores on clips that have both. Undefined scores are left out. `embedded.prompts` are the
    embeddings of `prompts`."""
    labeled = ~np.isnan(labels).all(1)  # (N,)
    if not label_names or not labeled.any():
        return {}
    scores = {
        modality: intensities(media, embedded.prompts, len(label_names))  # (N, K)
        for modality, media in embedded.media.items()
        if (embedded.present[modality] & labeled).any()
    }
    metrics, total = {}, np.zeros(labels.shape)
    for modality, score in scores.items():
        present = embedded.present[modality]  # (N,)
        metrics[f"zero_shot_{modality}"] = _mean_pcc(score[present], labels[present])
        total += score
    if len(scores) > 1:
        both = embedded.present["vision"] & embedded.present["audio"]  # (N,)
        metrics["zero_shot_both"] = _mean_pcc(total[both], labels[both])
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def _mean_pcc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean PCC over the dimensions with a defined PCC; NaN if there are none."""
    known = scorable(labels)
    return float(np.mean([pcc(scores[:, k], labels[:, k]) for k in known])) if known else float("nan")
