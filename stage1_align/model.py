"""The model of contrastive training: the towers, and a learned temperature (and bias) for each pair."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

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
    **{f"{media}_{kind}": (media, "text") for media in ("vision", "audio") for kind in CAPTIONS},
}
"""{pair name: modalities of its two sides}."""
MAX_SCALE = 100.0
TEXTS_ALONE = (
    "align texts with words made of their labels (--config tiny_labels --towers.leave_out_unused true), or use "
    "a published tower unchanged (--config published)"
)


class ContrastiveModel(nn.Module):
    """Towers and temperatures. `forward` returns embeddings and temperatures together, so that DDP and FSDP see every
    parameter in the forward pass."""

    def __init__(self, encoders: AlignedEncoders, config: LossConfig, captions: Sequence[str], learns: bool = True):
        """captions: the kinds of text of each clip. learns: whether there are training steps.

        Pairs with a missing tower are left out, and text_text if clips have one text. UserError for an unknown pair, a
        pair with a kind of text that `captions` lacks, and, if it `learns`, a tower that no pair trains."""
        super().__init__()
        self.encoders, self.config, self.captions = encoders, config, tuple(captions)
        towers = encoders.towers()
        self.pairs = self._select_pairs(towers)
        """{pair name: weight of its loss}."""
        for modality in towers if learns else ():
            if not any(modality in PAIRS[pair] for pair in self.pairs):
                other = "leave the tower out" if len(towers) > 1 else TEXTS_ALONE
                raise UserError(f"--loss.pairs: no pair trains the {modality} tower; add one, or {other}")

        def one_per_pair(value: float) -> nn.ParameterDict:
            return nn.ParameterDict({pair: nn.Parameter(torch.tensor([value])) for pair in self.pairs})

        # (1,) rather than (): FSDP does not shard scalars.
        self.log_scale = one_per_pair(math.log(config.initial_scale))
        self.bias = one_per_pair(config.initial_bias) if config.kind == "sigmoid" else nn.ParameterDict()

    def _select_pairs(self, towers: dict[str, Any]) -> dict[str, float]:
        for pair in self.config.pairs:
            if pair not in PAIRS:
                raise UserError(f"--loss.pairs: no {pair!r}; {nearest(pair, PAIRS)}")
        pairs = {
            pair: weight
            for pair, weight in self.config.pairs.items()
            if weight > 0 and set(PAIRS[pair]) <= set(towers) and (pair != "text_text" or len(self.captions) > 1)
        }
        for pair in pairs:
            if (kind := _second_side(pair)) in CAPTIONS and kind not in self.captions:
                kinds = ", ".join(self.captions)
                raise UserError(
                    f"--loss.pairs: {pair}, but --pairs.captions is [{kinds}]; add {kind} there, or remove {pair}"
                )
        return pairs

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the modules that FSDP gathers and frees as a unit; Accelerate looks for this name."""
        return sorted({type(block).__name__ for tower in self.encoders.towers().values() for block in tower.blocks()})

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """Embed b clips with n texts each; batch.inputs may lack some towers' inputs.

        Returns "vision", "audio": (1, b, D) and "text": (n, b, D); "has_<modality>": bool (1 or n, b); "scale_<pair>",
        the inverse temperature, and for sigmoid "bias_<pair>": ()."""
        output: dict[str, Tensor] = {}
        clips = batch.text_id.shape[1]
        for modality, tower in self.encoders.towers().items():
            if modality in batch.inputs:
                encoded = tower(**batch.inputs[modality])
                output[modality] = encoded.pooled.unflatten(0, (-1, clips))  # (1 or n, b, D)
                output[f"has_{modality}"] = encoded.mask.any(1).unflatten(0, (-1, clips))  # (1 or n, b)
        for pair, log_scale in self.log_scale.items():
            # Also clamped here: a sharded optimizer (ZeRO) overwrites the result of clamp_scale with its own copy.
            output[f"scale_{pair}"] = ClampWithGrad.apply(log_scale)[0].exp()  # ()
        for pair, bias in self.bias.items():
            output[f"bias_{pair}"] = bias[0]  # ()
        return output

    def losses(self, output: dict[str, Tensor], text_id: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Unweighted loss of each pair, averaged over the kinds of text it applies to: {pair: ()}.

        output: of `forward`. text_id: int64 (n, b), equal for texts that mean the same; vision_audio has no text, so
        clips with an equal first text are its positives. labels: float32 (b, K) or None."""
        losses: dict[str, Tensor] = {}
        for pair in self.pairs:
            terms = [self._pair_loss(pair, output, i, j, text_id, labels) for i, j in self._sides(pair, len(text_id))]
            if terms:
                losses[pair] = _sum(terms) / len(terms)
        return losses

    def _sides(self, pair: str, texts: int) -> list[tuple[int, int]]:
        """Indices of the two sides in each loss of a pair: the kind of text, 0 for vision and audio."""
        kinds = {kind: i for i, kind in enumerate(self.captions[:texts])}
        return [(kinds.get(a, 0), kinds.get(b, 0)) for a, b in loss_sides(pair, self.captions[:texts])]

    @torch.no_grad()
    def contrasted_rows(self, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Local clips that take part in each pair's loss, for the most frequent kind of text: {pair: ()}."""
        rows: dict[str, Tensor] = {}
        for pair in self.pairs:
            first, second = (output[f"has_{side}"] for side in PAIRS[pair])  # (1 or n, b)
            counts = [(first[i] & second[j]).sum().float() for i, j in self._sides(pair, len(output["has_text"]))]
            if counts:
                rows[pair] = torch.stack(counts).max()
        return rows

    def _pair_loss(
        self, pair: str, output: dict[str, Tensor], i: int, j: int, text_id: Tensor, labels: Tensor | None
    ) -> Tensor:
        first, second = PAIRS[pair]
        near = labels if self._has_label_words(pair, i, j) else None  # (b, K)
        return contrastive(
            output[first][i],  # (b, D)
            output[second][j],  # (b, D)
            output[f"scale_{pair}"],
            self._ids(pair, i, j, text_id),  # (b,), or (b, 2) if both sides are texts
            output[f"has_{first}"][i] & output[f"has_{second}"][j],  # (b,)
            kind=self.config.kind,
            bias=output.get(f"bias_{pair}"),
            tile=self.config.tile,
            labels=near,
            soft=self.config.soft if near is not None else 0.0,
            soft_width=self.config.soft_width,
        )

    def _ids(self, pair: str, i: int, j: int, text_id: Tensor) -> Tensor:
        """Ids that say which clips of a loss mean the same: the text of its second side, else the first text. Between
        two texts, either one counts: clips with the same transcript and different labels are not negatives."""
        if PAIRS[pair] == ("text", "text"):
            return torch.stack([text_id[i], text_id[j]], 1)  # (b, 2)
        return text_id[j if PAIRS[pair][1] == "text" else 0]  # (b,)

    def _has_label_words(self, pair: str, i: int, j: int) -> bool:
        """Whether texts generated from labels decide which clips of a loss mean the same. Only these losses use targets
        softened by labels: a loss on transcripts reads no labels."""
        kinds = {self.captions[j if PAIRS[pair][1] == "text" else 0], self.captions[i] if pair == "text_text" else ""}
        return "labels" in kinds

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the pairs' losses: ()."""
        return _sum([self.pairs[pair] * loss for pair, loss in losses.items()])

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep each inverse temperature in [1, 100] (CLIP, section 2.5)."""
        for log_scale in self.log_scale.values():
            log_scale.clamp_(0, math.log(MAX_SCALE))


class ClampWithGrad(torch.autograd.Function):
    """Clamp log_scale (1,) to [0, log MAX_SCALE]. Outside this range, only a gradient that leads back inside passes;
    torch.clamp would stop every gradient."""

    @staticmethod
    def forward(ctx: Any, log_scale: Tensor) -> Tensor:
        ctx.save_for_backward(log_scale)
        return log_scale.clamp(0, math.log(MAX_SCALE))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (log_scale,) = ctx.saved_tensors
        outwards = ((log_scale > math.log(MAX_SCALE)) & (gradient < 0)) | ((log_scale < 0) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


def loss_sides(pair: str, captions: Sequence[str]) -> list[tuple[str, str]]:
    """The two sides of each loss of a pair: vision, audio, or a kind of text among `captions`."""
    first, second = PAIRS[pair]
    if pair == "text_text":
        return list(itertools.combinations(captions, 2))
    if second != "text":
        return [(first, second)]
    return [(first, kind) for kind in captions if _second_side(pair) in ("text", kind)]


def _sum(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


def _second_side(pair: str) -> str:
    """The part after the first modality in a pair's name: text (of every kind), a kind of text, or audio."""
    return pair.partition("_")[2]
