"""Symmetric InfoNCE over the global batch, exact at any number of processes, in O(tile x batch) memory.

Peers differ from the gradient of one process holding the whole batch by a factor (1 / world size, or the number of
accumulation steps on the temperature) or by direction (gathering without gradient). Here the gradient of the global
mean loss is formed in the forward pass, tile by tile, summed over processes, and scaled by the world size, so that the
mean DistributedDataParallel takes over processes is that gradient, for the encoders and the temperature alike.

Method: CLIP (Radford et al. 2021, arXiv 2103.00020); gradient-in-forward as in chunked cross-entropy.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def info_nce(x: Tensor, y: Tensor, scale: Tensor, ids: Tensor, valid: Tensor, tile: int = 1024) -> Tensor:
    """Mean over the two directions of the cross-entropy of scale * x @ y.T against matching rows.

    x, y: (b, D) float, unit rows of this process. scale: () the inverse temperature. ids: int64 (b,); rows with equal
    ids are positives of each other and share the target mass equally. valid: bool (b,); a row that lacks one of its
    two items is neither a query nor a candidate. Every process must hold the same b.

    Returns a scalar whose mean over processes is the loss of the global batch; 0 when no row is valid.
    """
    with torch.autocast(x.device.type, enabled=False):  # logits in fp32: bf16 would round the gradient
        return _InfoNce.apply(x, y, scale, ids, valid, tile)


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, scale, ids, valid, tile):
        rank, world = _rank(), _world()
        x_all, y_all = _gather(x.detach().float()), _gather(y.detach().float())  # (N, D)
        ids_all, valid_all = _gather(torch.stack([ids, valid.to(ids.dtype)], 1)).unbind(1)  # (N,)
        valid_all = valid_all.bool()  # (N,)
        s = scale.detach().float()
        count = valid_all.sum().clamp(min=1)
        mine = slice(rank * len(x), (rank + 1) * len(x))
        dx, dy = torch.zeros_like(x_all), torch.zeros_like(y_all)  # (N, D)
        loss, ds = s.new_zeros(()), s.new_zeros(())

        for queries, keys, dq, dk in ((x_all, y_all, dx, dy), (y_all, x_all, dy, dx)):
            for start in range(mine.start, mine.stop, tile):
                rows = slice(start, min(start + tile, mine.stop))
                q = queries[rows]  # (t, D)
                weight = valid_all[rows].float()[:, None] / (2 * count)  # (t, 1): each direction is half of the loss
                cosine = q @ keys.T  # (t, N)
                logits = (s * cosine).masked_fill_(~valid_all, float("-inf"))  # (t, N)
                positive = (ids_all[rows, None] == ids_all[None]) & valid_all  # (t, N)
                target = positive.float() / positive.sum(1, keepdim=True).clamp(min=1)  # (t, N)
                log_norm = torch.logsumexp(logits, 1, keepdim=True)  # (t, 1)
                log_norm = log_norm.masked_fill(log_norm.isinf(), 0)  # no candidate at all: every weight is 0 then
                loss += (weight[:, 0] * (log_norm[:, 0] - (target * s * cosine).sum(1))).sum()
                grad = (torch.exp(logits - log_norm) - target) * weight  # (t, N), of the logits
                ds += (grad * cosine).sum()
                dq[rows] += s * (grad @ keys)
                dk += s * (grad.T @ q)

        if world > 1:
            dist.all_reduce(dx)
            dist.all_reduce(dy)
        ctx.save_for_backward(world * dx[mine], world * dy[mine], world * ds)
        ctx.dtypes = x.dtype, y.dtype, scale.dtype
        return world * loss

    @staticmethod
    def backward(ctx, upstream):
        gradients = [(upstream * g).to(dtype) for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (*gradients, None, None, None)


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _world() > 1 else 0


def _gather(x: Tensor) -> Tensor:
    """(b, ...) of every process to (W * b, ...), in rank order, without gradient."""
    if _world() == 1:
        return x
    gathered = x.new_empty(_world() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(gathered, x.contiguous())
    return gathered
