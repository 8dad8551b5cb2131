"""The U-Nets of nnU-Net's plans as hosts, and a network with cells that its trainer takes.

A network of dynamic-network-architectures has an ``encoder`` that returns all features and a
``decoder`` with ``stages``, ``transpconvs`` and ``seg_layers``; its forward pass is repeated here
with each skip through the adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import (
    Adapter,
    CellNorm,
    SkipSite,
    fit_to,
    keep_skip,
    recorded_sites,
)
from iac_core.config import require, require_at_least, require_positive
from iac_core.errors import ConfigError
from iac_core.seeding import derive_seed

_PARTS = ("stages", "transpconvs", "seg_layers")


_MOST_SKIPS = 10
_MOST_LETTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NnunetSettings:
    """Settings of nnU-Net's own 2-D pipeline as a backbone (row 38).

    Its planner and preprocessor take the place of ``prepare``, its trainer that of ``pretrain``,
    its sliding window that of the evaluation's predictions; search and retraining are those of
    every backbone, at the planned patch size.

    Attributes:
        planner: Class of nnU-Net's experiment planner, for example ``nnUNetPlannerResEncM``.
        gpu_memory_gb: Memory that the planner plans for; None is the planner's own.
        trainer: Class of nnU-Net's trainer.
        epochs: Epochs of its training.
        steps_per_epoch: Steps that make one.
        validation_steps: Batches of its pseudo Dice after each.
        batch_size: None is the planned one.
        mirrors: Whether predictions are means over mirrored images, nnU-Net's default.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    planner: str = "ExperimentPlanner"
    gpu_memory_gb: float | None = None
    trainer: str = "nnUNetTrainer"
    epochs: int = 1000
    steps_per_epoch: int = 250
    validation_steps: int = 50
    batch_size: int | None = None
    mirrors: bool = True

    def __post_init__(self) -> None:
        require_at_least(
            1,
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            validation_steps=self.validation_steps,
            batch_size=self.batch_size,
        )
        require_positive(gpu_memory_gb=self.gpu_memory_gb)
        for name in ("planner", "trainer"):  # parts of folder names of nnU-Net
            value = getattr(self, name)
            is_name = value.isidentifier() and len(value) <= _MOST_LETTERS
            require(is_name, f"{name} must be the name of a class of nnU-Net", value)

    @property
    def n_skips(self) -> int:
        """The most skip connections that nnU-Net plans; how many there are follows from the data.

        A random genotype per level is drawn for so many; the first ones are used.
        """
        return _MOST_SKIPS


def needs_plans(settings: NnunetSettings, **_: int) -> "NnunetUNet":
    """Refuse to build: the network follows from a preparation (`iac_core.nnunet.cases`).

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        "the network of nnunet must be built from its plans",
        value=f"settings alone ({settings})",
        way_out="run its preparation",
    )


def planned_network(
    architecture: Mapping[str, Any], *, n_channels: int, n_classes: int, seed: int
) -> "NnunetUNet":
    """Return a planned network as a host, with fresh weights that depend on the seed alone.

    Args:
        architecture: ``architecture`` of a configuration of nnU-Net's plans.
        n_channels: Image channels.
        n_classes: Classes, background included.
        seed: The job's seed.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            n_channels,
            n_classes,
            deep_supervision=False,
        )
        return NnunetUNet(network, n_channels=n_channels)


def _pair(stride: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(stride, int):
        return stride, stride
    rows, columns = stride
    return rows, columns


class NnunetDecoder(nn.Module):
    """The decoder's layers without the encoder that nnU-Net registers in it a second time.

    Attributes:
        deep_supervision: Whether the logits of every level are wanted; nnU-Net's trainer sets it.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.stages = decoder.get_submodule("stages")
        self.transpconvs = decoder.get_submodule("transpconvs")
        self.seg_layers = decoder.get_submodule("seg_layers")
        self.deep_supervision = bool(getattr(decoder, "deep_supervision", False))


class NnunetUNet(nn.Module):
    """A network of nnU-Net behind the backbone interface; weights are shared, not copied.

    Args:
        network: ``PlainConvUNet``, ``ResidualEncoderUNet`` or alike, in 2-D.
        n_channels: Image channels.

    Raises:
        ConfigError: If the network is not built so.
    """

    def __init__(self, network: nn.Module, *, n_channels: int) -> None:
        super().__init__()
        parts = dict(network.named_modules())
        missing = [name for name in _PARTS if f"decoder.{name}" not in parts]
        if missing or "encoder" not in parts:
            raise ConfigError(
                "a host of nnU-Net must have an encoder and a decoder with stages, transpconvs "
                "and seg_layers",
                value=f"{type(network).__name__} without {', '.join(missing) or 'encoder'}",
            )
        self.encoder: nn.Module = parts["encoder"]
        self.decoder: nn.Module = NnunetDecoder(parts["decoder"])
        norms = [part for part in parts.values() if isinstance(part, nn.InstanceNorm2d)]
        self.cell_norm: CellNorm = "instance" if norms else "batch"
        strides = [_pair(stride) for stride in parts["encoder"].strides]
        self.multiples = prod(row for row, _ in strides), prod(column for _, column in strides)
        # Twice the deepest stride: an instance norm needs more than one pixel.
        size = 2 * max(self.multiples)
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels, size=size)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features, finest first, the bottleneck last.

        The border is repeated up to the sizes that the network takes; patches have such a size.
        """
        size = [
            -(-extent // multiple) * multiple
            for extent, multiple in zip(images.shape[-2:], self.multiples, strict=True)
        ]
        return list(self.encoder(fit_to(images, size)))

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits of the finest level."""
        return self.decode_levels(features, adapter)[0]

    def decode_levels(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> list[Tensor]:
        """Return the logits of every level, finest first, or of the finest alone.

        All of them where ``decoder.deep_supervision`` is set.
        """
        decoder = self.decoder
        assert isinstance(decoder, NnunetDecoder)
        logits: list[Tensor] = []
        x = features[-1]
        n_levels = len(features) - 1
        for index in range(n_levels):
            level = n_levels - 1 - index
            skip = features[level]
            upsampled = decoder.transpconvs.get_submodule(str(index))(x)
            joined = torch.cat([upsampled, adapter(level, skip, upsampled)], dim=1)
            x = decoder.stages.get_submodule(str(index))(joined)
            if decoder.deep_supervision or level == 0:
                logits.insert(0, decoder.seg_layers.get_submodule(str(index))(x))
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])
