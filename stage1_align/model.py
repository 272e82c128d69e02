"""The model contrastive training optimises: the towers, and one learned temperature (and bias) a pair."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.registry import nearest
from stage1_align.config import CAPTIONS, LossConfig
from stage1_align.data.pairs import PairBatch
from stage1_align.encoders import AlignedEncoders
from stage1_align.loss import contrastive

PAIRS = {
    "vision_text": ("vision", "text"),
    "audio_text": ("audio", "text"),
    "text_text": ("text", "text"),
    "vision_audio": ("vision", "audio"),
    **{f"{side}_{kind}": (side, "text") for side in ("vision", "audio") for kind in CAPTIONS},
}
MAX_SCALE = 100.0


class ContrastiveModel(nn.Module):
    """forward(batch) returns the pooled embeddings of this process's clips and the inverse temperatures, so that one
    wrapped forward sees every parameter."""

    def __init__(self, encoders: AlignedEncoders, config: LossConfig, captions: Sequence[str]):
        """captions: the kinds of texts each clip has. A pair whose tower is missing takes no part, nor does text_text
        where there is one text; UserError for a pair that does not exist, one with a kind of text that is not there,
        and for a tower that no pair is left to train."""
        super().__init__()
        self.encoders, self.config, self.captions = encoders, config, tuple(captions)
        for name in config.pairs:
            if name not in PAIRS:
                raise UserError(f"--loss.pairs: no {name!r}; {nearest(name, PAIRS)}")
        here = encoders.towers()
        self.pairs = {
            name: weight
            for name, weight in config.pairs.items()
            if weight > 0 and set(PAIRS[name]) <= set(here) and (name != "text_text" or len(captions) > 1)
        }
        for name in self.pairs:
            if (kind := _kind(name)) in CAPTIONS and kind not in captions:
                has = ", ".join(captions)
                raise UserError(
                    f"--loss.pairs: {name}, but --pairs.captions is [{has}]; add {kind} there, or take {name} out"
                )
        for modality in here:
            if not any(modality in PAIRS[name] for name in self.pairs):
                raise UserError(f"--loss.pairs: no pair trains the {modality} tower; add one, or leave the tower out")

        def parameter_of_each_pair(value: float) -> nn.ParameterDict:
            return nn.ParameterDict({pair: nn.Parameter(torch.tensor([value])) for pair in self.pairs})

        # Of one element, not of no dimension: FSDP shards no scalars.
        self.log_scale = parameter_of_each_pair(math.log(config.initial_scale))
        self.bias = parameter_of_each_pair(config.initial_bias) if config.kind == "sigmoid" else nn.ParameterDict()

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of what FSDP gathers and frees together, under the name Accelerate looks for."""
        return sorted({type(block).__name__ for tower in self.encoders.towers().values() for block in tower.blocks()})

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """batch: the inputs of some towers; b clips with n texts each. Returns "vision", "audio": (1, b, D) and "text":
        (n, b, D); "has_<modality>": bool (1 or n, b); "scale_<pair>" and, for sigmoid, "bias_<pair>": ()."""
        output = {}
        clips = batch.text_id.shape[1]
        for modality, tower in self.encoders.towers().items():
            if modality in batch.inputs:
                encoded = tower(**batch.inputs[modality])
                output[modality] = encoded.pooled.unflatten(0, (-1, clips))  # (1 or n, b, D)
                output[f"has_{modality}"] = encoded.mask.any(1).unflatten(0, (-1, clips))  # (1 or n, b)
        for pair, log_scale in self.log_scale.items():
            # Held here as well as in clamp_scale, which a sharded optimiser (ZeRO) undoes with its own copy.
            output[f"scale_{pair}"] = _Hold.apply(log_scale)[0].exp()  # ()
        for pair, bias in self.bias.items():
            output[f"bias_{pair}"] = bias[0]  # ()
        return output

    def losses(self, out: dict[str, Tensor], text_id: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The mean loss of each pair over the combinations of texts a clip has, unweighted: {pair: ()}.

        text_id int64 (n, b): of what equals each other. Two pictures and sounds of one first text count as equal.
        labels (b, K) or None."""
        n = len(text_id)
        return {
            pair: sum(terms) / len(terms)
            for pair in self.pairs
            if (terms := [self._between(pair, out, i, j, text_id, labels) for i, j in self._combinations(pair, n)])
        }

    def _combinations(self, pair: str, texts: int) -> list[tuple[int, int]]:
        """Which of the n texts, for each side of a pair; a picture or a sound is number 0."""
        if pair == "text_text":
            return list(itertools.combinations(range(texts), 2))
        if PAIRS[pair][1] != "text":
            return [(0, 0)]
        return [(0, j) for j in range(texts) if _kind(pair) in ("text", self.captions[j])]

    def _between(self, pair: str, out: dict, i: int, j: int, text_id: Tensor, labels: Tensor | None) -> Tensor:
        a, b = PAIRS[pair]
        return contrastive(
            out[a][i],  # (b, D)
            out[b][j],  # (b, D)
            out[f"scale_{pair}"],
            text_id[j if b == "text" else 0],  # (b,)
            out[f"has_{a}"][i] & out[f"has_{b}"][j],  # (b,)
            kind=self.config.kind,
            bias=out.get(f"bias_{pair}"),
            tile=self.config.tile,
            labels=labels,
            soft=self.config.soft if labels is not None else 0.0,
            soft_width=self.config.soft_width,
        )

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum: ()."""
        return sum(self.pairs[pair] * value for pair, value in losses.items())

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep each inverse temperature in [1, 100] (CLIP, section 2.5)."""
        for log_scale in self.log_scale.values():
            log_scale.clamp_(0, math.log(MAX_SCALE))


class _Hold(torch.autograd.Function):
    """log_scale (1,) within its limits. Beyond them a gradient that leads back passes, one that leads further out does
    not."""

    @staticmethod
    def forward(ctx, log_scale: Tensor) -> Tensor:
        ctx.save_for_backward(log_scale)
        return log_scale.clamp(0, math.log(MAX_SCALE))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (log_scale,) = ctx.saved_tensors
        outwards = ((log_scale > math.log(MAX_SCALE)) & (gradient < 0)) | ((log_scale < 0) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


def _kind(pair: str) -> str:
    """The other side of a picture or a sound: all texts, those of one kind, or audio."""
    return pair.partition("_")[2]
