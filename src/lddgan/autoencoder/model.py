"""The VQGAN/LDM autoencoder (paper, Section 4.2; Esser et al. 2021; Rombach et al. 2022).

B batch, C image channels, Z latent channels, R resolution, f = 2^(levels - 1) the factor, r = R / f.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.autoencoder.quantiser import Quantiser
from lddgan.networks.layers import Conv2d, GroupNorm

Kind = Literal["free", "quantised", "kl"]
"""What holds the latent: nothing (the paper's), a codebook inside the decoder, or a KL penalty (Table 7)."""
LOG_VARIANCE_RANGE = (-30.0, 20.0)
SHORTCUT_LOG_VARIANCE = -6.0
"""Where the log variance of a KL latent starts beside a linear shortcut, whose channels have unit variance."""


class ResidualBlock(nn.Module):
    """Group norm, SiLU, conv, twice; a 1x1 shortcut when the width changes; `x + h`."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Single-head attention over pixels; `x + h`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.q, self.k, self.v, self.out = (Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)  # [B, 1, HW, C]
        return x + self.out(h.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """Strided 3x3 conv, padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest neighbour, then a 3x3 conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _level(in_channels: int, out_channels: int, blocks: int, attention: bool, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers.append(ResidualBlock(in_channels if block == 0 else out_channels, out_channels, dropout))
        if attention:
            layers.append(Attention(out_channels))
    return nn.Sequential(*layers)


def _middle(channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels, dropout), Attention(channels), ResidualBlock(channels, channels, dropout)
    )


class Encoder(nn.Module):
    """Images `[B, C, R, R]` to the latent `[B, Z, r, r]`; arguments as of `Autoencoder`."""

    def __init__(
        self, channels: int, latent_channels: int, widths: Sequence[int], num_blocks: int,
        attention_levels: Sequence[int], dropout: float, linear_shortcut: bool, log_variance: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent_channels = latent_channels
        moments = 2 * latent_channels if log_variance else latent_channels
        last = len(widths) - 1
        self.conv_in = Conv2d(channels, widths[0], 3, padding=1)
        self.levels, self.down = nn.ModuleList(), nn.ModuleList()
        for level, wide in enumerate(widths):
            narrow = widths[max(level - 1, 0)]
            self.levels.append(_level(narrow, wide, num_blocks, level in attention_levels, dropout))
            self.down.append(Downsample(wide) if level < last else nn.Identity())
        self.middle = _middle(widths[-1], dropout)
        self.norm = GroupNorm(widths[-1])
        self.conv_out = Conv2d(widths[-1], moments, 3, padding=1)
        self.project = Conv2d(moments, moments, 1)
        self.shortcut = Conv2d(channels, latent_channels, 2**last, stride=2**last) if linear_shortcut else None

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean `[B, Z, r, r]` and, of a KL latent, the clamped log variance like it; else None."""
        h = self.conv_in(images)
        for level, down in zip(self.levels, self.down, strict=True):
            h = down(level(h))  # halves the sides on all levels but the last
        h = self.project(self.conv_out(F.silu(self.norm(self.middle(h)))))  # [B, Z or 2Z, r, r]
        mean, log_variance = h[:, : self.latent_channels], h[:, self.latent_channels :]
        if self.shortcut is not None:
            mean = mean + self.shortcut(images)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE) if log_variance.shape[1] else None

    def forward(self, images: Tensor) -> Tensor:
        """The latent; of a KL latent the mean."""
        return self.moments(images)[0]


class Decoder(nn.Module):
    """The latent `[B, Z, r, r]` to images `[B, C, R, R]`; one more block a level than the encoder."""

    def __init__(
        self, channels: int, latent_channels: int, widths: Sequence[int], num_blocks: int,
        attention_levels: Sequence[int], dropout: float, linear_shortcut: bool, tanh: bool, codebook_size: int | None,
    ) -> None:  # fmt: skip
        super().__init__()
        last = len(widths) - 1
        self.tanh = tanh
        self.quantiser = Quantiser(codebook_size, latent_channels) if codebook_size else None
        self.project = Conv2d(latent_channels, latent_channels, 1)
        self.conv_in = Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.middle = _middle(widths[-1], dropout)
        self.levels, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(last + 1)):
            wider = widths[min(level + 1, last)]
            self.levels.append(_level(wider, widths[level], num_blocks + 1, level in attention_levels, dropout))
            self.up.append(Upsample(widths[level]) if level > 0 else nn.Identity())
        self.norm = GroupNorm(widths[0])
        self.conv_out = Conv2d(widths[0], channels, 3, padding=1)
        self.shortcut = Conv2d(latent_channels, channels * 4**last, 1) if linear_shortcut else None
        self.factor = 2**last

    def forward(self, latent: Tensor) -> Tensor:
        return self.decode_codes(latent if self.quantiser is None else self.quantiser(latent).latent)

    def decode_codes(self, latent: Tensor) -> Tensor:
        """Images of a latent that is quantised already, where there is a quantiser."""
        h = self.middle(self.conv_in(self.project(latent)))
        for level, up in zip(self.levels, self.up, strict=True):
            h = up(level(h))  # doubles the sides on all levels but the last
        h = self.conv_out(F.silu(self.norm(h)))
        if self.shortcut is not None:
            h = h + F.pixel_shuffle(self.shortcut(latent), self.factor)
        return torch.tanh(h) if self.tanh else h


class TrainingPass(NamedTuple):
    """What stage 1 learns from: reconstructions `[B, C, R, R]`; `penalty`, the KL divergence per sample `[B]` or the
    codebook's loss (scalar), None for a free latent; the latent before it is quantised; the codes int64 `[B, r, r]`."""

    reconstructions: Tensor
    penalty: Tensor | None
    latent: Tensor
    codes: Tensor | None


class Autoencoder(nn.Module):
    """Images `[B, C, R, R]` in [-1, 1] to a latent `[B, Z, R/f, R/f]` and back to about [-1, 1].

    Args:
        channels: C.
        latent_channels: Z.
        width: channels at the highest resolution.
        multipliers: width multiplier per level, highest resolution first; f = 2^(len - 1).
        num_blocks: residual blocks per encoder level; the decoder has one more.
        attention_levels: levels (0 = highest resolution) with attention after every block; the middle always has it.
        dropout: inside residual blocks, in training.
        tanh: end the decoder in tanh.
        linear_shortcut: lead a linear codec of f x f patches around encoder and decoder; `fit_shortcut` sets it.
        kind: what holds the latent. A codebook sits inside the decoder, so that the latent itself stays continuous.
        codebook_size: number of codes of a quantised latent.
        norm_groups: of every group norm; None: 32 at the released widths, about four channels a group below them.
    """

    def __init__(
        self,
        *,
        channels: int,
        latent_channels: int,
        width: int,
        multipliers: Sequence[int],
        num_blocks: int,
        attention_levels: Sequence[int] = (),
        dropout: float = 0.0,
        tanh: bool = False,
        linear_shortcut: bool = False,
        kind: Kind = "free",
        codebook_size: int = 8192,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        common = (channels, latent_channels, widths, num_blocks, attention_levels, dropout, linear_shortcut)
        self.latent_channels = latent_channels
        self.encoder = Encoder(*common, log_variance=kind == "kl")
        self.decoder = Decoder(*common, tanh, codebook_size if kind == "quantised" else None)
        for module in self.modules():
            if isinstance(module, nn.GroupNorm) and norm_groups is not None:
                module.num_groups = norm_groups

    @torch.no_grad()
    def fit_shortcut(self, images: Tensor) -> None:
        """Set the linear shortcut to the Z largest principal components of patches of `images [N, C, R, R]`.

        The networks beside it then start from zero, so that training starts from the best linear codec and learns what
        that lacks. Without it a narrow network takes most of its training to pass on brightness and contrast, which
        its group norms hide (the idea is residual autoencoding, Chen et al. 2025, with measured weights).
        """
        encode, decode, factor = self.encoder.shortcut, self.decoder.shortcut, self.decoder.factor
        if encode is None or decode is None:
            return
        assert encode.bias is not None and decode.bias is not None
        patches = F.unfold(images, factor, stride=factor).transpose(1, 2).flatten(0, 1).double()  # [N r^2, C f^2]
        mean = patches.mean(0)
        variances, components = torch.linalg.eigh(torch.cov((patches - mean).T))  # ascending
        variances, components = variances.flip(0)[: self.latent_channels], components.flip(1)[:, : self.latent_channels]
        stds = variances.clamp_min(1e-8).sqrt()  # every latent channel of unit variance
        encode.weight.copy_((components / stds).T.reshape(encode.weight.shape))
        encode.bias.copy_(-(mean @ components) / stds)
        decode.weight.copy_((components * stds).reshape(decode.weight.shape))
        decode.bias.copy_(mean)
        for layer in (self.encoder.project, self.decoder.conv_out):
            assert layer.bias is not None
            layer.weight.zero_()
            layer.bias.zero_()
        assert self.encoder.project.bias is not None
        self.encoder.project.bias[self.latent_channels :] = SHORTCUT_LOG_VARIANCE

    @torch.no_grad()
    def channel_scale(self, std: Tensor) -> Tensor:
        """What each latent channel, of deviation `std [Z]`, is divided by before the diffusion: `[Z]`.

        Without a shortcut all channels get unit deviation. The channels of a shortcut are principal components, and
        most of them are faint texture: at unit deviation the generator would learn noise before shapes. There the
        deviation goes with the square root of how far one deviation of the channel moves the image (mean square 1), so
        that the diffusion still draws the coarse before the fine, as it does on pixels.
        """
        if self.decoder.shortcut is None:
            return std
        reach = std * self.decoder.shortcut.weight.flatten(1).norm(dim=0).to(std.device)
        return std * (reach.mean() / reach).sqrt()

    @property
    def last_layer(self) -> Tensor:
        """The weight at which stage 1 compares gradient norms (its adaptive weight)."""
        return self.decoder.conv_out.weight

    def training_pass(self, images: Tensor, noise: Tensor) -> TrainingPass:
        """Reconstructions and what the latent costs; `noise`, standard normal `[B, Z, r, r]`, draws a KL latent."""
        latent, log_variance = self.encoder.moments(images)
        if log_variance is not None:
            drawn = latent + (0.5 * log_variance).exp() * noise
            return TrainingPass(self.decoder(drawn), kl_divergence(latent, log_variance), latent, None)
        if self.decoder.quantiser is not None:
            quantised, loss, codes = self.decoder.quantiser(latent)
            return TrainingPass(self.decoder.decode_codes(quantised), loss, latent, codes)
        return TrainingPass(self.decoder(latent), None, latent, None)

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction of `images`."""
        return self.decoder(self.encoder(images))


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """From the standard normal, summed over the latent `[B, Z, r, r]` (Rombach et al. 2022): `[B]`."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
