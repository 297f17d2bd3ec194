"""The network of the tests of training."""

import torch
from torch import nn


class SmallNet(nn.Module):
    """An eps-prediction that is quick, sees the time, and has dropout."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, t):
        shift = self.time(t.to(x.dtype)[:, None] / 1000)[:, :, None, None]
        return self.out(self.dropout(torch.tanh(self.conv(x) + shift)))
