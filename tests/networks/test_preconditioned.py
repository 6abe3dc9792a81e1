from __future__ import annotations

import torch
from torch import Tensor, nn

from lddgan.diffusion.schedule import Schedule
from lddgan.networks.preconditioned import Preconditioned


class Constant(nn.Module):
    """A network that answers the same everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        return torch.full_like(x_t, self.value)


def denoised(value: float, deviation: Tensor, x: Tensor, t: int, schedule: Schedule) -> Tensor:
    generator = Preconditioned(Constant(value), schedule, len(deviation))
    generator.set_deviation(schedule, deviation)
    return generator(x, torch.full((len(x),), t), torch.zeros(len(x), 1))


def test_starts_as_the_best_linear_denoiser_of_each_channel():
    schedule, deviation = Schedule(4), torch.tensor([2.0, 0.5])
    random = torch.Generator().manual_seed(0)
    x_0 = deviation[:, None, None] * torch.randn(2000, 2, 4, 4, generator=random)
    for t in range(4):
        noise = torch.randn(x_0.shape, generator=random)
        x = schedule.cumulative_scale[t + 1] * x_0 + schedule.cumulative_std[t + 1] * noise
        regression = (x * x_0).sum((0, 2, 3)) / x.square().sum((0, 2, 3))
        found = denoised(0.0, deviation, torch.ones(1, 2, 1, 1), t, schedule).flatten()
        assert torch.allclose(found, regression, atol=0.03)


def test_the_network_gives_the_error_in_units_of_its_deviation():
    schedule, deviation = Schedule(8), torch.tensor([2.0, 0.5])
    random = torch.Generator().manual_seed(0)
    x_0 = deviation[:, None, None] * torch.randn(2000, 2, 4, 4, generator=random)
    for t in (0, 4, 7):
        noise = torch.randn(x_0.shape, generator=random)
        x = schedule.cumulative_scale[t + 1] * x_0 + schedule.cumulative_std[t + 1] * noise
        linear = denoised(0.0, deviation, x, t, schedule)
        unit = denoised(1.0, deviation, x, t, schedule) - linear
        assert torch.allclose(((x_0 - linear) / unit).std((0, 2, 3)), torch.ones(2), atol=0.02)


def test_samples_of_one_batch_may_have_different_times():
    schedule, deviation = Schedule(4), torch.tensor([1.5])
    generator = Preconditioned(Constant(0.3), schedule, 1)
    generator.set_deviation(schedule, deviation)
    x = torch.randn(4, 1, 2, 2)
    together = generator(x, torch.arange(4), torch.zeros(4, 1))
    for t in range(4):
        assert torch.equal(together[t : t + 1], denoised(0.3, deviation, x[t : t + 1], t, schedule))
