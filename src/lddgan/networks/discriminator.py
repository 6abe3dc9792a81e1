"""The time-dependent discriminators *small* and *large*.

Letters: B batch, C channels of the data, D channels, H and W pixels, E width of the time embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.layers import SQRT_2, Conv2d, conv3x3, near_zero_init, scaled_init, sinusoid
from lddgan.networks.resample import downsample2

Kind = Literal["small", "large"]


def activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


GROUP = 4
"""Samples that the minibatch statistics are taken over."""


def minibatch_std(h: Tensor, group_size: int = GROUP) -> Tensor:
    """Append to `h` `[B, D, H, W]` one channel: the standard deviation within the sample's group, `[B, D + 1, H, W]`.

    The batch falls into K = ceil(B / group_size) groups and sample i belongs to group i mod K, so member j of group k
    is sample `j * K + k`. Any batch size is split into the most equal groups of at most `group_size`: 8 into 4 + 4,
    7 into 4 + 3, 6 into 3 + 3, 3 into 3. The value of a group is the mean over channels and pixels of
    `sqrt(biased variance + 1e-8)`, in float32 also where `h` has half precision.
    """
    batch = len(h)
    groups = -(-batch // group_size)
    size = -(-batch // groups)
    short = size * groups - batch  # the last `short` groups have one member less
    wide = h.to(torch.promote_types(h.dtype, torch.float32))
    members = F.pad(wide.flatten(1), (0, 0, 0, short)).view(size, groups, -1)
    if short:
        full, rest = members[:, : groups - short], members[:-1, groups - short :]
        values = torch.cat([_group_std(full), _group_std(rest)])
    else:
        values = _group_std(members)
    values = values.repeat(size)[:batch].to(h.dtype)
    return torch.cat([h, values.view(-1, 1, 1, 1).expand(-1, 1, *h.shape[2:])], dim=1)


def group_shares(batch: int, parts: int) -> list[Tensor]:
    """Indices that cut a batch into `parts` equal shares, in each of which the groups of `minibatch_std` stay together.

    So a batch that is worked through in shares, one after another or by several processes, has the statistics of the
    whole.

    Raises:
        ValueError: the groups are not equal, or cannot be dealt out evenly.
    """
    groups = -(-batch // GROUP)
    if parts > 1 and (batch % groups or groups % parts):
        raise ValueError(
            f"a batch of {batch} cannot be cut into {parts} parts with whole groups of {GROUP}: take a multiple of "
            f"{GROUP * parts}"
        )
    grid = torch.arange(batch).view(-1, groups) if parts > 1 else torch.arange(batch)[:, None]
    return [share.flatten() for share in grid.chunk(parts, dim=1)]


def _group_std(members: Tensor) -> Tensor:
    """`[size, groups, features]` to `[groups]`."""
    variance = (members - members.mean(0)).square().mean(0)  # torch.var along the first axis takes forty times as long
    return torch.sqrt(variance + 1e-8).mean(1)


class DiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions with the time in between, residual, optionally halving the size."""

    def __init__(self, in_channels: int, out_channels: int, *, time_dim: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv_0 = scaled_init(conv3x3(in_channels, out_channels))
        self.time = scaled_init(nn.Linear(time_dim, out_channels))
        self.conv_1 = near_zero_init(conv3x3(out_channels, out_channels))
        self.shortcut = scaled_init(Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv_0(activation(x)) + self.time(time)[:, :, None, None]
        h = activation(h)
        if self.down:
            h, x = downsample2(h), downsample2(x)
        return (self.conv_1(h) + self.shortcut(x)) / SQRT_2


class Discriminator(nn.Module):
    """`D(x_t, t, x_{t+1})`: is `x_t` real, given the noisier sample it came from?

    *small* starts with a block that keeps the size, *large* halves from the first block on.

    Args:
        channels: channels of `x_t` alone; the network sees both samples.
        width: n, 64 at full size; the blocks run from 2n to 8n channels.
        time_dim: width of the time embedding, even and at least 4.
        kind: "small" or "large".
        num_layers: number of blocks, at least 3.

    Raises:
        ValueError: for sizes that cannot be built; in `forward`, for an image smaller than `min_resolution`.
    """

    def __init__(self, *, channels: int, width: int, time_dim: int, kind: Kind, num_layers: int) -> None:
        super().__init__()
        if kind not in ("small", "large"):
            raise ValueError(f'kind must be "small" or "large", got {kind!r}.')
        if num_layers < 3:
            raise ValueError(f"num_layers must be at least 3, got {num_layers}.")
        if time_dim < 4 or time_dim % 2:
            raise ValueError(f"time_dim must be even and at least 4, got {time_dim}.")
        self.time_dim = time_dim
        growth = [2, 2, 4, 8] if kind == "small" else [2, 4, 8]
        widths = [width * factor for factor in growth]
        widths += [8 * width] * (num_layers + 1 - len(widths))
        self.min_resolution = 2 ** (num_layers - 1 if kind == "small" else num_layers)

        self.time_0 = scaled_init(nn.Linear(time_dim, time_dim))
        self.time_1 = scaled_init(nn.Linear(time_dim, time_dim))
        self.conv_in = scaled_init(Conv2d(2 * channels, widths[0], 1))
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(widths[i], widths[i + 1], time_dim=time_dim, down=kind == "large" or i > 0)
            for i in range(num_layers)
        )
        self.conv_out = conv3x3(widths[-1] + 1, widths[-1])
        self.conv_out = near_zero_init(self.conv_out) if kind == "small" else scaled_init(self.conv_out)
        self.linear_out = scaled_init(nn.Linear(widths[-1], 1))

    def forward(self, x_t: Tensor, t: Tensor, x_next: Tensor) -> Tensor:
        """Logits `[B]`, positive for real.

        Args:
            x_t, x_next: the less and the more noisy sample, `[B, C, H, W]`.
            t: int64 `[B]`, the index of `x_t`.
        """
        if min(x_t.shape[2:]) < self.min_resolution:
            raise ValueError(
                f"A {x_t.shape[2]}x{x_t.shape[3]} input is too small for this discriminator, which "
                f"halves it down from at least {self.min_resolution} pixels; take fewer layers."
            )
        time = activation(
            self.time_1(activation(self.time_0(sinusoid(t, self.time_dim).to(self.time_0.weight.dtype))))
        )  # [B, E]
        h = self.conv_in(torch.cat([x_t, x_next], dim=1))
        for block in self.blocks:
            h = block(h, time)
        h = activation(self.conv_out(minibatch_std(h)))
        return self.linear_out(h.sum((2, 3))).squeeze(1)
