"""Temporal enhancement of one modality, and resampling to the common time grid of a clip.

Shapes: B rows, T steps of the modality, S steps of the grid, C or d channels. Masks are bool, True = real. Real steps
come first in a row. Padding never changes the outputs of real steps, and outputs at padding are zero.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stage2_fusion.models.layers.dropout import Dropout


class TCN(nn.Module):
    """Temporal convolutional network (Bai et al. 2018), centered instead of causal, because the whole clip is known.

    Residual blocks with dilations 1, 2, 4, ...; LayerNorm over channels instead of BatchNorm, so that the output for a
    clip depends only on that clip. forward(x (B, T, d), mask (B, T)) -> (B, T, d).
    """

    def __init__(self, width: int, layers: int, kernel: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=2**i, padding=2**i * (kernel // 2)) for i in range(layers)
        )
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None].to(x.dtype)  # (B, T, 1)
        x = x * real
        for norm, conv, pointwise in zip(self.norms, self.convs, self.pointwise, strict=True):
            y = norm(x) * real  # zeros after the end, like the padding of the convolution
            y = nn.functional.gelu(_conv_over_time(conv, y))  # (B, T, d)
            x = (x + self.dropout(pointwise(y))) * real
        return x


def _conv_over_time(conv: nn.Module, x: Tensor) -> Tensor:
    """A centered nn.Conv1d of (B, T, d) over T as one matrix product, without moving the channels."""
    assert isinstance(conv, nn.Conv1d)
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    margin = dilation * (kernel // 2)
    padded = nn.functional.pad(x, (0, 0, margin, margin))  # (B, T + 2 margin, d)
    taps = [padded[:, i * dilation : i * dilation + x.shape[1]] for i in range(kernel)]
    weight = conv.weight.transpose(1, 2).flatten(1)  # (d, kernel d)
    return nn.functional.linear(torch.cat(taps, dim=-1), weight, conv.bias)  # (B, T, d)


class GatedBiLSTM(nn.Module):
    """A bidirectional LSTM with a gate: g * BiLSTM(x) + (1 - g) * x with g = sigmoid(linear([x, BiLSTM(x)])).

    arXiv 2503.10603 names a gated BiLSTM and leaves the gate open; this gate is our own. The forget bias starts at 1
    (Jozefowicz et al. 2015): with 0, the memory would halve at every step, but a rhythm lasts many steps. forward(x (B,
    T, d), mask (B, T)) -> (B, T, d).
    """

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(
            width, width // 2, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        for name, bias in self.lstm.named_parameters():
            if name.startswith("bias_ih"):  # input, forget, cell, output; bias_hh is added to it
                nn.init.constant_(bias.data.chunk(4)[1], 1.0)
        self.gate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        state = self.dropout(self._states(self.norm(x), mask))  # (B, T, d)
        gate = self.gate(torch.cat([x, state], dim=-1)).sigmoid()  # (B, T, d)
        return torch.lerp(x.float(), state.float(), gate.float()) * mask[..., None]

    def _states(self, x: Tensor, mask: Tensor) -> Tensor:
        """Output of the BiLSTM: (B, T, d), undefined at padding."""
        lengths = mask.sum(dim=1)  # (B,)
        if x.device.type != "cpu":
            # A row without steps runs one step of zeros, which the caller masks.
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], True, total_length=x.shape[1])[0]
        # On the CPU, packed sequences run step by step, padded ones in one call. Padding is at the end, so it can only
        # affect the backward direction, which therefore gets the real steps of each row in reverse.
        steps = torch.arange(x.shape[1])  # (T,)
        order = torch.where(mask, lengths[:, None] - 1 - steps, steps)  # (B, T), an involution
        order = (order + x.shape[1] * torch.arange(len(x))[:, None]).flatten()  # (B T,)
        zeros = x.new_zeros(1, len(x), self.lstm.hidden_size, dtype=torch.float32)
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            for layer in range(self.lstm.num_layers):
                weights: list[list[Any]] = [list(w) for w in self.lstm.all_weights[2 * layer : 2 * layer + 2]]
                if layer:
                    x = nn.functional.dropout(x, self.lstm.dropout, self.training)
                settings = (True, 1, 0.0, self.training, False, True)
                ahead = torch.lstm(x, (zeros, zeros), weights[0], *settings)[0]  # (B, T, d / 2)
                back = torch.lstm(_Permute.apply(x, order), (zeros, zeros), weights[1], *settings)[0]
                x = torch.cat([ahead, _Permute.apply(back, order)], dim=-1)  # (B, T, d)
        return x


class _Permute(torch.autograd.Function):
    """Reorder steps (B, T, C) by `order` (B T,), which is its own inverse, so the gradient is the same gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.flatten(0, 1).index_select(0, order).view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, order).view_as(gradient), None


class LastState(nn.Module):
    """The state of the top layer of an LSTM at the last real step. The LSTM is as wide as its input.

    forward(x (B, T, C), mask (B, T)) -> (B, C), zero for a row without steps.
    """

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Padding comes after the state that is read. A packed sequence takes four to eight times as long on a CPU, and
        # not every CPU has an LSTM in bf16.
        with torch.autocast("cpu", enabled=False):
            states = self.lstm(x.float())[0]  # (B, T, C)
        last = (mask.sum(dim=1) - 1).clamp(min=0)  # (B,); the next line masks rows without steps
        rows = torch.arange(len(x), device=x.device)  # (B,)
        return states[rows, last] * mask.any(dim=1, keepdim=True)  # (B, C)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps: (B, T, d), (B, T) -> (B, d); zero for a row without steps."""
    return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def grid_times(duration: Tensor, steps: int) -> Tensor:
    """Centers of `steps` equal parts of each clip, in seconds: (B,) -> (B, S)."""
    return (torch.arange(steps, device=duration.device) + 0.5) / steps * duration[:, None]


def grid_weights(times: Tensor, mask: Tensor, grid: Tensor, duration: Tensor, max_gap: float) -> tuple[Tensor, Tensor]:
    """Weights that resample the steps of a modality to the grid.

    times (B, T), grid (B, S), duration (B,) and max_gap in seconds, mask (B, T) -> weights (B, S, T), mask (B, S). The
    weights are a Gaussian of the distance in time with a standard deviation of half a grid step, normalized over the
    real steps: they average if the modality has several steps per grid step and interpolate if it has fewer. A grid
    step without a real step within `max_gap` is False and has weights zero.
    """
    sigma = (duration / grid.shape[1] / 2).clamp(min=1e-3)[:, None, None]  # (B, 1, 1)
    distance = (grid[:, :, None] - times[:, None, :]).abs()  # (B, S, T)
    distance = distance.masked_fill(~mask[:, None, :], torch.inf)
    near = distance.amin(dim=2) <= max_gap + sigma[..., 0]  # (B, S)
    logits = (-0.5 * (distance / sigma).square()).masked_fill(~near[..., None], 0.0)  # no row of -inf only
    return logits.softmax(dim=2) * near[..., None], near


def positions_in_time(grid: Tensor, width: int) -> Tensor:
    """Sinusoidal encoding (Vaswani et al. 2017) of seconds: (B, S) -> (B, S, width); periods 0.5 to 64 seconds."""
    half = width // 2
    periods = 0.5 * 128 ** torch.linspace(0, 1, half, device=grid.device)  # (half,)
    angle = 2 * torch.pi * grid[..., None] / periods  # (B, S, half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
