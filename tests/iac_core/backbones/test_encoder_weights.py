import hashlib

import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.flexible_unet import FlexibleUNetSettings
from iac_core.errors import ConfigError

CHANNELS = (32, 16, 16, 8, 8)


def build(n_channels=1, seed=0, **weights):
    settings = FlexibleUNetSettings(decoder_channels=CHANNELS, **weights)
    return build_backbone(settings, n_channels=n_channels, n_classes=3, seed=seed)


def written(tmp_path, state):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    return {
        "encoder_weights": str(path),
        "encoder_weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_file_are_those_of_the_encoder(tmp_path, wrapped):
    state = build(seed=1).encoder.state_dict()
    given = {**state, "fc.weight": torch.zeros(3)}
    weights = written(tmp_path, {"state_dict": given} if wrapped else given)
    network = build(**weights)
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, state[name])
    other = build()
    for name, value in network.decoder.state_dict().items():
        assert torch.equal(value, other.decoder.state_dict()[name])


@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_first_convolution_for_colours_answers_the_same_to_grey(tmp_path, n_channels):
    colour = build(n_channels=3, seed=1).eval()
    network = build(n_channels, **written(tmp_path, colour.encoder.state_dict())).eval()
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = colour.encode(grey.expand(1, 3, 64, 64))
        found = network.encode(grey.expand(1, n_channels, 64, 64))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_file_without_its_hash_and_a_hash_without_its_file_are_refused():
    with pytest.raises(ConfigError, match="given together"):
        FlexibleUNetSettings(encoder_weights="a.pt")
    with pytest.raises(ConfigError, match="given together"):
        FlexibleUNetSettings(encoder_weights_sha256="0" * 64)


def test_another_file_of_the_name_is_refused_with_its_hash(tmp_path):
    weights = written(tmp_path, build().encoder.state_dict())
    with pytest.raises(ConfigError, match=weights["encoder_weights_sha256"]):
        build(**{**weights, "encoder_weights_sha256": "0" * 64})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"must be a file, got .*absent\.pt"):
        build(encoder_weights=str(tmp_path / "absent.pt"), encoder_weights_sha256="0" * 64)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1, 2], "must hold a state dict"),
        ({"a": torch.zeros(1)}, "every weight of the encoder"),
        ("pickle", "state dict of tensors"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, state, said):
    content = pytest.approx(1.0) if state == "pickle" else state
    with pytest.raises(ConfigError, match=said):
        build(**written(tmp_path, content))


def test_weights_of_another_size_are_refused(tmp_path):
    state = build().encoder.state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(8, 8, 3, 3)
    with pytest.raises(ConfigError, match="must fit the encoder"):
        build(**written(tmp_path, state))
