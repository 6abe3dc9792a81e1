"""The generator with a Vision Transformer for a backbone: U-ViT with adaptive group norms (paper, Appendix C).

Everything that the appendix leaves open is as in Bao et al. 2023, "All are Worth Words": patches and the time are
tokens alike, the blocks of the way in hand their tokens to those of the way out, a convolution smooths the seams.

Letters: B batch, C channels, H and W pixels, P side of a patch, L tokens, D their width, S style width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.networks.layers import (
    AdaptiveGroupNorm,
    Conv2d,
    Layer,
    Mapping,
    conv3x3,
    near_zero_init,
    scaled_init,
    sinusoid,
)


def vit_init(layer: Layer) -> Layer:
    """Weights normal with deviation 0.02, cut off at two deviations, bias zero (Bao et al. 2023); returns the layer."""
    nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class TransformerBlock(nn.Module):
    """Self-attention and a perceptron on tokens, each residual behind a group norm that the style scales and shifts.

    Args:
        joins: takes a second set of tokens (a long skip) and mixes both first.
    """

    def __init__(self, embed_dim: int, num_heads: int, style_dim: int, *, joins: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.join = vit_init(nn.Linear(2 * embed_dim, embed_dim)) if joins else None
        self.norm_0 = AdaptiveGroupNorm(embed_dim, style_dim)
        self.query_key_value = vit_init(nn.Linear(embed_dim, 3 * embed_dim, bias=False))
        self.out = vit_init(nn.Linear(embed_dim, embed_dim))
        self.norm_1 = AdaptiveGroupNorm(embed_dim, style_dim)
        self.linear_0 = vit_init(nn.Linear(embed_dim, 4 * embed_dim))
        self.linear_1 = vit_init(nn.Linear(4 * embed_dim, embed_dim))

    def forward(self, h: Tensor, style: Tensor, skip: Tensor | None = None) -> Tensor:
        """Tokens `[B, L, D]`, style `[B, S]` and, where the block joins, the skip `[B, L, D]`, to `[B, L, D]`."""
        if self.join is not None:
            assert skip is not None
            h = self.join(torch.cat([h, skip], dim=2))
        h = h + self._attention(_on_tokens(self.norm_0, h, style))
        return h + self.linear_1(F.gelu(self.linear_0(_on_tokens(self.norm_1, h, style))))

    def _attention(self, h: Tensor) -> Tensor:
        batch, length, width = h.shape
        heads = self.query_key_value(h).view(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()  # [B, heads, L, D / heads] each
        h = F.scaled_dot_product_attention(query, key, value)
        return self.out(h.transpose(1, 2).reshape(batch, length, width))


def _on_tokens(norm: AdaptiveGroupNorm, h: Tensor, style: Tensor) -> Tensor:
    """The group norm of all tokens of an image; as a map `[B, D, L, 1]` they lie in memory as channels-last wants."""
    return norm(h.transpose(1, 2).unsqueeze(3), style).squeeze(3).transpose(1, 2)


class UVit(nn.Module):
    """`G(x_{t+1}, t, z)`: predicts `x_0`.

    Args:
        channels: channels of `x`, in and out.
        side: of `x`, in pixels; a multiple of `patch`.
        patch: side of the square of pixels that becomes a token.
        embed_dim: width of a token, a multiple of `num_heads`, even and at least 4.
        depth: number of blocks, odd: half of them in, one in the middle, half out.
        latent_dim, mapping_width, mapping_depth: of the style, as for `NCSNpp`.
        tanh: squash the output into [-1, 1].

    Raises:
        ValueError: for sizes that cannot be built; in `forward`, for an image of another side.
    """

    def __init__(
        self,
        *,
        channels: int,
        side: int,
        patch: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        latent_dim: int,
        mapping_width: int,
        mapping_depth: int,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or depth % 2 == 0:
            raise ValueError(f"depth must be odd (blocks in, one in the middle, as many out), got {depth}.")
        if embed_dim < 4 or embed_dim % 2 or embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be even, at least 4, a multiple of num_heads {num_heads}; got {embed_dim}."
            )
        if side % patch:
            raise ValueError(f"A side of {side} is not a multiple of the patch {patch}.")
        self.side, self.patch, self.embed_dim, self.latent_dim, self.tanh = side, patch, embed_dim, latent_dim, tanh

        self.mapping = Mapping(latent_dim, mapping_width, mapping_depth)
        self.time_0 = scaled_init(nn.Linear(embed_dim, 4 * embed_dim))
        self.time_1 = scaled_init(nn.Linear(4 * embed_dim, embed_dim))
        self.patches = vit_init(Conv2d(channels, embed_dim, patch, stride=patch))
        self.position = nn.Parameter(torch.empty(1 + (side // patch) ** 2, embed_dim))
        nn.init.trunc_normal_(self.position, std=0.02, a=-0.04, b=0.04)

        def block(joins: bool = False) -> TransformerBlock:
            return TransformerBlock(embed_dim, num_heads, mapping_width, joins=joins)

        self.blocks_in = nn.ModuleList(block() for _ in range(depth // 2))
        self.middle = block()
        self.blocks_out = nn.ModuleList(block(joins=True) for _ in range(depth // 2))
        self.norm_out = nn.LayerNorm(embed_dim)
        self.pixels = vit_init(nn.Linear(embed_dim, channels * patch**2))
        self.conv_out = near_zero_init(conv3x3(channels, channels))

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Predict `x_0`; arguments as for `NCSNpp`, with `x_t` `[B, C, side, side]`."""
        if x_t.shape[2:] != (self.side, self.side):
            raise ValueError(f"A {x_t.shape[2]}x{x_t.shape[3]} input does not fit this network for {self.side} pixels.")
        time = self.time_1(F.silu(self.time_0(sinusoid(t, self.embed_dim).to(x_t.dtype))))
        style = self.mapping(z)  # [B, S]
        h = self.patches(x_t).flatten(2).transpose(1, 2)  # [B, L - 1, D]
        time = time[:, None].expand(len(h), -1, -1)  # t may be one for all
        h = torch.cat([time, h], dim=1) + self.position  # [B, L, D]
        skips = []
        for block in self.blocks_in:
            h = block(h, style)
            skips.append(h)
        h = self.middle(h, style)
        for block in self.blocks_out:
            h = block(h, style, skips.pop())
        h = self.pixels(self.norm_out(h)[:, 1:])  # [B, L - 1, C P P]
        h = h.transpose(1, 2).unflatten(2, (self.side // self.patch, -1))  # [B, C P P, H / P, W / P]
        x_0 = self.conv_out(F.pixel_shuffle(h, self.patch))
        return torch.tanh(x_0) if self.tanh else x_0
