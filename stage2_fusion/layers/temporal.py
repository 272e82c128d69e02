"""Temporal enhancement of one modality, and its way onto the clip's common time grid.

Shapes: B rows, T steps of the modality, S steps of the grid, C or d channels. Masks are bool, True = real. Real steps
come first in a row; padding never changes the outputs of real steps, and outputs at padding are zero.
"""

import torch
from torch import Tensor, nn


class TCN(nn.Module):
    """Temporal convolutional network (Bai et al. 2018), centred rather than causal: the whole clip is there.

    Residual blocks with dilations 1, 2, 4, ...; LayerNorm over channels rather than BatchNorm, so that a clip's output
    depends on that clip alone. forward(x (B, T, d), mask (B, T)) -> (B, T, d).
    """

    def __init__(self, width: int, layers: int, kernel: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=2**i, padding=2**i * (kernel // 2)) for i in range(layers)
        )
        self.mixes = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None].to(x.dtype)  # (B, T, 1)
        x = x * real
        for norm, convolution, mix in zip(self.norms, self.convolutions, self.mixes, strict=True):
            y = norm(x) * real  # zeros beyond the end, as the convolution's own padding has
            y = convolution(y.transpose(1, 2)).transpose(1, 2)  # (B, T, d)
            x = (x + self.dropout(mix(nn.functional.gelu(y)))) * real
        return x


class GatedBiLSTM(nn.Module):
    """A bidirectional LSTM behind a gate: g * BiLSTM(x) + (1 - g) * x with g = sigmoid(linear([x, BiLSTM(x)])).

    arXiv 2503.10603 names a gated BiLSTM and leaves the gate open; this gate is ours. It lets the layer begin as almost
    the identity. forward(x (B, T, d), mask (B, T)) -> (B, T, d).
    """

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(
            width, width // 2, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        self.gate = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # an absent row runs one step of zeros, masked below
        packed = nn.utils.rnn.pack_padded_sequence(self.norm(x), lengths, batch_first=True, enforce_sorted=False)
        state, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        state = self.dropout(state)  # (B, T, d)
        gate = self.gate(torch.cat([x, state], dim=-1)).sigmoid()  # (B, T, d)
        return (gate * state + (1 - gate) * x) * mask[..., None]


class LastState(nn.Module):
    """A clip in one vector: the top state of an LSTM, as wide as its input, at the last real step.

    forward(x (B, T, C), mask (B, T)) -> (B, C), zero for a row without any step.
    """

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # an absent row runs one step of zeros, masked below
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][-1] * mask.any(dim=1, keepdim=True)  # (B, C)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps: (B, T, d), (B, T) -> (B, d); zero for a row without any."""
    return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def grid_times(duration: Tensor, steps: int) -> Tensor:
    """Centres of `steps` equal parts of each clip, in seconds: (B,) -> (B, S)."""
    return (torch.arange(steps, device=duration.device) + 0.5) / steps * duration[:, None]


def grid_weights(times: Tensor, mask: Tensor, grid: Tensor, duration: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """How much each step of a modality counts at each step of the grid.

    times (B, T), grid (B, S), duration (B,) and reach in seconds, mask (B, T) -> weights (B, S, T), mask (B, S).
    A Gaussian over the distance in time, as wide as half a grid step, normalised over the real steps: it averages where
    the modality has several steps per grid step and interpolates where it has fewer. A grid step with no real step
    within `reach` is False and has weights zero.
    """
    sigma = (duration / grid.shape[1] / 2).clamp(min=1e-3)[:, None, None]  # (B, 1, 1)
    distance = (grid[:, :, None] - times[:, None, :]).abs()  # (B, S, T)
    distance = distance.masked_fill(~mask[:, None, :], torch.inf)
    near = distance.amin(dim=2) <= reach + sigma[..., 0]  # (B, S)
    logits = (-0.5 * (distance / sigma).square()).masked_fill(~near[..., None], 0.0)  # no row of -inf alone
    return logits.softmax(dim=2) * near[..., None], near


def positions_in_time(grid: Tensor, width: int) -> Tensor:
    """Sinusoidal encoding (Vaswani et al. 2017) of seconds: (B, S) -> (B, S, width); periods 0.5 to 64 seconds."""
    half = width // 2
    periods = 0.5 * 128 ** torch.linspace(0, 1, half, device=grid.device)  # (half,)
    angle = 2 * torch.pi * grid[..., None] / periods  # (B, S, half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
