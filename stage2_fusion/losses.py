"""The loss of stage 2: MSE, correlation over more than one batch, and ranking of quality weights. All in float32.

The paper names no loss; this one is ours. Every part takes the rows of the whole global batch, so that its gradient
does not depend on the number of processes (see train.py).
"""

import torch
from torch import Tensor, nn

from stage2_fusion.config import LossConfig


def masked_mse(prediction: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error over the labels that are not NaN: (N, K), (N, K) -> (). Zero when there are none."""
    known = ~labels.isnan()  # (N, K)
    error = torch.where(known, prediction - labels.nan_to_num(0.0), 0.0)
    return error.square().sum() / known.sum().clamp(min=1)


def pearson(prediction: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation per dimension over rows whose label is not NaN: (N, K), (N, K) -> (K,), and bool (K,): True where
    both sides vary. Elsewhere the correlation is 0 and has no gradient."""
    prediction, known = prediction.float(), ~labels.isnan()
    labels = labels.float().nan_to_num(0.0)
    count = known.sum(dim=0).clamp(min=1)  # (K,)
    x = torch.where(known, prediction - (prediction * known).sum(dim=0) / count, 0.0)  # (N, K)
    y = torch.where(known, labels - (labels * known).sum(dim=0) / count, 0.0)
    xx, yy = x.square().sum(dim=0), y.square().sum(dim=0)  # (K,)
    varies = (xx > 1e-8 * count) & (yy > 1e-8 * count) & (known.sum(dim=0) > 2)
    norm = torch.where(varies, xx * yy, 1.0).sqrt()
    return torch.where(varies, (x * y).sum(dim=0) / norm, 0.0), varies


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

    def forward(
        self, prediction: Tensor, labels: Tensor, weights: Tensor, damaged: Tensor, paired: bool, epoch: float
    ) -> dict[str, Tensor]:
        """prediction, labels (N, K); weights (N, 3) per clip; damaged bool (N, 3); `paired`: rows come as clean and
        damaged pairs. Returns "loss" to descend and its parts "mse", "pcc" (1 - PCC), "quality". Updates the memory."""
        prediction = prediction.float()
        parts = {"mse": masked_mse(prediction, labels)}
        parts["pcc"] = self._correlation(prediction, labels)
        nothing = prediction.new_zeros(())
        parts["quality"] = quality_ranking(weights, damaged, self.config.margin) if paired else nothing
        ramp = min(1.0, epoch / self.config.ramp_epochs) if self.config.ramp_epochs else 1.0
        config = self.config
        total = config.mse * parts["mse"] + config.pcc * ramp * parts["pcc"] + config.quality * parts["quality"]
        return {"loss": total, **parts}

    def _correlation(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """Mean of 1 - PCC over the dimensions that vary, over this batch and the memory.

        The batch is n of n + m rows and so has only that share of the correlation's gradient; the gradient is scaled by
        (n + m) / n, which makes it an estimate of the gradient over all rows, whatever the memory's size.
        """
        filled = ~self.predictions.isnan().any(dim=1)  # (M,)
        values, varies = pearson(
            torch.cat([prediction, self.predictions[filled]]), torch.cat([labels, self.labels[filled]])
        )
        if self.config.memory:
            with torch.no_grad():
                self.predictions.copy_(torch.cat([prediction.detach(), self.predictions])[: self.config.memory])
                self.labels.copy_(torch.cat([labels, self.labels])[: self.config.memory])
        loss = ((1 - values) * varies).sum() / varies.sum().clamp(min=1)
        scale = 1 + filled.sum() / len(prediction)
        return loss.detach() + scale * (loss - loss.detach())
