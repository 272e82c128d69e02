"""The model contrastive training optimises: the towers, and one learned temperature a pair."""

import math

import torch
from torch import Tensor, nn

from stage1_align.encoders import AlignedEncoders
from stage1_align.loss import info_nce

PAIRS = {"vision_text": ("vision", "text"), "audio_text": ("audio", "text")}
MAX_SCALE = 100.0


class ContrastiveModel(nn.Module):
    """forward(batch) returns the pooled embeddings of this process's clips and the inverse temperatures, so that one
    wrapped forward sees every parameter."""

    def __init__(self, encoders: AlignedEncoders, initial_scale: float = 1 / 0.07):
        super().__init__()
        self.encoders = encoders
        self.log_scale = nn.ParameterDict({pair: nn.Parameter(torch.tensor(math.log(initial_scale))) for pair in PAIRS})

    def forward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """batch: the collated input of each tower, n texts a clip. Returns "vision", "audio": (1, b, D) and "text":
        (n, b, D); "has_<modality>": bool (1 or n, b); "scale_<pair>": ()."""
        output = {}
        clips = batch["text_id"].shape[1]
        for modality in ("vision", "audio", "text"):
            encoded = getattr(self.encoders, modality)(**batch[modality])
            output[modality] = encoded.pooled.unflatten(0, (-1, clips))  # (1 or n, b, D)
            output[f"has_{modality}"] = encoded.mask.any(1).unflatten(0, (-1, clips))  # (1 or n, b)
        for pair, scale in self.log_scale.items():
            output[f"scale_{pair}"] = scale.exp()  # ()
        return output

    def loss(self, out: dict[str, Tensor], text_id: Tensor, weights: dict[str, float], tile: int) -> Tensor:
        """The weighted sum over pairs of the mean InfoNCE over the n texts a clip has: (). text_id int64 (n, b)."""
        total = 0
        for pair, (a, _) in PAIRS.items():
            terms = [
                info_nce(
                    out[a][0],  # (b, D)
                    out["text"][n],  # (b, D)
                    out[f"scale_{pair}"],
                    text_id[n],
                    out[f"has_{a}"][0] & out["has_text"][n],
                    tile,
                )
                for n in range(len(text_id))
            ]
            total = total + weights.get(pair, 1.0) * sum(terms) / len(terms)
        if weights.get("text_text", 0) and len(text_id) == 2:
            valid = out["has_text"][0] & out["has_text"][1]  # (b,)
            between = info_nce(out["text"][0], out["text"][1], out["scale_vision_text"], text_id[1], valid, tile)
            total = total + weights["text_text"] * between
        return total

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep each inverse temperature in [1, 100] (CLIP, section 2.5)."""
        for scale in self.log_scale.values():
            scale.clamp_(0, math.log(MAX_SCALE))
