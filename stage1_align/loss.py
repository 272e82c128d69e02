"""Contrastive losses over the global batch, exact at any number of processes, in O(tile^2 + batch x D) memory.

For n pairs of unit vectors x_i, y_j, an inverse temperature s and a bias b, the logits and the loss L are

    z_ij = s <x_i, y_j> + b

    info_nce   L = -1/2n sum_ij [ T_ij log softmax_j(z_ij) + T_ji log softmax_i(z_ij) ]
    sigmoid    L =  1/n  sum_ij [ softplus(z_ij) - T_ij z_ij ]

info_nce is the symmetric cross-entropy of CLIP (Radford et al. 2021, arXiv 2103.00020); sigmoid makes every pair a
binary decision, as in SigLIP (Zhai et al. 2023, arXiv 2303.15343). In these papers, the target T_ij is 1 for j = i and
0 elsewhere; here, equal ids and similar labels are positives too (see `contrastive`). For info_nce the rows of T sum to
one, so with r_i = logsumexp_j z_ij and c_j = logsumexp_i z_ij

    info_nce   L = 1/2n [ sum_i r_i + sum_j c_j - sum_ij (T_ij + T_ji) z_ij ]
               G = dL/dz = 1/2n [ exp(z_ij - r_i) + exp(z_ij - c_j) - (T_ij + T_ji) ]
    sigmoid    G = dL/dz = 1/n  [ sigmoid(z_ij) - T_ij ]

    dL/dx = s G y      dL/dy = s G^T x      dL/ds = sum_i <x_i, (G y)_i>      dL/db = sum_ij G_ij

The gradient is computed in the forward pass, block by block. sigmoid needs one pass over the blocks of z. info_nce
needs two: the first computes r and c; the second, in reverse order, computes the gradient of both directions from each
block. The last block of the first pass is the first block of the second, so a batch of one block is multiplied only
once.

Each process computes the blocks of its own rows of x against all of y: y is gathered, and its gradient is summed back.
The result scales with the number of processes, so that after DistributedDataParallel averages, every process has the
gradient of a single process with the whole batch, for encoders, temperature and bias.

Shapes: b rows of this process, W processes, n valid rows of all processes, m of them of this process, D channels, K
labels; a block has r x c of the m x n logits.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from shared.errors import UserError
from shared.registry import nearest

Block = tuple[slice, slice]
"""Rows of the m local queries, columns of the n candidates."""


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
    """The loss L of the module docstring, with targets T from ids and labels.

    x, y: (b, D) float, unit rows of this process. scale: (), the inverse temperature. ids: int64 (b,) or (b, k); rows
    with the same id in any column are positives of each other, which for k > 1 is not transitive. valid: bool (b,);
    False for a row that lacks one of its two items and is neither query nor candidate. Every process must have the same
    b. tile: side of the square blocks, which affects only speed and memory.

    kind "info_nce": T_ij = 1 / (number of positives of i) for positives, else 0. There is no bias: a softmax does not
    depend on one.
    kind "sigmoid": T_ij = 1 for positives, else 0. bias: () learned, 0 when None.

    labels: float (b, K); a row with any NaN is unknown. With soft > 0, clips with similar labels are partial positives.
    With the kernel k_ij = exp(-||labels_i - labels_j||^2 / (2 soft_width^2)),
        info_nce   T_ij <- (1 - soft) T_ij + soft k_ij / sum_j k_ij for a query i of known labels, over the candidates j
                   of known labels; a query of unknown labels keeps T.
        sigmoid    T_ij <- (1 - soft) T_ij + soft k_ij where both are known.

    Returns a scalar; its mean over processes is L of the global batch. It is 0 if no row is valid. It can be
    differentiated once. Computed in float32 whatever x, y and autocast are (float64 stays float64), since logits in
    bf16 would round the gradient. UserError for an unknown kind, and for soft without labels.
    """
    if kind not in _LOSSES:
        raise UserError(f"no contrastive loss called {kind!r}: {nearest(kind, _LOSSES)}")
    if soft and labels is None:
        raise UserError("soft targets need the labels of the clips: pass labels, or set soft to 0")
    if bias is None or kind == "info_nce":
        bias = torch.zeros_like(scale, requires_grad=False)
    with torch.autocast(x.device.type, enabled=False):
        return _Contrastive.apply(x, y, scale, bias, ids, valid, kind, tile, labels if soft else None, soft, soft_width)


class _Contrastive(torch.autograd.Function):
    """Computes the gradients together with the loss; backward only multiplies them by the upstream gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        bias: Tensor,
        ids: Tensor,
        valid: Tensor,
        kind: str,
        tile: int,
        labels: Tensor | None,
        soft: float,
        soft_width: float,
    ) -> Tensor:
        rank, world, b = _rank(), _world_size(), len(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        s, beta = scale.detach().to(dtype), bias.detach().to(dtype)  # ()
        own_ids = ids.view(b, -1)  # (b, k)
        gathered = _all_gather(torch.cat([own_ids, valid[:, None].to(ids.dtype)], 1))  # (W b, k + 1)
        all_ids, all_valid = gathered[:, :-1], gathered[:, -1].bool()  # (W b, k), (W b,)
        offset, n = int(all_valid[: rank * b].sum()), int(all_valid.sum())

        # Only valid rows from here on.
        queries = _select(x.detach().to(dtype), valid)  # (m, D)
        candidates = _select(_all_gather(y.detach().to(dtype)), all_valid)  # (n, D)
        all_labels = None if labels is None else _select(_all_gather(labels.to(dtype)), all_valid)  # (n, K)
        blocks = _blocks(len(queries), n, tile)
        targets = _Targets(kind, all_ids[all_valid], all_labels, soft, soft_width, offset, blocks, dtype)
        total, dq, dk, dbias = _LOSSES[kind](queries, candidates, s, beta, targets, offset, blocks)
        dscale = _inner_product(queries, dq, tile)  # ()

        # The weight of a row, times the number of processes, because DDP averages over them later.
        weight = world / (max(n, 1) * (2 if kind == "info_nce" else 1))
        dx = _scatter(dq.mul_(s * weight), valid)  # (b, D)
        dy = _scatter(dk.mul_(s * weight), all_valid)  # (W b, D), due to the queries of this process
        if world > 1:
            local_dy = torch.empty_like(dx)
            dist.reduce_scatter_tensor(local_dy, dy)
            dy = local_dy  # (b, D), due to the queries of all processes
        ctx.save_for_backward(dx, dy, weight * dscale, weight * dbias)
        ctx.dtypes = x.dtype, y.dtype, scale.dtype, bias.dtype
        return weight * total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [(upstream * g).to(dtype) for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (*gradients, *[None] * 7)


# --- the two losses --------------------------------------------------------------------------------------------------
# Each returns, for the rows of this process and without the factor 1/n or 1/2n: the loss (), G y (m, D), G^T x (n, D),
# and the sum of G ().

LossAndGradients = tuple[Tensor, Tensor, Tensor, Tensor]


def _info_nce(
    queries: Tensor, candidates: Tensor, s: Tensor, bias: Tensor, targets: "_Targets", offset: int, blocks: list[Block]
) -> LossAndGradients:
    by_row, by_column = _Softmax(queries, len(queries)), _Softmax(queries, len(candidates))
    buffer, scratch = _buffers(queries, blocks, 2)
    for rows, columns in blocks:
        logits = _multiply(s * queries[rows], candidates[columns], buffer)  # (r, c)
        by_row.update(logits, rows, 1, scratch)
        by_column.update(logits, columns, 0, scratch)
    by_column.reduce_over_processes()
    loss = by_row.logsumexp().sum() + by_column.logsumexp()[offset : offset + len(queries)].sum()  # ()

    dq, dk = torch.zeros_like(queries), torch.zeros_like(candidates)  # (m, D), (n, D)
    for rows, columns in reversed(blocks):
        if (rows, columns) != blocks[-1]:  # the last block is still in the buffer
            logits = _multiply(s * queries[rows], candidates[columns], buffer)  # (r, c)
        target = targets(rows, columns)  # (r, c) or None
        if target is not None:
            loss -= (target * logits).sum()
        row_softmax = by_row.probabilities(logits, rows, 1, out=scratch[: logits.numel()].view_as(logits))  # (r, c)
        g = by_column.probabilities(logits, columns, 0, out=logits).add_(row_softmax)  # (r, c)
        if target is not None:
            g -= target
        dq[rows].addmm_(g, candidates[columns])
        dk[columns].addmm_(g.T, queries[rows])
    return loss, dq, dk, torch.zeros_like(s)


def _sigmoid(
    queries: Tensor, candidates: Tensor, s: Tensor, bias: Tensor, targets: "_Targets", offset: int, blocks: list[Block]
) -> LossAndGradients:
    loss, dbias = s.new_zeros(()), s.new_zeros(())
    dq, dk = torch.zeros_like(queries), torch.zeros_like(candidates)  # (m, D), (n, D)
    (buffer,) = _buffers(queries, blocks, 1)
    for rows, columns in blocks:
        logits = _multiply(s * queries[rows], candidates[columns], buffer).add_(bias)  # (r, c)
        target = targets(rows, columns)  # (r, c) or None
        loss += torch.nn.functional.softplus(logits).sum()
        if target is not None:
            loss -= (target * logits).sum()
        g = logits.sigmoid_()  # (r, c)
        if target is not None:
            g -= target
        dbias += g.sum()
        dq[rows].addmm_(g, candidates[columns])
        dk[columns].addmm_(g.T, queries[rows])
    return loss, dq, dk, dbias


_LOSSES: dict[str, Callable[..., LossAndGradients]] = {"info_nce": _info_nce, "sigmoid": _sigmoid}


class _Softmax:
    """Running logsumexp of logits, block by block. Maximum and sum are kept separate: their combination
    max + log(sum) would round a probability near 1 by more than its distance from 1."""

    def __init__(self, like: Tensor, size: int):
        self.max = like.new_full((size,), -torch.inf)
        self.sum = like.new_zeros(size)  # of exp(logits - max)

    def update(self, logits: Tensor, at: slice, dim: int, scratch: Tensor) -> None:
        """Add a block of logits (r, c), reduced over `dim`, to the entries `at`."""
        new_max = torch.maximum(self.max[at], logits.amax(dim))
        exponents = torch.sub(logits, new_max.unsqueeze(dim), out=scratch[: logits.numel()].view_as(logits))  # (r, c)
        self.sum[at] = self.sum[at] * (self.max[at] - new_max).exp_() + exponents.exp_().sum(dim)
        self.max[at] = new_max

    def reduce_over_processes(self) -> None:
        if _world_size() > 1:
            local_max = self.max.clone()
            dist.all_reduce(self.max, dist.ReduceOp.MAX)
            self.sum *= (local_max - self.max).exp_()
            dist.all_reduce(self.sum)

    def logsumexp(self) -> Tensor:
        return self.max + self.sum.log()

    def probabilities(self, logits: Tensor, at: slice, dim: int, out: Tensor) -> Tensor:
        """Softmax over `dim` of a block of logits (r, c), written to `out`, which may be the logits."""
        torch.sub(logits, self.max[at].unsqueeze(dim), out=out).exp_()
        return out.mul_(1 / self.sum[at].unsqueeze(dim))


# --- targets ---------------------------------------------------------------------------------------------------------


def count_positives(ids: Tensor) -> Tensor:
    """How many rows share an id with each row, itself included: ids int64 (n, k) -> int64 (n,). Rows that share several
    ids count once (inclusion-exclusion)."""
    count = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    for size in range(1, ids.shape[1] + 1):
        for columns in itertools.combinations(range(ids.shape[1]), size):
            _, group, sizes = ids[:, list(columns)].unique(dim=0, return_inverse=True, return_counts=True)
            count += sizes[group] if size % 2 else -sizes[group]
    return count


class _Targets:
    """Blocks of the target matrix: T for sigmoid, T + T^T, both directions together, for info_nce."""

    def __init__(
        self,
        kind: str,
        ids: Tensor,
        labels: Tensor | None,
        soft: float,
        soft_width: float,
        offset: int,
        blocks: list[Block],
        dtype: torch.dtype,
    ):
        """ids: int64 (n, k). labels: (n, K) or None. offset: position of this process's first row among the n."""
        self.kind, self.ids, self.dtype = kind, ids, dtype
        self.soft, self.soft_width, self.offset = soft, soft_width, offset
        self.positives = count_positives(ids).to(dtype)  # (n,)
        self.all_distinct = bool((self.positives == 1).all())
        self.labels = labels
        if labels is None:
            return
        self.known = ~labels.isnan().any(1)  # (n,)
        self.labels = labels.nan_to_num()  # (n, K)
        if kind == "info_nce":
            self.hard_mass = 1 - soft * self.known.to(labels.dtype)  # (n,), the target's part for positives
            kernel_sums = labels.new_zeros(len(labels))  # (n,) over rows or columns: the kernel is symmetric
            for rows, columns in blocks:
                kernel_sums[columns] += self._kernel(self._global(rows), columns).sum(0)
            if _world_size() > 1:
                dist.all_reduce(kernel_sums)
            self.kernel_sums = kernel_sums.clamp_(min=1)  # a known row has a kernel of 1 with itself

    def __call__(self, rows: slice, columns: slice) -> Tensor | None:
        """(r, c); None if the whole block is zero."""
        rows = self._global(rows)
        off_diagonal = rows.stop <= columns.start or columns.stop <= rows.start
        if self.labels is None and self.all_distinct and off_diagonal:
            return None
        same_id = self.ids[rows, None, 0] == self.ids[columns, 0]  # (r, c)
        for ids in self.ids.unbind(1)[1:]:
            same_id |= ids[rows, None] == ids[columns]
        same_id = same_id.to(self.dtype)
        if self.kind == "sigmoid":
            if self.labels is None:
                return same_id
            both_known = self.known[rows, None] & self.known[columns]  # (r, c)
            return same_id + self.soft * (self._kernel(rows, columns) - same_id * both_known)  # (r, c)
        if self.labels is None:
            return same_id * (1 / self.positives[rows, None] + 1 / self.positives[columns])  # (r, c)
        shares = self.hard_mass / self.positives  # (n,)
        hard = same_id * (shares[rows, None] + shares[columns])  # (r, c)
        kernel = self._kernel(rows, columns)  # (r, c)
        return hard + self.soft * kernel * (1 / self.kernel_sums[rows, None] + 1 / self.kernel_sums[columns])

    def _global(self, rows: slice) -> slice:
        """Local rows as rows of the n global ones."""
        return slice(rows.start + self.offset, rows.stop + self.offset)

    def _kernel(self, rows: slice, columns: slice) -> Tensor:
        """k (r, c), 0 where labels are unknown."""
        assert self.labels is not None
        a, b = self.labels[rows], self.labels[columns]  # (r, K), (c, K)
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # (r, c): exact for similar labels
        both_known = self.known[rows, None] & self.known[columns]  # (r, c)
        return torch.exp(-distance.square_() / (2 * self.soft_width**2)) * both_known


# --- blocks and rows -------------------------------------------------------------------------------------------------


def _blocks(m: int, n: int, tile: int) -> list[Block]:
    """The m x n matrix, row by row, in blocks of at most tile x tile."""
    return [
        (slice(i, min(i + tile, m)), slice(j, min(j + tile, n))) for i in range(0, m, tile) for j in range(0, n, tile)
    ]


def _buffers(like: Tensor, blocks: list[Block], count: int) -> list[Tensor]:
    """`count` buffers of the largest block. Allocated once: fresh pages cost more than the arithmetic."""
    size = max(((r.stop - r.start) * (c.stop - c.start) for r, c in blocks), default=0)
    return [like.new_empty(size) for _ in range(count)]


def _multiply(a: Tensor, b: Tensor, buffer: Tensor) -> Tensor:
    """a @ b.T (r, c), written to the buffer."""
    return torch.mm(a, b.T, out=buffer[: len(a) * len(b)].view(len(a), len(b)))


def _inner_product(a: Tensor, b: Tensor, tile: int) -> Tensor:
    """sum_i <a_i, b_i> (), `tile` rows at a time."""
    products = ((u * v).sum() for u, v in zip(a.split(tile), b.split(tile), strict=True))
    return sum(products, a.new_zeros(()))


def _select(x: Tensor, valid: Tensor) -> Tensor:
    """The valid rows of x."""
    return x if valid.all() else x[valid]


def _scatter(x: Tensor, valid: Tensor) -> Tensor:
    """Inverse of `_select`: zeros in the rows that are not valid."""
    if len(x) == len(valid):
        return x
    out = x.new_zeros(len(valid), x.shape[1])
    out[valid] = x
    return out


# --- processes -------------------------------------------------------------------------------------------------------


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _world_size() > 1 else 0


def _all_gather(x: Tensor) -> Tensor:
    """(b, ...) of every process to (W b, ...), in rank order, without gradient."""
    if _world_size() == 1:
        return x
    gathered = x.new_empty(_world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(gathered, x.contiguous())
    return gathered
