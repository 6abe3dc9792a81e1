from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lddgan.metrics.cost import count_macs, count_parameters, peak_bytes


def test_convolution_and_linear_equal_the_hand_count():
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert count_macs(conv, torch.zeros(2, 3, 16, 16)) == 2 * 8 * 8 * 8 * 3 * 9  # batch, out positions, out, in, taps
    assert count_parameters(conv) == 8 * 3 * 9 + 8
    depthwise = nn.Conv2d(8, 8, 4, stride=2, padding=1, groups=8, bias=False)
    assert count_macs(depthwise, torch.zeros(1, 8, 16, 16)) == 8 * 8 * 8 * 16
    assert count_macs(nn.Linear(5, 7), torch.zeros(3, 4, 5)) == 3 * 4 * 5 * 7


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_is_counted():
    q, k, v = torch.zeros(2, 3, 10, 8), torch.zeros(2, 3, 20, 8), torch.zeros(2, 3, 20, 8)
    assert count_macs(Attention(), q, k, v) == 2 * 3 * (10 * 20 * 8 + 10 * 20 * 8)  # q k^T, then weights times v


def test_the_module_stays_as_it_was_and_other_arguments_pass():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.tied = self.inner
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
            for _ in range(times):
                x = self.tied(self.norm(x)) + torch.ones(4)
            return x

    network = Network()
    assert count_macs(network, torch.zeros(6, 4), 3) == 3 * 6 * 4 * 4
    assert count_parameters(network) == 4 * 4 + 4 + 4 + 4
    assert network.inner.weight.device.type == "cpu" and network.norm.num_batches_tracked == 0


def test_peak_memory_counts_what_is_alive_at_once():
    x = torch.zeros(1000)  # made outside: not counted

    def chain() -> torch.Tensor:
        a = x + 1
        b = a + 1
        del a
        c = b + 1  # b and c
        c += 1  # in place: nothing new
        return c.view(10, 100)  # a view: nothing new

    assert peak_bytes(chain) == 2 * 4000
    assert peak_bytes(lambda: [x + 1, x + 2, x + 3]) == 3 * 4000
    assert peak_bytes(lambda: torch.empty(1000, device="meta").double()) == 4000 + 8000
