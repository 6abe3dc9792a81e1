from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lddgan.errors import UserError
from lddgan.metrics.features import NETWORKS, load_features


def random_state() -> dict[str, torch.Tensor]:
    """A file as released: convolutions without bias, BatchNorm, classifier."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, below: int, width: int) -> None:
        state[f"{conv}.weight"] = torch.randn(width, below, 3, 3, generator=generator) * (2 / (9 * below)) ** 0.5
        state[f"{norm}.weight"] = 0.5 + torch.rand(width, generator=generator) * 0.3
        state[f"{norm}.bias"] = torch.randn(width, generator=generator) * 0.1
        state[f"{norm}.running_mean"] = torch.randn(width, generator=generator) * 0.1
        state[f"{norm}.running_var"] = 0.5 + torch.rand(width, generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("conv1", "bn1", 3, 16)
    below = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(9):
            for index in (1, 2):
                prefix = f"layer{stage}.{block}"
                add(f"{prefix}.conv{index}", f"{prefix}.bn{index}", below, width)
                below = width
    state["linear.weight"] = torch.randn(10, 64, generator=generator)
    state["linear.bias"] = torch.randn(10, generator=generator)
    return state


def direct_features(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The network written out with its BatchNorm, in float64, for images [B, 3, 32, 32] in [0, 1]."""
    state = {key: value.double() for key, value in state.items()}

    def conv_norm(x: torch.Tensor, prefix: str, index: int, stride: int = 1) -> torch.Tensor:
        x = F.conv2d(x, state[f"{prefix}conv{index}.weight"], stride=stride, padding=1)
        mean, variance, gamma, beta = (
            state[f"{prefix}bn{index}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-5)

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double().view(2, 3, 1, 1)
    h = F.relu(conv_norm((images.double() - mean) / std, "", 1))
    for stage in (1, 2, 3):
        for block in range(9):
            stride = 2 if block == 0 and stage > 1 else 1
            inner = F.relu(conv_norm(h, f"layer{stage}.{block}.", 1, stride))
            inner = conv_norm(inner, f"layer{stage}.{block}.", 2)
            shortcut = h[:, :, ::stride, ::stride]
            if stride == 2:
                zeros = torch.zeros_like(shortcut)[:, : shortcut.shape[1] // 2]
                shortcut = torch.cat([zeros, shortcut, zeros], dim=1)
            h = F.relu(inner + shortcut)
    return h.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet56.safetensors"
    save_file(random_state(), path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    return load_features("resnet56", weights)


def images(count: int, size: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def test_features_equal_the_network_written_out_with_batch_norm(network):
    pictures = images(4)
    expected = direct_features(random_state(), torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    features, logits = network(pictures)
    assert features.dtype == torch.float32 and features.shape == (4, network.dim) == (4, 64)
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    state = random_state()
    torch.testing.assert_close(logits, features @ state["linear.weight"].T + state["linear.bias"], rtol=1e-4, atol=1e-3)
    assert expected.std(dim=0).min() > 0  # the comparison is not between constants


def test_grey_is_repeated_and_other_sizes_are_resized_without_aliasing(network):
    grey = images(2, channels=1)
    torch.testing.assert_close(network(grey)[0], network(np.repeat(grey, 3, axis=3))[0])
    # A fine chequerboard is flat grey once resized with antialiasing; every other pixel alone would be black or white.
    board = np.indices((128, 128)).sum(axis=0) % 2 * 255
    board = np.repeat(board[None, :, :, None].astype(np.uint8), 3, axis=3)
    flat = torch.full((1, 3, 32, 32), 0.5)
    flat_features = direct_features(random_state(), flat)
    difference = (network(board)[0].double() - flat_features).norm() / flat_features.norm()
    black = (network(np.zeros_like(board))[0].double() - flat_features).norm() / flat_features.norm()
    assert difference < 0.05 * black


def random_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights under which activations neither vanish nor grow, for networks of any depth."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "bn.weight")) or (tensor.ndim == 1 and "weight" in name):
            state[name] = 0.8 + 0.4 * torch.rand(tensor.shape, generator=generator)
        elif tensor.ndim >= 2:
            state[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif tensor.dtype.is_floating_point:
            state[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
        else:
            state[name] = tensor
    return state


def test_inception_is_pytorch_fid_s_on_the_same_weights_and_images(tmp_path, monkeypatch):
    import pytorch_fid.inception as theirs

    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: random_state_of_theirs)
    blank = theirs._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, block in (
        ("Mixed_5b", theirs.FIDInceptionA(192, 32)), ("Mixed_5c", theirs.FIDInceptionA(256, 64)),
        ("Mixed_7c", theirs.FIDInceptionE_2(2048)),
    ):  # fmt: skip
        setattr(blank, name, block)
    random_state_of_theirs = random_weights(blank)
    torch.save(random_state_of_theirs, tmp_path / "inception.pth")

    network = load_features("inception", tmp_path / "inception.pth")
    reference = theirs.InceptionV3([3]).eval()
    for size in (32, 400):  # enlarged and reduced
        pictures = images(3, size)
        with torch.inference_mode():
            expected = reference(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)[0][:, :, 0, 0]
        features, logits = network(pictures)
        assert features.shape == (3, 2048) and logits.shape == (3, 1008)
        assert (features - expected).norm() / expected.norm() < 1e-4
        assert expected.std(0).mean() > 0.01 * expected.mean()


def test_vgg16_features_are_those_behind_the_second_relu(tmp_path):
    from torchvision.models import vgg16

    with torch.device("meta"):
        model = vgg16().eval()
    model.load_state_dict(random_weights(model), assign=True)
    save_file(model.state_dict(), tmp_path / "vgg16.safetensors")
    pictures = images(2, 224)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    with torch.inference_mode():
        expected = model((x - mean) / std)
    features, logits = load_features("vgg16", tmp_path / "vgg16.safetensors")(pictures)
    assert features.shape == (2, 4096) and features.min() == 0
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_efficientnet_needs_no_path_and_agrees_with_its_package():
    network = load_features("efficientnet-lite0")
    pictures = images(2, 224)
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        expected = network._module.model(x)
    features, logits = network(pictures)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_code_in_a_weights_file_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="neither safetensors nor a plain state dict"):
        load_features("resnet56", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_without_a_connection_one_sentence_names_the_mend(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name in ("inception", "vgg16", "resnet56"):
        with pytest.raises(UserError, match=f"weights of {name} .* --features-weights PATH"):
            load_features(name)
    assert list((tmp_path / "weights").iterdir()) == []


def test_weights_hash_follows_the_file(network, weights, tmp_path):
    other = random_state()
    other["conv1.weight"][0, 0, 0, 0] += 1
    save_file(other, tmp_path / "other.safetensors")
    assert load_features("resnet56", weights).weights_hash == network.weights_hash
    assert load_features("resnet56", tmp_path / "other.safetensors").weights_hash != network.weights_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.3.bn1.running_var"), r"no tensor 'layer2\.3\.bn1\.running_var'"),
        (lambda state: state.update({"conv1.weight": torch.zeros(16, 1, 3, 3)}), r"\(16, 1, 3, 3\) instead of"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, change, message):
    state = random_state()
    change(state)
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=message) as caught:
        load_features("resnet56", tmp_path / "odd.safetensors")
    assert "odd.safetensors" in str(caught.value)


def test_missing_and_truncated_files_and_unknown_names(tmp_path, weights):
    with pytest.raises(UserError, match="cannot read the weights"):
        load_features("resnet56", tmp_path / "absent.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_features("resnet56", tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=f"choose one of {', '.join(NETWORKS)}"):
        load_features("resnet65", weights)


def test_images_it_cannot_take_are_refused(network):
    with pytest.raises(UserError, match="uint8"):
        network(images(2).astype(np.float32))
    with pytest.raises(UserError, match="1 or 3 channels"):
        network(images(2, channels=4))
    with pytest.raises(UserError, match="square"):
        network(images(2)[:, :16])
