"""Contrastive losses over the global batch, exact at any number of processes, in O(tile^2 + batch x D) memory.

The gradient every process ends with, after the mean DistributedDataParallel takes, is that of one process holding the
whole batch: for the encoders, the temperature and the bias alike. It is formed in the forward pass, block by block:

    info_nce   symmetric cross-entropy (CLIP, Radford et al. 2021, arXiv 2103.00020). A walk over the blocks of the
               similarity matrix finds the normaliser of every row and column; the walk back forms both directions'
               gradient from each block at once. A batch of one block is multiplied out once only.
    sigmoid    every pair a yes-or-no question (SigLIP, Zhai et al. 2023, arXiv 2303.15343): one walk.

A process holds the blocks of its own rows of x against all of y: y is gathered, its gradient summed back.

Legend: b rows of this process, n valid rows of all processes, m of them here, r x c a block of the m x n matrix.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from shared.errors import UserError
from shared.registry import nearest

KINDS = ("info_nce", "sigmoid")


def contrastive(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    ids: Tensor,
    valid: Tensor,
    *,
    kind: str = "info_nce",
    bias: Tensor | None = None,
    tile: int = 1024,
    labels: Tensor | None = None,
    soft: float = 0.0,
    soft_width: float = 0.1,
) -> Tensor:
    """The loss of logits z = scale * x @ y.T (+ bias) against targets T made of ids and labels.

    x, y: (b, D) float, unit rows of this process. scale: () the inverse temperature. ids: int64 (b,); rows with equal
    ids are positives of each other. valid: bool (b,); a row that lacks one of its two items is neither a query nor a
    candidate. Every process must hold the same b. tile: side of the square blocks held at once; it changes speed and
    memory alone.

    kind "info_nce": the mean over valid rows and both directions of -sum_j T_ij log softmax_j(z_ij). A row's positives
    share the target mass equally.
    kind "sigmoid": the mean over valid rows of sum_j softplus(z_ij) - T_ij z_ij, T_ij = 1 for positives: the sum of
    softplus(-z) over positives and softplus(z) over the rest. bias: () learned, 0 when None.

    labels: float (b, K), a row with any NaN is unknown. With soft > 0 clips of near labels are positives in part: with
    k_ij = exp(-||labels_i - labels_j||^2 / (2 soft_width^2)),
        info_nce   T_ij <- (1 - soft) T_ij + soft k_ij / sum_j k_ij for a query i of known labels, over the valid
                   candidates j of known labels; a query of unknown labels keeps T.
        sigmoid    T_ij <- (1 - soft) T_ij + soft k_ij where both are known.

    Returns a scalar whose mean over processes is the loss of the global batch; 0 when no row is valid. It can be
    differentiated once. Computed in fp32 whatever x, y and autocast are (float64 stays float64): logits of bf16 would
    round the gradient. UserError for an unknown kind, and for soft without labels.
    """
    if kind not in KINDS:
        raise UserError(f"no contrastive loss called {kind!r}: {nearest(kind, KINDS)}")
    if soft and labels is None:
        raise UserError("soft targets need the labels of the clips: pass labels, or set soft to 0")
    if bias is None or kind == "info_nce":  # a softmax does not see a bias
        bias = torch.zeros_like(scale, requires_grad=False)
    with torch.autocast(x.device.type, enabled=False):
        return _Contrastive.apply(x, y, scale, bias, ids, valid, kind, tile, labels if soft else None, soft, soft_width)


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, scale, bias, ids, valid, kind, tile, labels, soft, soft_width):
        rank, world, b = _rank(), _world(), len(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        s, beta = scale.detach().to(dtype), bias.detach().to(dtype)
        everyone = _gather(torch.stack([ids, valid.to(ids.dtype)], 1))  # (W * b, 2)
        valid_all = everyone[:, 1].bool()  # (W * b,)
        first, n = int(valid_all[: rank * b].sum()), int(valid_all.sum())

        # Rows that lack an item are left out here, so that nothing below knows of them.
        q = _select(x.detach().to(dtype), valid)  # (m, D)
        k = _select(_gather(y.detach().to(dtype)), valid_all)  # (n, D)
        known_labels = None if labels is None else _select(_gather(labels.to(dtype)), valid_all)  # (n, K)
        blocks = [
            (slice(i, min(i + tile, len(q))), slice(j, min(j + tile, n)))
            for i in range(0, len(q), tile)
            for j in range(0, n, tile)
        ]
        targets = _Targets(everyone[valid_all, 0], dtype, known_labels, soft, soft_width, kind, first, blocks)
        walk = _info_nce if kind == "info_nce" else _sigmoid
        loss, dq, dk, dbias = walk(q, k, s, beta, targets, first, blocks)  # gradients of the logits times k and q
        weight = world / (max(n, 1) * (2 if kind == "info_nce" else 1))  # the mean over processes undoes the world
        dscale = sum(((a * g).sum() for a, g in zip(q.split(tile), dq.split(tile), strict=True)), loss.new_zeros(()))

        dx = _expand(dq.mul_(s * weight), valid)  # (b, D)
        dy = _expand(dk.mul_(s * weight), valid_all)  # (W * b, D), the share of this process's rows of x
        if world > 1:
            own = torch.empty_like(dx)
            dist.reduce_scatter_tensor(own, dy)
            dy = own  # (b, D)
        ctx.save_for_backward(dx, dy, weight * dscale, weight * dbias)
        ctx.dtypes = x.dtype, y.dtype, scale.dtype, bias.dtype
        return weight * loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        gradients = [(upstream * g).to(dtype) for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (*gradients, *[None] * 7)


def _info_nce(q, k, s, _, targets, first, blocks):
    by_row, by_column = _Softmax(q, len(q)), _Softmax(q, len(k))
    buffer, scratch = _buffers(q, blocks, 2)
    for rows, columns in blocks:
        logits = _multiply(s * q[rows], k[columns], buffer)  # (r, c)
        by_row.see(logits, rows, 1, scratch)
        by_column.see(logits, columns, 0, scratch)
    by_column.sum_over_processes()
    loss = by_row.log_norm().sum() + by_column.log_norm()[first : first + len(q)].sum()

    dq, dk = torch.zeros_like(q), torch.zeros_like(k)
    for rows, columns in reversed(blocks):
        if (rows, columns) != blocks[-1]:  # that one still stands in the buffer
            logits = _multiply(s * q[rows], k[columns], buffer)  # (r, c)
        target = targets(rows, columns)  # (r, c) or None
        if target is not None:
            loss -= (target * logits).sum()
        of_row = scratch[: logits.numel()].view_as(logits)
        by_row.probabilities(logits, rows, 1, of_row)
        grad = by_column.probabilities(logits, columns, 0, logits).add_(of_row)  # (r, c)
        if target is not None:
            grad -= target
        dq[rows].addmm_(grad, k[columns])
        dk[columns].addmm_(grad.T, q[rows])
    return loss, dq, dk, torch.zeros_like(s)


class _Softmax:
    """Normalisers of logits met block by block. The maximum is kept apart from the sum, since their logarithm would
    round a probability near 1 by more than its distance to 1."""

    def __init__(self, like: Tensor, size: int):
        self.highest = like.new_full((size,), -torch.inf)
        self.total = like.new_zeros(size)  # sum of exp(logits - highest)

    def see(self, logits: Tensor, at: slice, dim: int, scratch: Tensor) -> None:
        highest = torch.maximum(self.highest[at], logits.amax(dim))
        part = torch.sub(logits, highest.unsqueeze(dim), out=scratch[: logits.numel()].view_as(logits)).exp_().sum(dim)
        self.total[at] = self.total[at] * (self.highest[at] - highest).exp_() + part
        self.highest[at] = highest

    def sum_over_processes(self) -> None:
        if _world() > 1:
            own = self.highest.clone()
            dist.all_reduce(self.highest, dist.ReduceOp.MAX)
            self.total *= (own - self.highest).exp_()
            dist.all_reduce(self.total)

    def log_norm(self) -> Tensor:
        return self.highest + self.total.log()

    def probabilities(self, logits: Tensor, at: slice, dim: int, out: Tensor) -> Tensor:
        torch.sub(logits, self.highest[at].unsqueeze(dim), out=out).exp_()
        return out.mul_(1 / self.total[at].unsqueeze(dim))


def _sigmoid(q, k, s, bias, targets, _, blocks):
    loss, dbias = s.new_zeros(()), s.new_zeros(())
    dq, dk = torch.zeros_like(q), torch.zeros_like(k)
    (buffer,) = _buffers(q, blocks, 1)
    for rows, columns in blocks:
        logits = _multiply(s * q[rows], k[columns], buffer).add_(bias)  # (r, c)
        target = targets(rows, columns)  # (r, c) or None
        loss += torch.nn.functional.softplus(logits).sum()
        if target is not None:
            loss -= (target * logits).sum()
        grad = logits.sigmoid_()  # (r, c)
        if target is not None:
            grad -= target
        dbias += grad.sum()
        dq[rows].addmm_(grad, k[columns])
        dk[columns].addmm_(grad.T, q[rows])
    return loss, dq, dk, dbias


class _Targets:
    """Blocks of the target matrix: for info_nce the sum of both directions' targets."""

    def __init__(self, ids, dtype, labels, soft, width, kind, first, blocks):
        """ids: int64 (n,). labels: (n, K) or None. first: where this process's rows begin among the n."""
        self.ids, self.dtype, self.soft, self.width, self.kind, self.first = ids, dtype, soft, width, kind, first
        _, group, count = ids.unique(return_inverse=True, return_counts=True)
        self.count = count[group]  # (n,) rows of the same id
        self.distinct = len(count) == len(ids)
        self.labels = labels
        if labels is None:
            return
        self.known = ~labels.isnan().any(1)  # (n,)
        self.labels = labels.nan_to_num()  # (n, K)
        if kind == "info_nce":
            self.hard = 1 - soft * self.known.to(labels.dtype)  # (n,) what a query leaves to its positives
            mass = labels.new_zeros(len(labels))  # (n,) the kernel is symmetric: sums over rows are sums over columns
            for rows, columns in blocks:
                mass[columns] += self._kernel(self._shift(rows), columns).sum(0)
            if _world() > 1:
                dist.all_reduce(mass)
            self.mass = mass.clamp_(min=1)  # a known row is at distance 0 of itself

    def __call__(self, rows: slice, columns: slice) -> Tensor | None:
        """(r, c); None where no pair of the block has any target."""
        rows = self._shift(rows)
        apart = rows.stop <= columns.start or columns.stop <= rows.start
        if self.labels is None and self.distinct and apart:
            return None
        same = (self.ids[rows, None] == self.ids[columns]).to(self.dtype)  # (r, c)
        if self.kind == "sigmoid":
            if self.labels is None:
                return same
            both = self.known[rows, None] & self.known[columns]  # (r, c)
            return same + self.soft * (self._kernel(rows, columns) - same * both)  # (r, c)
        if self.labels is None:
            return same * (2 / self.count[rows, None])  # (r, c)
        hard = same * ((self.hard[rows, None] + self.hard[columns]) / self.count[columns])  # (r, c)
        kernel = self._kernel(rows, columns)  # (r, c)
        return hard + self.soft * kernel * (1 / self.mass[rows, None] + 1 / self.mass[columns])

    def _shift(self, rows: slice) -> slice:
        return slice(rows.start + self.first, rows.stop + self.first)

    def _kernel(self, rows: slice, columns: slice) -> Tensor:
        """k (r, c); 0 where labels are unknown."""
        a, b = self.labels[rows], self.labels[columns]
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # (r, c): no cancellation when near
        both = self.known[rows, None] & self.known[columns]  # (r, c)
        return torch.exp(-distance.square_() / (2 * self.width**2)) * both


def _buffers(like: Tensor, blocks: list, count: int) -> list[Tensor]:
    """Memory of the largest block, `count` times; taken once, since fresh pages cost more than the arithmetic."""
    size = max(((r.stop - r.start) * (c.stop - c.start) for r, c in blocks), default=0)
    return [like.new_empty(size) for _ in range(count)]


def _multiply(a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
    """a @ b.T (r, c), written into the buffer."""
    return torch.mm(a, b.T, out=buffer[: len(a) * len(b)].view(len(a), len(b)))


def _select(x: Tensor, valid: Tensor) -> Tensor:
    return x if valid.all() else x[valid]


def _expand(x: Tensor, valid: Tensor) -> Tensor:
    """The opposite of `_select`: zeros where not valid."""
    if len(x) == len(valid):
        return x
    whole = x.new_zeros(len(valid), x.shape[1])
    whole[valid] = x
    return whole


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
