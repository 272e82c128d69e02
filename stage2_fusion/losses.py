"""The loss of stage 2: MSE, correlation over recent batches, ranking of quality weights, and terms of the model.

The paper (arXiv 2503.10603) names no loss; this one is our own. All terms are computed in float32 on the rows of the
whole global batch, so their gradient does not depend on the number of processes (see step.py).

Shapes: N rows of the global batch, K dimensions, M remembered rows, 3 modalities (vision, audio, text).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.config import LossConfig


class LossInputs(NamedTuple):
    """The inputs of the loss, for all rows of the global batch."""

    prediction: Tensor
    """(N, K), in the units of the labels; a linear output may leave [0, 1]."""
    labels: Tensor
    """(N, K), NaN = not labeled."""
    weights: Tensor
    """(N, 3), mean weight of each modality over the steps of a clip; 0 where it is absent."""
    damaged: Tensor
    """bool (N, 3), True = the modality was deliberately damaged."""
    branches: Tensor | None = None
    """(N, 3, K), the prediction from each modality alone, NaN if it is absent, for models that have such
    predictions."""
    penalty: Tensor | None = None
    """(N,), a loss term of the model itself, for models that have one."""


def masked_mse(prediction: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error over the labels that are not NaN: (N, K), (N, K) -> (). Zero without such labels."""
    known = ~labels.isnan()  # (N, K)
    error = torch.where(known, prediction - labels.nan_to_num(0.0), 0.0)  # (N, K)
    return error.square().sum() / known.sum().clamp(min=1)


