"""Dropout whose random numbers cost less than what they are multiplied with."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """As nn.Dropout. PyTorch draws 64 random bits for each element on the CPU, which takes longer there than a linear
    layer of this stage's sizes; here each element gets 16 of them, so the rate is rounded to 1/65536. The scale is that
    of the rounded rate: the expectation is exact."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not self.training or not 0 < self.p < 1:
            return super().forward(x)
        dropped = round(self.p * 65536)
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32768
        return x * kept.to(x.dtype).mul_(65536 / (65536 - dropped))
