"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308).

A map is cut into tiles of 4x4 pixels. Each, with the pixel around it, is 6x6 values that `B` takes to 36 products with
a transformed kernel `G w`, and `A` takes these to the 16 pixels of the result. For a CPU whose multiplications are what
a convolution waits for; one with AVX-512 waits for its memory, and keeps torch's convolution.

Letters: B batch, C channels in, K channels out, H and W pixels, T tiles in all, ordered by row, column and image.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lddgan.networks import prepared

POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)
"""Where the polynomials of tile and kernel are multiplied, besides infinity. The usual 0, 1, -1, 2, -2 round twice as
much; with these the error is 1.4 times that of the direct sum."""
DRAWING_SAVES, TRAINING_SAVES = 2.1, 2.7
"""What the fewer multiplications save (`_pays`): more in training, for torch's gradient of the weight is slow."""
FEW_TILES = 512
"""With fewer, transforming the kernel takes so long (a twentieth and more) that for drawing it is kept, at four times
its size."""
AT_ONCE = 2_000_000
"""Transformed values that are worked on at once: 8 MB stay in the cache from one product to the next."""


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)` where `fits`, and all its derivatives, each by the faster way.

    Args:
        x: `[B, C, H, W]`.
        weight: `[K, C, 3, 3]`.
        bias: `[K]`.

    Returns:
        `[B, K, H, W]`, channels last.
    """
    trained = [part for part in (x, weight, bias) if part is not None and part.requires_grad]
    if trained and torch.is_grad_enabled():
        return _Conv3x3.apply(x, weight, bias)  # type: ignore[return-value]
    return _convolve(x, weight, bias)


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `conv3x3` is made for these: float32 on a CPU with AVX2 and no more, channels last, whole tiles, and so
    many channels that it is faster."""
    return (
        prepared.is_eager_on_cpu(x)
        and _avx2_only()
        and not _without
        and x.dtype == weight.dtype == torch.float32
        and x.shape[2] % 4 == x.shape[3] % 4 == 0
        and x.numel() > 0
        and prepared.in_channels_last(weight)
        and _pays(x, len(weight))
    )


@contextlib.contextmanager
def without() -> Iterator[None]:
    """Inside, nothing `fits`: where a gradient by the input alone is to be differentiated again. Only torch's own
    convolution knows then that nobody asks for that by the weight."""
    global _without
    before, _without = _without, True
    try:
        yield
    finally:
        _without = before


_without = False


def rules(network: nn.Module) -> bool:
    """Whether `network` is so wide that a compiled program, which has none of this, would be slower here: with 256
    channels by a third, with 128 it is still faster."""
    layers = (part for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3))
    wide = (part for part in layers if min(part.in_channels, part.out_channels) >= 256)
    return _avx2_only() and any(part.weight.dtype == torch.float32 for part in wide)


@functools.cache
def _avx2_only() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkldnn.is_available()


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), (gradient,), wanted = ctx.saved_tensors, gradients, ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again: torch's own operator can
            return _backward(gradient, x, weight, wanted)
        return (
            _input_gradient(gradient, x, weight) if wanted[0] else None,
            _weight_gradient(gradient, x, weight) if wanted[1] else None,
            gradient.sum((0, 2, 3)) if wanted[2] else None,
        )


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> tuple:
    """torch's own, for input, weight and bias."""
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
    )


def _pays(x: Tensor, channels_out: int) -> bool:
    """Whether the transforms cost less than is saved, each in nanoseconds for a tile and a pair of channels: those of
    tile and result weigh less the more channels each is multiplied with, that of the kernel the more tiles there are,
    and it is only read where it is kept (for drawing, so the answer may be another there).
    """
    tiles = len(x) * x.shape[2] * x.shape[3] // 16
    costs = 95 / channels_out + 60 / x.shape[1] + (15 if _keeps_kernel(tiles) else 30) / tiles
    return costs < (DRAWING_SAVES if prepared.is_drawing() else TRAINING_SAVES)


def _keeps_kernel(tiles: int) -> bool:
    return tiles < FEW_TILES and prepared.is_drawing()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if prepared.is_drawing():
        return _by_tiles(x, len(weight), _packed(x, weight), bias)
    return _by_tiles(x, len(weight), _batched(_of_kernel(weight).mT), bias)


def _by_tiles(x: Tensor, channels_out: int, multiply: Callable[[Tensor], Tensor], bias: Tensor | None) -> Tensor:
    """`multiply` takes values `[T, 36, C]` to products `[T, 36, K]`."""
    batch, channels, height, width = x.shape
    result = x.new_empty(batch, height, width, channels_out).permute(0, 3, 1, 2)
    for part, out in zip(_parts(x, channels_out), _parts(result, channels), strict=True):
        pixels = _pixels(out)
        of_pixels = (_transforms().pixels @ multiply(_of_tiles(part))).view(pixels.shape)
        if bias is None:
            pixels.copy_(of_pixels)
        else:
            torch.add(of_pixels, bias, out=pixels)
    return result


def _batched(kernel: Tensor) -> Callable[[Tensor], Tensor]:
    """The 36 products with `kernel` `[36, C, K]`, as it is."""
    return lambda values: torch.bmm(values.transpose(0, 1), kernel).transpose(0, 1)


def _packed(x: Tensor, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The 36 products as one grouped convolution, for which the kernel is packed: for drawing, a twentieth faster than
    torch.bmm. In training, with a new kernel at each step, packing costs more than that."""
    (batch, channels, height, width), channels_out = x.shape, len(weight)
    how = ((0, 0), (1, 1), (1, 1), 36)
    shape = (1, 36 * channels, len(_parts(x, channels_out)[0]) * height * width // 16, 1)

    def pack() -> Tensor:
        return prepared.pack(_of_kernel(weight).reshape(36 * channels_out, channels, 1, 1), shape, how)

    keeps = _keeps_kernel(batch * height * width // 16)
    kernel = prepared.prepared(weight, ("winograd", shape), pack) if keeps else pack()

    def multiply(values: Tensor) -> Tensor:
        values = values.view(1, -1, 1, 36 * channels).permute(0, 3, 1, 2)  # [1, 36 C, T, 1]
        products = prepared.convolve_packed(values, kernel, None, how)
        return products.permute(0, 2, 3, 1).reshape(-1, 36, channels_out)

    return multiply


def _of_kernel(weight: Tensor, *, turned: bool = False) -> Tensor:
    """`weight` `[K, C, 3, 3]` transformed, `[36, K, C]`; `turned` by half a turn before."""
    to_kernel = _transforms().kernel.flip(1) if turned else _transforms().kernel
    return (to_kernel @ weight.permute(0, 2, 3, 1).flatten(1, 2)).transpose(0, 1)


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`[B, C, H, W]`, from the result's `gradient` `[B, K, H, W]`: the same convolution turned round, which with the
    channels exchanged need not pay."""
    if _pays(gradient, x.shape[1]):
        return _by_tiles(gradient, x.shape[1], _batched(_of_kernel(weight, turned=True)), None)
    return _backward(gradient, x, weight, (True, False, False))[0]


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`[K, C, 3, 3]`, from the result's `gradient` `[B, K, H, W]` and `x` `[B, C, H, W]`."""
    channels_out, channels = weight.shape[:2]
    kernel = x.new_empty(36, channels_out, channels)
    for i, (part, of_part) in enumerate(zip(_parts(x, channels_out), _parts(gradient, channels), strict=True)):
        of_products = _transforms().pixels.T @ _pixels(of_part).reshape(-1, 16, channels_out)  # [T, 36, K]
        kernel.baddbmm_(of_products.permute(1, 2, 0), _of_tiles(part).transpose(0, 1), beta=min(i, 1))
    return (_transforms().kernel.T @ kernel.transpose(0, 1)).view(channels_out, 3, 3, channels).permute(0, 3, 1, 2)


def _parts(x: Tensor, other_channels: int) -> tuple[Tensor, ...]:
    """`x` in batches that the cache holds transformed, be it as it is or with `other_channels`."""
    channels, height, width = x.shape[1:]
    most = max(1, 16 * AT_ONCE // (36 * height * width * max(channels, other_channels)))
    return x.split(-(-len(x) // -(-len(x) // most)))  # as equal as they come


def _of_tiles(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to the values of its tiles, `B` applied along one axis, then along the other: `[T, 36, C]`."""
    channels, height, width = x.shape[1:]
    columns = _along(x.permute(0, 2, 3, 1).reshape(-1, width, channels))
    return _along(columns.view(-1, height, 6 * channels)).view(-1, 36, channels)


def _along(lines: Tensor) -> Tensor:
    """Each tile of `lines` `[N, L, M]`, four long, with its neighbours, to six values: `[L / 4, N, 6, M]`.

    Beyond the ends there are zeros, so nothing is multiplied. Where tiles overlap they are not copied apart.
    """
    to_tile, (count, length, size) = _transforms().tile, lines.shape
    out = lines.new_empty(length // 4, count, 6, size)
    for tile in range(length // 4):
        start, stop = max(0, 4 * tile - 1), min(length, 4 * tile + 5)
        columns = to_tile[:, start - 4 * tile + 1 : stop - 4 * tile + 1]
        torch.bmm(columns.expand(count, -1, -1), lines[:, start:stop], out=out[tile])
    return out


def _pixels(x: Tensor) -> Tensor:
    """A view of `[B, C, H, W]` by tiles of 4x4: `[H / 4, W / 4, B, 4, 4, C]`."""
    return x.permute(0, 2, 3, 1).unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(1, 3, 0, 2, 4, 5)


class _Transforms(NamedTuple):
    """`B` of one axis, `G` and `A` of both at once, which for these is faster."""

    tile: Tensor  # B, [6, 6]
    kernel: Tensor  # G, [36, 9]
    pixels: Tensor  # A, [16, 36]


@functools.cache
def _transforms() -> _Transforms:
    """By Cook and Toom."""
    a = np.array(POINTS)
    others = [np.delete(a, i) for i in range(len(a))]
    with_infinity = np.array([0.0] * len(a) + [1.0])
    of_kernel = np.vstack([a[:, None] ** np.arange(3), with_infinity[-3:]])  # values of a polynomial at the points
    of_pixels = np.vstack([a[:, None] ** np.arange(4), with_infinity[-4:]]).T
    of_tile = np.zeros((6, 6))  # from those values back to coefficients, transposed (Lagrange)
    for i, rest in enumerate(others):
        of_tile[i, :5] = np.poly(rest)[::-1] / np.prod(a[i] - rest)
    of_tile[5] = np.poly(a)[::-1]
    # Rows of equal size, so that none of the 36 products is small beside the others.
    of_pixels *= np.linalg.norm(of_tile, axis=1) * np.linalg.norm(of_kernel, axis=1)
    of_tile /= np.linalg.norm(of_tile, axis=1, keepdims=True)
    of_kernel /= np.linalg.norm(of_kernel, axis=1, keepdims=True)
    with torch.inference_mode(False):  # drawing may come first, training must still be able to use them
        both_axes = np.kron(of_kernel, of_kernel), np.kron(of_pixels, of_pixels)
        return _Transforms(*(torch.from_numpy(matrix).float() for matrix in (of_tile, *both_axes)))
