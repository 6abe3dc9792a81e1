"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn


class Ema:
    """`average = decay * average + (1 - decay) * weights`, starting at the weights after the first update.

    Thin over `AveragedModel`, which copies the weights at its first update; buffers are copied each time.
    """

    def __init__(self, model: nn.Module, decay: float, *, warm_up: bool = True) -> None:
        """
        Args:
            warm_up: after n updates decay by at most `(1 + n) / (10 + n)`: the first weights, which have learnt
                nothing, are soon forgotten. After 700 updates at 0.999 they would still be half of the average. The
                published training has none.
        """

        def average(averaged: PARAM_LIST, current: PARAM_LIST, count: Tensor | int) -> None:
            n = int(count)
            now = min(decay, (1 + n) / (10 + n)) if warm_up else decay
            get_ema_multi_avg_fn(now)(averaged, current, count)

        self._averaged = AveragedModel(model, multi_avg_fn=average)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The averaged network."""
        return self._averaged.module

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict:
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self._averaged.load_state_dict(state)