def correlations(prediction: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pearson's and Lin's (1989) correlation of each dimension over the rows with a label: (N, K), (N, K) -> PCC (K,),
    CCC (K,), and bool (K,).

        PCC = S_xy / sqrt(S_xx S_yy)        CCC = 2 S_xy / (S_xx + S_yy + n (mean_x - mean_y)^2)

    with sums of centered products S. The last is True for dimensions in which both sides vary; for the others, both
    correlations are 0 and have no gradient."""
    prediction, known = prediction.float(), ~labels.isnan()  # (N, K)
    labels = labels.float().nan_to_num(0.0)  # (N, K)
    count = known.sum(dim=0).clamp(min=1)  # (K,)
    mean_x, mean_y = (prediction * known).sum(dim=0) / count, (labels * known).sum(dim=0) / count  # (K,)
    x = torch.where(known, prediction - mean_x, 0.0)  # (N, K)
    y = torch.where(known, labels - mean_y, 0.0)  # (N, K)
    xx, yy, xy = x.square().sum(dim=0), y.square().sum(dim=0), (x * y).sum(dim=0)  # (K,)
    varies = (xx > 1e-8 * count) & (yy > 1e-8 * count) & (known.sum(dim=0) > 2)  # (K,)
    pcc_scale = torch.where(varies, xx * yy, 1.0).sqrt()  # (K,)
    ccc_scale = torch.where(varies, xx + yy + count * (mean_x - mean_y).square(), 1.0)  # (K,)
    return torch.where(varies, xy / pcc_scale, 0.0), torch.where(varies, 2 * xy / ccc_scale, 0.0), varies


def branch_loss(branches: Tensor, labels: Tensor, weights: dict[str, float]) -> Tensor:
    """Weighted smooth L1 loss of each modality's own prediction: (N, 3, K), (N, K) -> (). Absent modalities and missing
    labels, both NaN, do not count."""
    total = branches.new_zeros(())
    for m, name in enumerate(MODALITIES):
        prediction = branches[:, m].float()  # (N, K)
        known = ~(prediction.isnan() | labels.isnan())  # (N, K)
        error = nn.functional.smooth_l1_loss(prediction.nan_to_num(0.0), labels.nan_to_num(0.0), reduction="none")
        total = total + weights.get(name, 0.0) * torch.where(known, error, 0.0).sum() / known.sum().clamp(min=1)
    return total


def branch_correlation_loss(branches: Tensor, labels: Tensor, weights: dict[str, float]) -> Tensor:
    """Weighted 1 - PCC of each modality's own prediction, over the dimensions in which it and its labels vary: (N, 3,
    K), (N, K) -> (). Absent modalities and missing labels, both NaN, do not count."""
    total = branches.new_zeros((), dtype=torch.float32)
    for m, name in enumerate(MODALITIES):
        prediction = branches[:, m]  # (N, K)
        known = labels.masked_fill(prediction.isnan(), torch.nan)  # (N, K)
        pcc, _, varies = correlations(prediction.nan_to_num(0.0), known)  # (K,)
        total = total + weights.get(name, 0.0) * ((1 - pcc) * varies).sum() / varies.sum().clamp(min=1)
    return total


BRANCH_LOSSES = {"smooth_l1": branch_loss, "pcc": branch_correlation_loss}


def quality_ranking(weights: Tensor, damaged: Tensor, margin: float) -> Tensor:
    """A damaged modality must have a lower weight than the same modality of the same clip undamaged.

    weights (N, 3), damaged bool (N, 3): rows come in pairs; 2i is an undamaged clip, 2i + 1 a damaged view of it. The
    loss is max(0, log w_damaged - log w_clean + margin), averaged over the damaged modalities of all pairs; zero when
    there are none. It demands no more than the margin: dark or blurred pictures still carry part of the information,
    and the prediction loss determines how much of it to use. Pairs with different modalities present on the two sides
    do not count: modality dropout may hide a modality on one side, which by itself changes the weights of the others.
    """
    log_weights = weights.float().clamp(min=1e-6).log()  # (N, 3)
    clean, other = log_weights[0::2], log_weights[1::2]  # (N/2, 3)
    present = weights > 0  # (N, 3)
    comparable = (present[0::2] == present[1::2]).all(dim=1, keepdim=True)  # (N/2, 1)
    counted = damaged[1::2] & ~damaged[0::2] & present[1::2] & comparable  # (N/2, 3)
    loss = torch.where(counted, (other - clean + margin).relu(), 0.0)  # (N/2, 3)
    return loss.sum() / counted.sum().clamp(min=1)


class FusionLoss(nn.Module):
    """The weighted sum of all terms, with a memory of recent predictions for the correlations.

    The memory, buffers (M, K) that are NaN until filled, is part of the checkpoint.
    """

    predictions: Tensor
    labels: Tensor

    def __init__(self, config: LossConfig, dimensions: int):
        super().__init__()
        self.config = config
        self.register_buffer("predictions", torch.full((config.memory, dimensions), torch.nan))
        self.register_buffer("labels", torch.full((config.memory, dimensions), torch.nan))

    def forward(self, inputs: LossInputs, paired: bool, epoch: float) -> dict[str, Tensor]:
        """Returns "loss" to minimize and its unweighted terms "mse", "pcc" (1 - PCC), "ccc" (1 - CCC), "quality", and
        "branches" (weighted) and "penalty" if the model has them: (). Updates the memory.

        paired: rows come as pairs of an undamaged clip and a damaged view. epoch: epochs done, with fractions, for the
        ramp. UserError for a weight on a term that the model does not have."""
        config = self.config
        prediction = inputs.prediction.float()  # (N, K)
        terms = {"mse": masked_mse(prediction, inputs.labels)}
        terms["pcc"], terms["ccc"] = self._correlation_losses(prediction, inputs.labels)
        terms["quality"] = prediction.new_zeros(())
        if paired:
            terms["quality"] = quality_ranking(inputs.weights, inputs.damaged, config.margin)
        ramp = min(1.0, epoch / config.ramp_epochs) if config.ramp_epochs else 1.0
        total = config.mse * terms["mse"] + config.quality * terms["quality"]
        total = total + ramp * (config.pcc * terms["pcc"] + config.ccc * terms["ccc"])
        if inputs.branches is not None:  # also with weight 0: DDP waits for a gradient of every parameter
            terms["branches"] = BRANCH_LOSSES[config.branch_loss](inputs.branches, inputs.labels, config.branches)
            total = total + terms["branches"]
        elif config.branches:
            raise UserError("--loss.branches: this model makes no predictions of single modalities; leave it empty")
        if inputs.penalty is not None:
            terms["penalty"] = inputs.penalty.float().mean()
            total = total + config.penalty * terms["penalty"]
        elif config.penalty:
            raise UserError("--loss.penalty: this model has no penalty of its own; leave it 0")
        return {"loss": total, **terms}

    def _correlation_losses(self, prediction: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """1 - PCC and 1 - CCC over batch and memory together, each averaged over the dimensions that vary: ().

        Only the batch has a gradient: N of N + M rows, and so only that fraction of the gradient of the correlation. It
        is scaled by (N + M) / N, which estimates the gradient over all rows, whatever the size of the memory.
        """
        filled = ~self.predictions.isnan().any(dim=1)  # (M,)
        pcc, ccc, varies = correlations(
            torch.cat([prediction, self.predictions[filled]]), torch.cat([labels, self.labels[filled]])
        )  # (K,)
        if self.config.memory:
            with torch.no_grad():
                self.predictions.copy_(torch.cat([prediction.detach(), self.predictions])[: self.config.memory])
                self.labels.copy_(torch.cat([labels, self.labels])[: self.config.memory])
        scale = 1 + filled.sum() / len(prediction)  # ()
        pcc_loss, ccc_loss = (((1 - value) * varies).sum() / varies.sum().clamp(min=1) for value in (pcc, ccc))
        return _scale_gradient(pcc_loss, scale), _scale_gradient(ccc_loss, scale)


def _scale_gradient(loss: Tensor, scale: Tensor) -> Tensor:
    """The same value with `scale` times the gradient."""
    return loss.detach() + scale * (loss - loss.detach())
