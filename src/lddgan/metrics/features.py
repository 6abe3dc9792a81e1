"""Frozen networks that turn images into the features in which sets of images are compared.

B images, C channels, H height, W width, d features. A score names its network: only Inception's may be called FID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from tqdm import tqdm

from lddgan.errors import UserError

BATCH = 250


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut that has no parameters (He et al. 2016, Sec. 4.2, option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x)))
        if self.extra:
            before = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
        return F.relu(h + x)


class ResNet56(nn.Module):
    """The 56-layer CIFAR-10 network of He et al. 2016 up to its global average pool, without the classifier.

    BatchNorm is folded into the convolutions when the weights are loaded: the same function in fewer passes.
    """

    dim = 64
    resolution = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        widths, stages = (16, 16, 32, 64), []
        for below, width in zip(widths, widths[1:], strict=False):
            first = BasicBlock(below, width, stride=1 if below == width else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, stride=1) for _ in range(8))))
        self.layer1, self.layer2, self.layer3 = stages
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, 64]` of RGB images `[B, 3, 32, 32]` in [0, 1]."""
        h = F.relu(self.conv1((images - self.mean) / self.std))  # [B, 16, 32, 32]
        h = self.layer3(self.layer2(self.layer1(h)))  # [B, 64, 8, 8]
        return h.mean(dim=(2, 3))

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Fill in from convolution and BatchNorm tensors. Raises KeyError, or ValueError for a wrong shape."""
        for name, conv in self.named_modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            norm = name.replace("conv", "bn")
            weight = _tensor(state, f"{name}.weight", conv.weight.shape)
            statistics = ("weight", "bias", "running_mean", "running_var")
            gamma, beta, mean, variance = (_tensor(state, f"{norm}.{s}", (conv.out_channels,)) for s in statistics)
            scale = gamma / torch.sqrt(variance + 1e-5)
            assert conv.bias is not None
            with torch.no_grad():
                conv.weight.copy_(weight * scale.view(-1, 1, 1, 1))
                conv.bias.copy_(beta - mean * scale)


def _tensor(state: dict[str, Tensor], key: str, shape: Iterable[int]) -> Tensor:
    if key not in state:
        raise KeyError(f"has no tensor '{key}'")
    if tuple(state[key].shape) != tuple(shape):
        raise ValueError(f"has '{key}' of shape {tuple(state[key].shape)} instead of {tuple(shape)}")
    return state[key].double()


# By the name that a score is reported under.
NETWORKS = {"resnet56": ResNet56}


class FeatureNetwork:
    """A frozen network with its preprocessing: uint8 images in, features out.

    Attributes: `name`, as in `FD[name]`; `dim`, features per image; `weights_hash`, SHA-256 of the weights file, for
    caches.
    """

    def __init__(self, name: str, module: ResNet56, weights_hash: str) -> None:
        self.name = name
        self.dim = module.dim
        self.weights_hash = weights_hash
        self._resolution = module.resolution
        self._module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Tensor) -> Tensor:
        """Features, float32 `[N, dim]` on the CPU, of square uint8 images `[N, H, W, C]` with C = 1 or 3.

        Grey is repeated to RGB. Images of another size than the network's are resized by antialiased bilinear
        interpolation, without rounding back to whole levels.

        Raises:
            UserError: images of another type, channel count, or not square.
        """
        if images.ndim != 4 or images.shape[3] not in (1, 3) or str(images.dtype).split(".")[-1] != "uint8":
            raise UserError(
                f"features of {self.name} need uint8 images [N, H, W, C] with 1 or 3 channels, got {images.dtype} "
                f"{list(images.shape)}: convert them first"
            )
        if images.shape[1] != images.shape[2]:
            raise UserError(f"features of {self.name} need square images, got {list(images.shape)}: crop them first")
        device = self._module.mean.device
        features = torch.empty(len(images), self.dim)
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            batch = torch.tensor(batch) if isinstance(batch, np.ndarray) else batch
            x = batch.to(device).permute(0, 3, 1, 2).float().div(255)
            if x.shape[1] == 1:
                x = x.repeat(1, 3, 1, 1)
            if x.shape[-1] != self._resolution:
                x = F.interpolate(x, size=(self._resolution, self._resolution), mode="bilinear", antialias=True)
            features[start : start + BATCH] = self._module(x.contiguous(memory_format=torch.channels_last)).cpu()
        return features


def load_features(name: str, weights: str | Path, device: str | torch.device = "cpu") -> FeatureNetwork:
    """The feature network `name` with weights from the safetensors file `weights`.

    Raises:
        UserError: an unknown name; a file that is missing, unreadable, or lacks the tensors of this network.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown feature network '{name}': choose one of {', '.join(NETWORKS)}")
    try:
        content = Path(weights).read_bytes()
        module = NETWORKS[name]()
        module.load_weights(load(content))
    except OSError as error:
        raise UserError(
            f"cannot read the weights of {name} at '{weights}' ({error.strerror}): give its safetensors file"
        ) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"'{weights}' does not hold the weights of {name}: it {_reason(error)}; give the matching safetensors file"
        ) from error
    return FeatureNetwork(name, module.to(device), hashlib.sha256(content).hexdigest())


def _reason(error: Exception) -> str:
    return "is not a whole safetensors file" if isinstance(error, SafetensorError) else str(error.args[0])


def extract(network: FeatureNetwork, batches: Iterable[np.ndarray | Tensor], total: int | None = None) -> Tensor:
    """Features, float32 `[N, dim]`, of all `batches` (uint8 `[B, H, W, C]`) in order, with a progress bar.

    `total` is the number of images, if known. The bar shows on a terminal only.

    Raises:
        UserError: there is no image at all, or as `FeatureNetwork.__call__` does.
    """
    features = []
    with tqdm(total=total, desc=f"features[{network.name}]", unit="image", leave=False, disable=None) as bar:
        for batch in batches:
            features.append(network(batch))
            bar.update(len(batch))
    if not features:
        raise UserError(f"features of {network.name}: there are no images to measure; give at least one")
    return torch.cat(features)
