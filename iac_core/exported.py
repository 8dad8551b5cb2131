"""Found cells outside a sweep: a folder of JSON and safetensors, and the way back into a network.

::

    <folder>/description.json      genotype, cell, sites, backbone, classes, preprocessing, scores
    <folder>/cells.safetensors     weights of the cells and their gates
    <folder>/network.safetensors   weights of the whole network
    <folder>/network.onnx          the whole network for one size of slices, if asked for
    <folder>/network.pt2           the same for `torch.export.load`
"""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from files.writing import whole_path, write_text
from iac_core.backbones.external import External, SkipArgument
from iac_core.backbones.interface import Backbone
from iac_core.backbones.nnunet_unet import NnunetUNet
from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import CellSettings, RetrainScope
from iac_core.errors import ConfigError
from iac_core.exported_reading import (
    CHECKSUMS,
    DESCRIPTION_SUM,
    description_sum,
    parse_cell,
    parse_genotype,
    read_description,
    read_weights,
    sha256_of,
)

DESCRIPTION = "description.json"
CELLS = "cells.safetensors"
NETWORK = "network.safetensors"
SCHEMA_VERSION = 2
ProgramFormat = Literal["onnx", "torch_export"]
_BACKBONE_PREFIX = "implant.backbone."
_LARGEST_DIFFERENCE = 1e-3
"""Of logits, between a written program and the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedCells:
    """The cells of an exported folder.

    Attributes:
        genotype: The cells.
        settings: Nodes, partial channels, second input and form.
        description: Everything that ``description.json`` holds.
        weights: State of cells and gates.
    """

    genotype: Genotype
    settings: CellSettings
    description: dict[str, Any]
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path | str) -> "ExportedCells":
        """Read an exported folder; all in it is compared with its checksum.

        Raises:
            ConfigError: If it is not one, or anything in it is damaged.
        """
        path = Path(folder) / DESCRIPTION
        description = read_description(path, schema=SCHEMA_VERSION)
        genotype = parse_genotype(path, description["genotype"])
        settings = parse_cell(path, description["cell"])
        if genotype.n_nodes != settings.n_nodes:
            raise ConfigError(
                f"{path}: genotype and cell must have as many nodes",
                value=f"{genotype.n_nodes} and {settings.n_nodes}",
                way_out="write one with `orchestrator export`",
            )
        return cls(
            genotype=genotype,
            settings=settings,
            description=description,
            weights=read_weights(Path(folder), CELLS, description),
        )

    def implant_into(
        self,
        network: nn.Module,
        skips: Sequence[tuple[str, int | str]] = (),
        *,
        n_channels: int = 1,
        multiple: int = 32,
        with_weights: bool = True,
        scope: RetrainScope = "cell",
        seed: int = 0,
    ) -> ImplantedNetwork:
        """Return a trained network with these cells in its skips.

        Args:
            network: A backbone of this project, or any module that maps images to logits.
            skips: For any module: path of each module whose ``forward`` takes a skip, with the
                position or name of that argument; finest first. The decoder's feature is argument
                0.
            n_channels: Image channels of the module.
            multiple: Rows and columns that the module takes are multiples of this.
            with_weights: Load the trained weights of the cells; otherwise they are fresh and are
                to be trained. Where `CellSettings.start` is ``matched``, call
                `iac_core.cells.matched_start.match_start` with a batch of images first.
            scope: What trains; the rest is frozen.
            seed: Of fresh weights.

        Raises:
            ConfigError: If the skips do not fit the cells.
        """
        host: Backbone
        if isinstance(network, Backbone):
            host = network
        else:
            arguments = [SkipArgument(module=path, argument=name) for path, name in skips]
            host = External(network, arguments, multiple=multiple, n_channels=n_channels)
        if not host.sites:
            raise ConfigError(
                "cells must go into skips",
                value="none",
                way_out="name them with `skips`",
            )
        implanted = ImplantedNetwork(host, self.genotype, self.settings, scope=scope, seed=seed)
        if with_weights:
            self._load_weights(implanted)
        return implanted

    def implant_into_nnunet(
        self,
        network: nn.Module,
        *,
        n_channels: int = 1,
        with_weights: bool = True,
        scope: RetrainScope = "cell",
        seed: int = 0,
    ) -> "NnunetWithCells":
        """Return a 2-D network of nnU-Net with these cells, for nnU-Net's trainer and predictor.

        Args:
            network: What ``trainer.network`` holds, trained; not compiled.
            n_channels: Image channels.
            with_weights: As for `implant_into`.
            scope: What trains; the rest is frozen.
            seed: Of fresh weights.

        Raises:
            ConfigError: If it is no network of nnU-Net, or its skips do not fit the cells.
        """
        implanted = self.implant_into(
            NnunetUNet(network, n_channels=n_channels),
            with_weights=with_weights,
            scope=scope,
            seed=seed,
        )
        return NnunetWithCells(implanted)

    def _load_weights(self, implanted: ImplantedNetwork) -> None:
        own = {
            name: value
            for name, value in implanted.state_dict().items()
            if not name.startswith(_BACKBONE_PREFIX)
        }
        shapes = [{name: tuple(value.shape) for name, value in one.items()}
                  for one in (own, self.weights)]  # fmt: skip
        if shapes[0] != shapes[1]:
            found = [(site.skip_channels, site.decoder_channels)
                     for site in implanted.implant.backbone.sites]  # fmt: skip
            sites = self.description.get("sites", [])
            made = [(site["skip_channels"], site["decoder_channels"]) for site in sites]
            raise ConfigError(
                f"weights must fit the skips they were trained in, {made} channels of skip and "
                "decoder",
                value=found,
                way_out="pass with_weights=False and train the cells",
            )
        implanted.load_state_dict(self.weights, strict=False)


class NnunetWithCells(nn.Module):
    """What nnU-Net's trainer asks of a network: logits of every level while it wants them.

    Args:
        implanted: Cells in a `NnunetUNet`.
    """

    def __init__(self, implanted: ImplantedNetwork) -> None:
        super().__init__()
        self.implanted = implanted

    @property
    def encoder(self) -> nn.Module:
        """The encoder, where nnU-Net looks for it."""
        return self.implanted.implant.backbone.encoder

    @property
    def decoder(self) -> nn.Module:
        """The decoder, whose ``deep_supervision`` nnU-Net's trainer switches."""
        return self.implanted.implant.backbone.decoder

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return logits, or with deep supervision those of every level, finest first."""
        implant = self.implanted.implant
        host = implant.backbone
        assert isinstance(host, NnunetUNet)
        adapter = implant.adapter(self.implanted.apply_cell)
        logits = host.decode_levels(implant.encode(images), adapter)
        return logits if self.decoder.deep_supervision else logits[0]


def write_export(
    folder: Path,
    network: ImplantedNetwork,
    genotype: Genotype,
    cell: CellSettings,
    description: dict[str, Any],
) -> None:
    """Write an implanted network as a folder that `ExportedCells` reads.

    Args:
        folder: An existing, empty folder.
        network: The trained network.
        genotype: Its cells.
        cell: Settings of the cells.
        description: What else is to be known: plain values.
    """
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    cells = {name: value for name, value in state.items() if not name.startswith(_BACKBONE_PREFIX)}
    whole: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "genotype": json.loads(genotype.to_json()),
        "cell": asdict(cell),
        "sites": [
            {
                "skip_channels": site.skip_channels,
                "decoder_channels": site.decoder_channels,
                "stride": site.stride,
            }
            for site in network.implant.backbone.sites
        ],
        **description,
    }
    with whole_path(folder / CELLS) as temporary:
        save_file(cells, temporary, metadata={DESCRIPTION_SUM: description_sum(whole)})
    with whole_path(folder / NETWORK) as temporary:
        save_file(_without_doubles(state), temporary)
    whole[CHECKSUMS] = {name: sha256_of(folder / name) for name in (CELLS, NETWORK)}
    write_text(folder / DESCRIPTION, json.dumps(whole, indent=1))


def write_program(
    network: nn.Module,
    folder: Path,
    kind: ProgramFormat,
    *,
    n_channels: int,
    slice_shape: tuple[int, int],
) -> float:
    """Write a network as a program that runs without this project, and compare the two.

    Args:
        network: Images ``(B, C, H, W)`` → logits; in evaluation mode afterwards.
        folder: Where ``network.onnx`` or ``network.pt2`` goes.
        kind: ONNX (needs the extra ``onnx``), or a program of `torch.export`.
        n_channels: Image channels.
        slice_shape: Rows and columns of the slices; the number of slices is free.

    Returns:
        Largest difference of a logit between program and network, on random images.

    Raises:
        ConfigError: If a package is missing, or program and network differ.
    """
    network = network.cpu().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, n_channels, *slice_shape, generator=generator)
    fresh = torch.randn(3, n_channels, *slice_shape, generator=generator)
    dynamic = {"images": {0: torch.export.Dim("n_slices", min=1, max=4096)}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn of torch's own parts
        expected = network(fresh)
        if kind == "torch_export":
            program = torch.export.export(network, (images,), dynamic_shapes=dynamic)
            torch.export.save(program, folder / "network.pt2")
            found = torch.export.load(folder / "network.pt2").module()(fresh)
        else:
            found = _through_onnx(network, images, fresh, folder / "network.onnx", dynamic)
    difference = float((found - expected).abs().max())
    if not difference <= _LARGEST_DIFFERENCE:
        raise ConfigError(
            "an exported program must give the network's logits",
            value=f"{difference} of difference",
        )
    return difference


def _through_onnx(
    network: nn.Module, images: Tensor, fresh: Tensor, path: Path, dynamic: dict[str, Any]
) -> Tensor:
    """Write an ONNX file, run it, and return its logits."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - what torch writes ONNX with
    except ImportError as error:
        raise ConfigError(
            "ONNX must be installed",
            value=f"no {error.name}",
            way_out="run `pip install .[onnx]`",
        ) from error
    # It warns of operators of torchvision, which no network here has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    torch.onnx.export(
        network,
        (images,),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=dynamic,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": fresh.numpy()})[0])


def _without_doubles(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share memory are copied: safetensors stores each on its own."""
    return {name: value.clone() for name, value in state.items()}
