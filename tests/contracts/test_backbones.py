"""What every backbone must do; a new entry of the table is tested by being there."""

import copy
import importlib.util
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from iac_core.backbones import BACKBONES, build_backbone
from iac_core.backbones.external import ExternalSettings, SkipArgument
from iac_core.backbones.interface import Backbone
from iac_core.backbones.nnunet_unet import planned_network
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork, Supernet
from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.seeding import numpy_generator

BASIC_UNET = ExternalSettings(
    target="monai.networks.nets:BasicUNet",
    arguments={"spatial_dims": 2, "features": [8, 8, 16, 16, 32, 8]},
    classes_argument="out_channels",
    skips=tuple(SkipArgument(module=f"upcat_{level}") for level in (1, 2, 3, 4)),
    multiple=16,
)
SMALL = {
    "unet": {"widths": (8, 16, 32)},
    "residual_unet": {"widths": (8, 16, 32), "n_blocks": 2},
    "dyn_unet": {"filters": (8, 16, 32)},
    "vgg_unet": {"widths": (8, 8, 16, 16, 32)},
    "mobilenet_v2_unet": {"width_factor": 0.25, "decoder_channels": (8, 8, 16, 16)},
    "smp_vgg13_unet": {"width": 8},
    "smp_resnet50_unet": {"width": 8},
    "attention_unet": {"widths": (8, 16, 32)},
    "unet_plus_plus": {"widths": (8, 8, 16, 16, 32, 8)},
    "unet_3_plus": {"widths": (8, 16, 32), "branch_width": 8},
    "seg_res_net": {"width": 8},
    "swin_unetr": {"width": 12},
    "unetr": {"size": 64, "width": 8, "hidden": 24, "n_heads": 2},
    "mixed_block": {
        "genotype": "vgg3@0 dense5@1 inception7@2 residual3@2 vgg5@1+1 dense3@0+1 inception3@1+1",
        "width": 4,
    },
}
FLEXIBLE = {"decoder_channels": (32, 16, 16, 8, 8)}
PLANNED = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 4, "features_per_stage": [8, 8, 16, 16], "kernel_sizes": [[3, 3]] * 4,
        "strides": [[1, 1], [2, 2], [2, 2], [2, 2]], "n_conv_per_stage": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3, "conv_bias": True, "conv_op": "torch.nn.Conv2d",
        "norm_op": "torch.nn.InstanceNorm2d", "norm_op_kwargs": {"affine": True},
        "dropout_op": None, "nonlin": "torch.nn.LeakyReLU",
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}  # fmt: skip
NEEDS_NNUNET = pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None, reason="nnU-Net: pip install .[nnunet]"
)
NAMES = [
    pytest.param(name, marks=NEEDS_NNUNET) if name == "nnunet" else name
    for name in sorted(BACKBONES)
]
HOSTS = [
    name
    for name in NAMES
    if name == "external" or not isinstance(name, str) or BACKBONES[name].Settings().n_skips
]
CELL = CellSettings(n_nodes=2, partial_channels=2, form="residual")


def small(name):
    """Settings of an entry, small enough for a test."""
    if name == "external":
        return BASIC_UNET
    return BACKBONES[name].Settings(**SMALL.get(name, FLEXIBLE))


def build(name, n_channels=1, seed=0):
    if name == "nnunet":
        return planned_network(PLANNED, n_channels=n_channels, n_classes=3, seed=seed)
    return build_backbone(small(name), n_channels=n_channels, n_classes=3, seed=seed)


@pytest.fixture(params=NAMES)
def backbone(request):
    return build(request.param).eval()


def images(size=(64, 64), n=2, n_channels=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, n_channels, *size, generator=generator)


