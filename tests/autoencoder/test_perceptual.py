from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from lddgan.autoencoder.perceptual import KINDS, PerceptualLoss, load_perceptual
from lddgan.config_parts import Perceptual
from lddgan.errors import UserError
from lddgan.metrics.features import IMAGENET

MEND = "give it with --stage1.perceptual_weights PATH"
NAMES = tuple(KINDS)
LPIPS_NETS = {"lpips-vgg16": "vgg", "lpips-alexnet": "alex", "lpips-squeezenet": "squeeze"}
NETWORKS = {
    "lpips-vgg16": tv.vgg16, "lpips-alexnet": tv.alexnet, "lpips-squeezenet": tv.squeezenet1_1,
    "vgg16": tv.vgg16, "squeezenet1_0": tv.squeezenet1_0, "squeezenet1_0-caffe": tv.squeezenet1_0,
}  # fmt: skip


def network(name: str) -> nn.Sequential:
    """The `features` of torchvision's network with random weights under which activations neither vanish nor grow."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        features: nn.Sequential = NETWORKS[name]().features
    state = {}
    for key, tensor in features.state_dict().items():
        scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.1
        state[key] = torch.randn(tensor.shape, generator=generator) * scale
    features.load_state_dict(state, assign=True)
    return features.eval()


def state_of(features: nn.Module) -> dict[str, Tensor]:
    """As torchvision publishes it, with a classifier, which is not looked at."""
    state = {f"features.{key}": tensor.detach() for key, tensor in features.state_dict().items()}
    return {**state, "classifier.1.weight": torch.zeros(10, 512)}


def images(count: int = 2, size: int = 64, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """For every distance, a file with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    for build in set(NETWORKS.values()):
        name = next(name for name in NETWORKS if NETWORKS[name] is build)
        save_file(state_of(network(name)), folder / f"{build.__name__}.safetensors")
    return {name: folder / f"{NETWORKS[name].__name__}.safetensors" for name in NAMES}


@pytest.fixture(scope="module")
def losses(files):
    return {name: load_perceptual(name, files[name], "cpu") for name in NAMES}


@pytest.fixture
def light(losses) -> PerceptualLoss:
    return losses["lpips-squeezenet"]


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_those_of_torchvision_s_network(losses, name):
    """Every compared layer, among all that torchvision's network passes through on images prepared its own way."""
    pictures = images()
    unit = (pictures + 1) / 2
    x = unit * 255 - torch.tensor([123.0, 117, 104]).view(3, 1, 1) if "caffe" in name else normalize(unit, *IMAGENET)
    expected = []
    with torch.no_grad():
        for layer in network(name):
            x = layer(x.clone())  # some work in place
            expected.append(x)
        got = losses[name]._layers(pictures)
    assert len(got) == len(KINDS[name].ends)
    for layer, end in zip(got, KINDS[name].ends, strict=True):
        reference = expected[end - 1]
        assert reference.std() > 0.01
        torch.testing.assert_close(layer, reference, rtol=1e-3, atol=1e-4 * reference.abs().max().item())
    torch.testing.assert_close(losses[name].features(pictures), got[-1].mean((2, 3)))


@pytest.mark.parametrize("name", LPIPS_NETS)
def test_lpips_is_the_package_s_own_on_the_same_network(losses, name, monkeypatch):
    import lpips

    monkeypatch.setattr(tv, NETWORKS[name].__name__, lambda pretrained: SimpleNamespace(features=network(name)))
    reference = lpips.LPIPS(net=LPIPS_NETS[name], pnet_rand=True, verbose=False)
    theirs = images(3, 72)
    ours = 0.7 * theirs + 0.3 * images(3, 72, seed=2)
    with torch.no_grad():
        expected = reference(ours, theirs).flatten()
    assert expected.min() > 0.01
    torch.testing.assert_close(losses[name](ours, theirs), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["vgg16", "squeezenet1_0", "squeezenet1_0-caffe"])
