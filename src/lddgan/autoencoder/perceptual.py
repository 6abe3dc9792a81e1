"""Perceptual distances of stage 1: images compared in the layers of a frozen ImageNet network (Johnson et al. 2016).

With the linear heads of LPIPS (Zhang et al. 2018) channels count by how much people see of them; without, all channels
and layers count the same. Only the former may be called LPIPS.

B images, C channels, H height, W width, d channels of the deepest layer, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lddgan.config import Stage1Config
from lddgan.errors import UserError
from lddgan.metrics.features import IMAGENET, _fill, _read_state, _reason

MEND = "give it with --stage1.perceptual_weights PATH"


class Kind(NamedTuple):
    """A network of torchvision and how it is used."""

    network: str
    ends: tuple[int, ...]
    """Where its compared layers end in its `features`: for LPIPS those that it compares, else one a spatial stage."""
    smallest: int
    """Images with a shorter side are enlarged to it, in pixels."""
    heads: str | None = None
    """The file with the heads in the folder weights/v0.1 of the package lpips."""
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    """Of RGB in [0, 1]; torchvision's are LPIPS's too."""
    downloads: bool = True
    """Whether its weights are torchvision's own."""


VGG16_ENDS = (4, 9, 16, 23, 30)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
SQUEEZENET_ENDS = (2, 6, 11, 13)  # relu1, fire4, fire8, fire9
CAFFE = (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3

# VGG16 pads its convolutions and works from 16 px on; Esser et al. 2021 enlarge nothing for it. The others do not pad
# all: alexnet fails below 31 px, squeezenet below 21 (1.1: 17); at 32 px their deepest map is one pixel, and squeezenet
# does not see the last row and column. Enlarged from 32 to 64 px, the size that LPIPS's heads were fitted at,
# squeezenet's deepest features tell CIFAR-10's classes apart better (60 against 44 % by nearest neighbours; 65 % at
# 96 px and twice the cost).
KINDS: dict[str, Kind] = {
    "lpips-vgg16": Kind("vgg16", VGG16_ENDS, 32, "vgg.pth"),
    "lpips-alexnet": Kind("alexnet", (2, 5, 8, 10, 12), 64, "alex.pth"),
    "lpips-squeezenet": Kind("squeezenet1_1", (2, 5, 8, 10, 11, 12, 13), 64, "squeeze.pth"),
    "vgg16": Kind("vgg16", VGG16_ENDS, 32),
    "squeezenet1_0": Kind("squeezenet1_0", SQUEEZENET_ENDS, 64),
    "squeezenet1_0-caffe": Kind("squeezenet1_0", SQUEEZENET_ENDS, 64, None, *CAFFE, downloads=False),
}


class PerceptualLoss(nn.Module):
    """The distance of two images: squared differences of their unit-normalised features, averaged over pixels.

    Frozen: no parameter takes a gradient, and `train()` leaves it in evaluation mode. All of it is computed in float32,
    the network included, whatever autocast is on around the call: the distance is a small difference of large features.

    Attributes: `name`, a key of `KINDS`.
    """

    def __init__(self, name: str, slices: Sequence[nn.Module], heads: Sequence[Tensor]) -> None:
        """`slices`, the L parts of the network that end in a compared layer; `heads`, for each the weights of its
        channels `[1, channels or 1, 1, 1]`."""
        super().__init__()
        self.name = name
        kind = KINDS[name]
        self.smallest = kind.smallest
        self.slices = nn.ModuleList(slices)
        self.heads = nn.ParameterList(heads)
        mean, std = torch.tensor(kind.mean).view(1, 3, 1, 1), torch.tensor(kind.std).view(1, 3, 1, 1)
        self.shift, self.scale = nn.Buffer(2 * mean - 1), nn.Buffer(2 * std)  # of RGB in [-1, 1]
        self.requires_grad_(False).train()
        self.slices.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """The distance of each pair of `[B, C, H, W]` in [-1, 1]: float32 `[B]`, 0 for equal ones.

        One channel is repeated to three, and a fourth one (alpha) is left out. Gradients flow to both arguments.
        """
        with torch.autocast(images.device.type, enabled=False):
            pairs = zip(self._layers(reconstructions), self._layers(images), self.heads, strict=True)
            layers = [(head * (_unit(a) - _unit(b)).square()).sum(1).mean((1, 2)) for a, b, head in pairs]
            return torch.stack(layers).sum(0)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The deepest layer of `images [B, C, H, W]` in [-1, 1] averaged over pixels: float32 `[B, d]`, no gradient."""
        with torch.autocast(images.device.type, enabled=False):
            return self._layers(images)[-1].mean((2, 3))

    def _layers(self, images: Tensor) -> list[Tensor]:
        """The L compared layers, each `[B, channels, h, w]`."""
        x = images.float()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
        short = min(x.shape[2:])
        if short < self.smallest:
            height, width = (max(self.smallest, round(side * self.smallest / short)) for side in x.shape[2:])
            x = F.interpolate(x, size=(height, width), mode="bilinear")
        x = ((x - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)  # a tenth faster on a CPU
        layers = []
        for part in self.slices:
            x = part(x)
            layers.append(x)
        return layers


def _unit(layer: Tensor) -> Tensor:
    """Scaled to length 1 over channels. As in LPIPS, but the gradient is no NaN where all squares underflow to 0."""
    return layer / ((layer.square().sum(1, keepdim=True) + 1e-20).sqrt() + 1e-10)


def perceptual_of(settings: Stage1Config, device: str | torch.device) -> PerceptualLoss | None:
    """The perceptual distance that a stage 1 asks for; errors as of `load_perceptual`."""
    if settings.perceptual == "none":
        return None
    return load_perceptual(settings.perceptual, settings.perceptual_weights, device)


def load_perceptual(name: str, weights: str | Path | None, device: str | torch.device) -> PerceptualLoss:
    """The perceptual distance `name`, a key of `KINDS`, on `device`.

    Args:
        weights: a state dict of torchvision's network (`features.0.weight` ...), in safetensors or saved by torch.save,
            in any precision; its classifier may be absent. If empty, torchvision's own ImageNet weights are taken from
            the cache of torch hub, downloaded once. LPIPS's heads come with the package lpips.

    Raises:
        UserError: an unknown name; weights that can neither be found nor fetched; a file that is missing, unreadable,
            holds code, or lacks the tensors of this network.
    """
    if name not in KINDS:
        raise UserError(f"unknown perceptual distance '{name}': choose one of {', '.join(KINDS)}")
    import torchvision.models  # takes more than a second

    kind = KINDS[name]
    url = torchvision.models.get_model_weights(kind.network)["IMAGENET1K_V1"].url if kind.downloads else None
    path = Path(weights) if weights else _download(name, url)
    with torch.device("meta"):  # its weights are loaded, not drawn: the state of the random numbers stays as it was
        layers = torchvision.models.get_model(kind.network).features
        assert isinstance(layers, nn.Sequential)
        network = layers[: kind.ends[-1]]
    network.to_empty(device="cpu")
    try:
        with path.open("rb"):  # safetensors' errors of missing files give no reason
            _fill(network, _read_state(path), "features.")
    except OSError as error:
        raise UserError(
            f"cannot read the weights of {name} at '{path}' ({error.strerror or error}): get that file and {MEND}"
        ) from error
    except Exception as error:  # torch.load raises many kinds; none of them may show as a traceback
        mend = f"get the matching file and {MEND}" if weights else "remove it, so that it is downloaded again"
        raise UserError(f"'{path}' does not hold the weights of {name}: it {_reason(error)}; {mend}") from error
    slices = [network[start:end] for start, end in zip((0, *kind.ends), kind.ends, strict=False)]
    return PerceptualLoss(name, slices, _heads(kind)).to(device)


def _heads(kind: Kind) -> list[Tensor]:
    """LPIPS's weights of the channels of every layer, else such that layers are averaged."""
    if kind.heads is None:
        return [torch.full((1, 1, 1, 1), 1 / len(kind.ends))] * len(kind.ends)
    # Not through lpips.LPIPS, which draws a random network, and warns, before it reads this file.
    state = _read_state(Path(str(distribution("lpips").locate_file(f"lpips/weights/v0.1/{kind.heads}"))))
    return [state[f"lin{layer}.model.1.weight"] for layer in range(len(kind.ends))]


def _download(name: str, url: str | None) -> Path:
    """torchvision's weights in the cache of torch hub, fetched there if they are not yet."""
    if url is None:
        raise UserError(f"the weights of {name} cannot be downloaded: get the file that holds them and {MEND}")
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.exists():
        prefix = path.stem.rpartition("-")[2]  # the start of the SHA-256
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the weights of {name} are not here and cannot be downloaded from {url} ({error}): get that file and "
                f"{MEND}"
            ) from error
    return path
