"""The loss of stage 2: MSE, correlation over more than one batch, ranking of quality weights, and what a model adds.
All in float32.

The paper names no loss; this one is ours. Every part takes the rows of the whole global batch, so that its gradient
does not depend on the number of processes (see train.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.config import LossConfig


class Rows(NamedTuple):
    """What the loss reads: N rows of prediction (N, K), labels (N, K), weights (N, 3) per clip and damaged bool (N, 3),
    and where the model has them branches (N, 3, K) and penalty (N,) (see models/base.py)."""

    prediction: Tensor
    labels: Tensor
    weights: Tensor
    damaged: Tensor
    branches: Tensor | None = None
    penalty: Tensor | None = None


def masked_mse(prediction: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error over the labels that are not NaN: (N, K), (N, K) -> (). Zero when there are none."""
    known = ~labels.isnan()  # (N, K)
    error = torch.where(known, prediction - labels.nan_to_num(0.0), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)


def correlations(prediction: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """PCC (K,) and CCC (K,, Lin 1989) per dimension over rows whose label is not NaN: (N, K), (N, K) -> and bool (K,):
    True where both sides vary. Elsewhere both are 0 and have no gradient."""
    prediction, known = prediction.float(), ~labels.isnan()
    labels = labels.float().nan_to_num(0.0)
    count = known.sum(dim=0).clamp(min=1)  # (K,)
    means = (prediction * known).sum(dim=0) / count, (labels * known).sum(dim=0) / count  # (K,) each
    x = torch.where(known, prediction - means[0], 0.0)  # (N, K)
    y = torch.where(known, labels - means[1], 0.0)
    xx, yy, xy = x.square().sum(dim=0), y.square().sum(dim=0), (x * y).sum(dim=0)  # (K,)
    varies = (xx > 1e-8 * count) & (yy > 1e-8 * count) & (known.sum(dim=0) > 2)
    norm = torch.where(varies, xx * yy, 1.0).sqrt()
    spread = torch.where(varies, xx + yy + count * (means[0] - means[1]).square(), 1.0)
    return torch.where(varies, xy / norm, 0.0), torch.where(varies, 2 * xy / spread, 0.0), varies


def branch_loss(branches: Tensor, labels: Tensor, weights: dict[str, float]) -> Tensor:
    """Weighted smooth L1 of what each modality predicts alone: (N, 3, K), (N, K) -> (). Absent modalities and unknown
    labels, both NaN, do not count."""
    total = branches.new_zeros(())
    for m, name in enumerate(MODALITIES):
        alone = branches[:, m].float()  # (N, K)
        known = ~(alone.isnan() | labels.isnan())
        error = nn.functional.smooth_l1_loss(alone.nan_to_num(0.0), labels.nan_to_num(0.0), reduction="none")  # (N, K)
        total = total + weights.get(name, 0.0) * torch.where(known, error, 0.0).sum() / known.sum().clamp(min=1)
    return total


def quality_ranking(weights: Tensor, damaged: Tensor, margin: float) -> Tensor:
    """How far the weight of a damaged modality fails to lie below its weight in the same clip undamaged.

    Rows come in pairs: 2i is a clip as it is, 2i + 1 its damaged view. weights (N, 3): mean over the steps of a clip, 0
    where a modality is absent; damaged bool (N, 3). softplus(log w_damaged - log w_clean + margin), averaged over the
    pairs that show the same modalities on both sides (dropout may hide another one from either, and the weights of
    what is left would differ for that reason alone); zero when there are none.
    """
    score = weights.float().clamp(min=1e-6).log()  # (N, 3)
    clean, worse = score[0::2], score[1::2]  # (N/2, 3)
    present = weights > 0  # (N, 3)
    same = (present[0::2] == present[1::2]).all(dim=1, keepdim=True)  # (N/2, 1)
    counted = damaged[1::2] & ~damaged[0::2] & present[1::2] & same  # (N/2, 3)
    loss = torch.where(counted, nn.functional.softplus(worse - clean + margin), 0.0)
    return loss.sum() / counted.sum().clamp(min=1)


class FusionLoss(nn.Module):
    """The weighted sum, and the memory of recent predictions that the correlation is computed over.

    The memory (buffers of NaN until filled) is part of the checkpoint: a resumed run continues to the bit.
    """

    def __init__(self, config: LossConfig, dimensions: int):
        super().__init__()
        self.config = config
        self.register_buffer("predictions", torch.full((config.memory, dimensions), torch.nan))
        self.register_buffer("labels", torch.full((config.memory, dimensions), torch.nan))

    def forward(self, rows: Rows, paired: bool, epoch: float) -> dict[str, Tensor]:
        """`paired`: rows come as clean and damaged pairs; `epoch`: epochs done, for the ramp. Returns "loss" to descend
        and its parts "mse", "pcc" (1 - PCC), "ccc" (1 - CCC), "quality", and "branches", "penalty" where the model has
        them. Updates the memory."""
        config, nothing = self.config, rows.prediction.new_zeros((), dtype=torch.float32)
        prediction = rows.prediction.float()
        parts = {"mse": masked_mse(prediction, rows.labels)}
        parts["pcc"], parts["ccc"] = self._correlation(prediction, rows.labels)
        parts["quality"] = quality_ranking(rows.weights, rows.damaged, config.margin) if paired else nothing
        ramp = min(1.0, epoch / config.ramp_epochs) if config.ramp_epochs else 1.0
        total = config.mse * parts["mse"] + config.quality * parts["quality"]
        total = total + ramp * (config.pcc * parts["pcc"] + config.ccc * parts["ccc"])
        if rows.branches is not None:  # also at weight 0: DDP waits for a gradient of every parameter
            parts["branches"] = branch_loss(rows.branches, rows.labels, config.branches)
            total = total + parts["branches"]
        elif config.branches:
            raise UserError("--loss.branches: this model makes no predictions of single modalities; leave it empty")
        if rows.penalty is not None:
            parts["penalty"] = rows.penalty.float().mean()
            total = total + config.penalty * parts["penalty"]
        elif config.penalty:
            raise UserError("--loss.penalty: this model has no penalty of its own; leave it 0")
        return {"loss": total, **parts}

    def _correlation(self, prediction: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Means of 1 - PCC and 1 - CCC over the dimensions that vary, over this batch and the memory.

        The batch is n of n + m rows and so has only that share of the correlation's gradient; the gradient is scaled by
        (n + m) / n, which makes it an estimate of the gradient over all rows, whatever the memory's size.
        """
        filled = ~self.predictions.isnan().any(dim=1)  # (M,)
        *values, varies = correlations(
            torch.cat([prediction, self.predictions[filled]]), torch.cat([labels, self.labels[filled]])
        )
        if self.config.memory:
            with torch.no_grad():
                self.predictions.copy_(torch.cat([prediction.detach(), self.predictions])[: self.config.memory])
                self.labels.copy_(torch.cat([labels, self.labels])[: self.config.memory])
        scale = 1 + filled.sum() / len(prediction)
        losses = [((1 - value) * varies).sum() / varies.sum().clamp(min=1) for value in values]
        return tuple(loss.detach() + scale * (loss - loss.detach()) for loss in losses)