def test_without_heads_it_is_two_minus_twice_the_mean_cosine(losses, name):
    ours, theirs = images(seed=1), images(seed=2)
    with torch.no_grad():
        pairs = list(zip(losses[name]._layers(ours), losses[name]._layers(theirs), strict=True))
    cosines = [F.cosine_similarity(a.double(), b.double(), dim=1).mean((1, 2)) for a, b in pairs]
    expected = 2 - 2 * torch.stack(cosines).mean(0)
    assert expected.min() > 0.01
    torch.testing.assert_close(losses[name](ours, theirs).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [8, 32])
def test_small_images_equal_ones_are_at_zero_and_others_apart(losses, name, size):
    loss = losses[name]
    ours, theirs = images(size=size, seed=1), images(size=size, seed=2)
    distance = loss(ours, theirs)
    assert distance.shape == (2,) and distance.dtype == torch.float32 and distance.min() > 0
    torch.testing.assert_close(distance, loss(theirs, ours))
    torch.testing.assert_close(distance[1:], loss(ours[1:], theirs[1:]), rtol=1e-4, atol=1e-6)
    assert (loss(ours, ours.clone(memory_format=torch.channels_last)) == 0).all()
    assert loss.name == name and loss.features(ours).shape == (2, loss._layers(ours)[-1].shape[1])


def test_only_the_images_get_a_gradient_and_every_pixel_does(losses):
    for loss in losses.values():
        ours = images(size=32).requires_grad_()
        loss(ours, images(size=32, seed=2)).sum().backward()
        assert ours.grad is not None and (ours.grad.abs().sum((0, 1)) > 0).all()
        assert all(not p.requires_grad and p.grad is None for p in loss.parameters())
        assert not loss.features(ours).requires_grad


def test_the_gradient_descends(light):
    theirs, ours = images(size=32), images(size=32, seed=2).requires_grad_()
    before = light(ours, theirs).sum()
    (gradient,) = torch.autograd.grad(before, ours)
    assert light(ours - 0.1 * gradient / gradient.norm(), theirs).sum() < before


def test_where_the_squares_of_features_underflow_the_gradient_is_a_number(files, tmp_path):
    state = load_file(files["squeezenet1_0"])
    faint = {key: torch.full_like(state[key], 1e-30) for key in state if key.startswith("features.12.expand")}
    save_file({**state, **faint}, tmp_path / "faint.safetensors")
    ours = images().requires_grad_()
    load_perceptual("squeezenet1_0", tmp_path / "faint.safetensors", "cpu")(ours, images(seed=2)).sum().backward()
    assert ours.grad is not None and ours.grad.isfinite().all() and ours.grad.abs().max() > 0


def test_grey_is_repeated_alpha_left_out_and_the_short_side_enlarged(light):
    grey = images(channels=1), images(channels=1, seed=2)
    rgb = [x.repeat(1, 3, 1, 1) for x in grey]
    torch.testing.assert_close(light(*grey), light(*rgb), rtol=0, atol=0)
    torch.testing.assert_close(light.features(grey[0]), light.features(rgb[0]), rtol=0, atol=0)
    rgba = [torch.cat([x, images(channels=1, seed=seed)], 1) for seed, x in enumerate(rgb)]
    torch.testing.assert_close(light(*rgba), light(*rgb), rtol=0, atol=0)
    wide = images(size=32)[:, :, :16], images(size=32, seed=2)[:, :, :16]
    enlarged = [F.interpolate(x, size=(64, 128), mode="bilinear") for x in wide]
    torch.testing.assert_close(light(*wide), light(*enlarged))


def test_training_mode_and_autocast_change_nothing(losses):
    for loss in losses.values():
        pictures = images(size=32), images(size=32, seed=2)
        before = loss(*pictures)
        outer = nn.Sequential(loss).train()
        assert not any(module.training for module in outer[0].modules())
        torch.testing.assert_close(loss(*pictures), before, rtol=0, atol=0)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(loss(*pictures), before, rtol=0, atol=0)
            assert loss.features(pictures[0]).dtype == torch.float32
        rounded = loss(pictures[0].bfloat16(), pictures[1])
        torch.testing.assert_close(rounded, before, rtol=0.05, atol=0)
        assert rounded.dtype == torch.float32