@pytest.mark.parametrize("size", [(64, 64), (50, 63)])
def test_logits_have_the_size_of_the_image(backbone, size):
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        logits = backbone(images(size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_images_may_have_several_channels(name):
    with torch.no_grad():
        assert build(name, n_channels=4).eval()(images(n_channels=4)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_sites_say_what_the_decoder_takes(name):
    network, seen = build(name).eval(), {}

    def record(level, skip, upsampled):
        seen[level] = (skip.shape[1], upsampled.shape[1], 64 // skip.shape[-1])
        assert skip.shape[2:] == upsampled.shape[2:]
        return skip

    with torch.no_grad():
        plain = network(images())
        assert torch.equal(network.decode(network.encode(images()), record), plain)
    assert [seen[level] for level in range(len(network.sites))] == [
        (site.skip_channels, site.decoder_channels, site.stride) for site in network.sites
    ]
    if name == "nnunet":
        assert len(network.sites) <= BACKBONES[name].Settings().n_skips
    else:
        assert len(network.sites) == small(name).n_skips
    strides = [site.stride for site in network.sites]
    assert strides == sorted(strides)


@pytest.mark.parametrize("name", HOSTS)
def test_every_skip_reaches_the_logits(name):
    network = build(name).eval()
    with torch.no_grad():
        plain = network(images())
        for level in range(len(network.sites)):

            def silence(at, skip, upsampled, level=level):
                return torch.zeros_like(skip) if at == level else skip

            assert not torch.equal(network.decode(network.encode(images()), silence), plain)


@pytest.mark.parametrize("size", [(64, 64), (50, 63)])
@pytest.mark.parametrize("name", HOSTS)
def test_a_cell_whose_gate_is_zero_leaves_the_output_as_it_was(name, size):
    network = build(name).eval()
    with torch.no_grad():
        plain = network(images(size))
        supernet = Supernet(network, CELL, seed=0, join="residual").eval()
        assert torch.equal(supernet(images(size)), plain)
        genotype = random_genotype(CELL, len(network.sites), numpy_generator(0, "test"))
        implanted = ImplantedNetwork(network, genotype, CELL, scope="cell", seed=0).eval()
        assert torch.equal(implanted(images(size)), plain)


@pytest.mark.parametrize("name", HOSTS)
def test_training_cells_moves_no_frozen_tensor_and_reaches_every_cell(name):
    network = build(name)
    network(images(n=4))  # buffers differ from fresh ones
    before = copy.deepcopy(network.state_dict())
    genotype = random_genotype(CELL, len(network.sites), numpy_generator(0, "test"))
    replaced = replace(CELL, form="replace")
    implanted = ImplantedNetwork(network, genotype, replaced, scope="cell", seed=0).train()
    optimiser = torch.optim.SGD(implanted.implant.cell_parameters(), lr=0.1)
    implanted(images(n=4)).square().mean().backward()
    for weight in network.parameters():
        assert weight.grad is None
    for cell in implanted.implant.cells:
        reached = [weight.grad for weight in cell.parameters() if weight.grad is not None]
        assert any(bool(gradient.abs().sum() > 0) for gradient in reached)
    optimiser.step()
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_backbone_trains(name):
    network = build(name).train()
    network(images(n=4)).square().mean().backward()
    silent = [key for key, weight in network.named_parameters() if weight.grad is None]
    # Parts that MONAI makes and this use does not run: heads for supervision, norms of a decoder.
    unused = ("final_conv_0_", "norm_cross_attn", "decoder.seg_layers")
    assert all(any(part in key for part in unused) for key in silent)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_fixes_the_weights_and_the_global_generator_is_left_alone(name):
    network = build(name)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = build(name)
    assert torch.equal(torch.rand(1), expected)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    other = build(name, seed=1)
    changed = other.state_dict().items()
    assert any(not torch.equal(value, network.state_dict()[key]) for key, value in changed)


def test_state_round_trip_deepcopy_and_pickle_keep_the_output(backbone, tmp_path):
    with torch.no_grad():
        plain = backbone(images())
        torch.save(backbone.state_dict(), tmp_path / "weights.pt")
        state = torch.load(tmp_path / "weights.pt", weights_only=True)
        copied = copy.deepcopy(backbone)
        for weight in copied.parameters():
            weight.zero_()
        copied.load_state_dict(state)
        assert torch.equal(copied(images()), plain)
        assert torch.equal(pickle.loads(pickle.dumps(backbone))(images()), plain)


_OTHER_PROCESS = """
import pickle, sys, torch
torch.set_num_threads(1)
pairs = pickle.load(open(sys.argv[1], "rb"))
with torch.no_grad():
    print([bool(torch.equal(network(images), logits)) for network, images, logits in pairs])
"""


@pytest.mark.slow
def test_backbones_give_the_same_logits_in_another_process(tmp_path):
    names = [name for name in NAMES if isinstance(name, str)]
    if importlib.util.find_spec("nnunetv2") is not None:
        names.append("nnunet")
    networks = [build(name).eval() for name in names]
    with torch.no_grad():
        triples = [(network, images(), network(images())) for network in networks]
    path = tmp_path / "networks.pickle"
    path.write_bytes(pickle.dumps(triples))
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([True] * len(names))


def test_the_network_of_nnunet_is_not_built_without_plans():
    with pytest.raises(ConfigError, match="must be built from its plans"):
        build_backbone(BACKBONES["nnunet"].Settings(), n_channels=1, n_classes=3, seed=0)


def test_slices_larger_than_a_position_embedding_are_refused():
    network = build("unetr")
    with pytest.raises(ConfigError, match="size must be at least that of the slices"):
        network(images((80, 80)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "monai.networks.nets:NoSuchNet"}, "importable on every worker"),
        ({"target": "no_such_package.nets:UNet"}, "importable on every worker"),
        ({"classes_argument": "classes"}, "correct arguments, channels_argument"),
        ({"target": "collections:OrderedDict"}, "must return a torch module"),
        ({"skips": (SkipArgument(module="up_4"),)}, "must be an argument of a module of"),
        ({"skips": (SkipArgument(module="upcat_4", argument=7),)}, "argument 7 of upcat_4"),
        ({"skips": (SkipArgument(module="upcat_4", argument="y"),)}, "its arguments: 0, 1"),
    ],
)
def test_an_external_network_that_does_not_fit_says_why(changes, said):
    with pytest.raises(ConfigError, match=said):
        build_backbone(replace(BASIC_UNET, **changes), n_channels=1, n_classes=3, seed=0)


def test_the_target_of_an_external_network_names_a_module_and_a_class():
    with pytest.raises(ConfigError, match=r"target must be package\.module:Class"):
        ExternalSettings(target="monai.networks.nets.BasicUNet")
