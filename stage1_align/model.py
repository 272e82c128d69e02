"""The model contrastive training optimises: the towers, and one learned temperature (and bias) a pair."""

import math

import torch
from torch import Tensor, nn

from stage1_align.encoders import AlignedEncoders
from stage1_align.loss import contrastive

PAIRS = {"vision_text": ("vision", "text"), "audio_text": ("audio", "text")}
MAX_SCALE = 100.0


class ContrastiveModel(nn.Module):
    """forward(batch) returns the pooled embeddings of this process's clips and the inverse temperatures, so that one
    wrapped forward sees every parameter.

    loss_kind: as `kind` of stage1_align.loss.contrastive. The sigmoid loss has a bias a pair besides, which begins at
    -10 since nearly all pairs are negatives (SigLIP, arXiv 2303.15343, section 3.2)."""

    def __init__(
        self,
        encoders: AlignedEncoders,
        initial_scale: float = 1 / 0.07,
        loss_kind: str = "info_nce",
        initial_bias: float = -10.0,
    ):
        super().__init__()
        self.encoders = encoders
        self.loss_kind = loss_kind
        self.log_scale = nn.ParameterDict({pair: nn.Parameter(torch.tensor(math.log(initial_scale))) for pair in PAIRS})
        biased = PAIRS if loss_kind == "sigmoid" else ()
        self.bias = nn.ParameterDict({pair: nn.Parameter(torch.tensor(float(initial_bias))) for pair in biased})

    def forward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """batch: the collated input of each tower, n texts a clip. Returns "vision", "audio": (1, b, D) and "text":
        (n, b, D); "has_<modality>": bool (1 or n, b); "scale_<pair>" and, for sigmoid, "bias_<pair>": ()."""
        output = {}
        clips = batch["text_id"].shape[1]
        for modality in ("vision", "audio", "text"):
            encoded = getattr(self.encoders, modality)(**batch[modality])
            output[modality] = encoded.pooled.unflatten(0, (-1, clips))  # (1 or n, b, D)
            output[f"has_{modality}"] = encoded.mask.any(1).unflatten(0, (-1, clips))  # (1 or n, b)
        for pair, scale in self.log_scale.items():
            output[f"scale_{pair}"] = scale.exp()  # ()
        for pair, bias in self.bias.items():
            output[f"bias_{pair}"] = bias.clone()  # ()
        return output

    def loss(self, out: dict[str, Tensor], text_id: Tensor, weights: dict[str, float], tile: int, **soft) -> Tensor:
        """The weighted sum over pairs of the mean loss over the n texts a clip has: (). text_id int64 (n, b); soft:
        labels (b, K), soft, soft_width of stage1_align.loss.contrastive."""

        def between(x: Tensor, y: Tensor, valid: Tensor, ids: Tensor, pair: str) -> Tensor:
            scale, bias = out[f"scale_{pair}"], out.get(f"bias_{pair}")
            return contrastive(x, y, scale, ids, valid, kind=self.loss_kind, bias=bias, tile=tile, **soft)

        text, has_text = out["text"], out["has_text"]  # (n, b, D), (n, b)
        total = 0
        for pair, (a, _) in PAIRS.items():
            terms = [
                between(out[a][0], text[n], out[f"has_{a}"][0] & has_text[n], text_id[n], pair)
                for n in range(len(text_id))
            ]
            total = total + weights.get(pair, 1.0) * sum(terms) / len(terms)
        if weights.get("text_text", 0) and len(text_id) == 2:
            valid = has_text[0] & has_text[1]  # (b,)
            total = total + weights["text_text"] * between(text[0], text[1], valid, text_id[1], "vision_text")
        return total

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep each inverse temperature in [1, 100] (CLIP, section 2.5)."""
        for scale in self.log_scale.values():
            scale.clamp_(0, math.log(MAX_SCALE))