def test_every_way_to_save_weights_gives_the_same_and_draws_nothing(files, light, tmp_path):
    state = load_file(files["lpips-squeezenet"])
    half = {key: value.half() for key, value in state.items()}
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    save_file(half, tmp_path / "half.safetensors")
    save_file({key: value for key, value in state.items() if "classifier" not in key}, tmp_path / "bare.safetensors")
    pictures = images(), images(seed=2)
    random_state = torch.random.get_rng_state()
    for name in ("plain.pt", "wrapped.pth", "half.safetensors", "bare.safetensors"):
        loss = load_perceptual("lpips-squeezenet", str(tmp_path / name), "cpu")
        tolerance = 1e-2 if name.startswith("half") else 0
        torch.testing.assert_close(loss(*pictures), light(*pictures), rtol=tolerance, atol=0)
        assert all(p.dtype == torch.float32 for p in loss.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.3.squeeze.bias"), r"has no tensor 'features\.3\.squeeze\.bias'"),
        (lambda state: state.update({"features.0.weight": torch.zeros(64, 1, 3, 3)}), r"\(64, 1, 3, 3\) instead of"),
    ],
)
def test_a_file_that_does_not_fit_is_named(files, tmp_path, change, message):
    state = load_file(files["lpips-squeezenet"])
    change(state)
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=f"odd.safetensors' does not hold the weights of .*{message}.*{MEND}"):
        load_perceptual("lpips-squeezenet", tmp_path / "odd.safetensors", "cpu")


def test_files_that_cannot_be_read_and_unknown_names(files, tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(UserError, match=f"cannot read the weights of vgg16 at '{path}' .*directory.*{MEND}"):
            load_perceptual("vgg16", path, "cpu")
    (tmp_path / "cut.safetensors").write_bytes(files["squeezenet1_0"].read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"features.0.weight": "text"}, tmp_path / "strings.pt")
    for name in ("cut.safetensors", "text.pth", "list.pt", "strings.pt"):
        reason = "not a whole safetensors file" if name.startswith("cut") else "neither safetensors nor a plain state"
        with pytest.raises(UserError, match=f"{name}' does not hold the weights of squeezenet1_0: .*{reason}.*{MEND}"):
            load_perceptual("squeezenet1_0", tmp_path / name, "cpu")
    with pytest.raises(UserError, match=f"'lpips': choose one of {', '.join(NAMES)}"):
        load_perceptual("lpips", files["vgg16"], "cpu")


def test_code_in_a_weights_file_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="neither safetensors nor a plain state dict"):
        load_perceptual("squeezenet1_0", tmp_path / "evil.pth", "cpu")
    assert not (tmp_path / "ran").exists()


def test_without_a_connection_one_sentence_names_the_mend(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name in NAMES[:-1]:
        with pytest.raises(UserError, match=f"weights of {name} .*downloaded from https.*no route to host.*{MEND}"):
            load_perceptual(name, None, "cpu")
    with pytest.raises(UserError, match=f"weights of squeezenet1_0-caffe cannot be downloaded.*{MEND}"):
        load_perceptual("squeezenet1_0-caffe", "", "cpu")


def test_downloads_lie_in_torch_hub_s_cache_and_happen_once(files, tmp_path, monkeypatch):
    asked = []

    def download(url: str, path: str, hash_prefix: str) -> None:
        asked.append((url, hash_prefix))
        torch.save(load_file(files["squeezenet1_0"]), path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        load_perceptual("squeezenet1_0", None, "cpu")
    assert asked == [(tv.SqueezeNet1_0_Weights.IMAGENET1K_V1.url, "b66bff10")]
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_0-b66bff10.pth"
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(UserError, match="squeezenet1_0-b66bff10.pth' does not hold .* remove it"):
        load_perceptual("squeezenet1_0", None, "cpu")


def test_the_config_names_the_distances_that_there_are():
    assert get_args(Perceptual) == ("none", *KINDS)
