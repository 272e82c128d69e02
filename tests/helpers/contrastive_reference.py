"""The contrastive losses written as directly as possible: whole matrices, autograd, float64."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, normalize


def reference(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    ids: Tensor,
    valid: Tensor,
    *,
    kind: str = "info_nce",
    bias: Tensor | None = None,
    labels: Tensor | None = None,
    soft: float = 0.0,
    soft_width: float = 0.1,
) -> Tensor:
    """What stage1_align.loss.contrastive computes in one process."""
    rows = valid.nonzero()[:, 0]  # (n,)
    n = len(rows)
    ids = ids[rows].view(n, -1)  # (n, k)
    hard = (ids[:, None] == ids).any(2).double()  # (n, n)
    kernel, known = torch.zeros(n, n).double(), torch.zeros(n).bool()
    if labels is not None:
        known = ~labels[rows].isnan().any(1)  # (n,)
        for i in range(n):
            for j in range(n):
                if known[i] and known[j]:
                    distance = (labels[rows[i]].double() - labels[rows[j]].double()).square().sum()
                    kernel[i, j] = torch.exp(-distance / (2 * soft_width**2))
    logits = scale.double() * x[rows].double() @ y[rows].double().T  # (n, n)
    if kind == "sigmoid":
        logits = logits + (0 if bias is None else bias.double())
        target = hard.clone()
        for i in range(n):
            for j in range(n):
                if known[i] and known[j]:
                    target[i, j] = (1 - soft) * hard[i, j] + soft * kernel[i, j]
        return binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
    target = hard / hard.sum(1, keepdim=True)
    for i in range(n):
        if known[i]:
            target[i] = (1 - soft) * target[i] + soft * kernel[i] / kernel[i].sum()
    x_to_y, y_to_x = log_softmax(logits, 1), log_softmax(logits.T, 1)  # (n, n)
    return -((target * x_to_y).sum(1).mean() + (target * y_to_x).sum(1).mean()) / 2


LOSSES = {
    "info_nce": {"kind": "info_nce"},
    "sigmoid": {"kind": "sigmoid"},
    "info_nce, soft": {"kind": "info_nce", "soft": 0.3, "soft_width": 0.2},
    "sigmoid, soft": {"kind": "sigmoid", "soft": 0.3, "soft_width": 0.2},
}
"""The options of every loss, by a name for tests and tables."""


def make_inputs(n: int, d: int = 8, seed: int = 0) -> tuple[Tensor, ...]:
    """Unit x, y (n, d), scale and bias (), all with gradients; ids, valid (n,) and labels (n, 2), with equal ids, rows
    that are not valid and unknown labels."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (normalize(torch.randn(n, d, generator=generator), dim=1).requires_grad_() for _ in range(2))
    ids = torch.randint(0, n, (n,), generator=generator)
    valid = torch.rand(n, generator=generator) > 0.2
    labels = torch.rand(n, 2, generator=generator)
    labels[torch.rand(n, generator=generator) < 0.2, 1] = torch.nan
    return x, y, torch.tensor(9.0, requires_grad=True), torch.tensor(-3.0, requires_grad=True), ids, valid, labels
