"""The U-Nets of nnU-Net's plans as hosts, and a network with cells that its trainer takes.

A network of dynamic-network-architectures has an ``encoder`` that returns all features and a
``decoder`` with ``stages``, ``transpconvs`` and ``seg_layers``; its forward pass is repeated here
with each skip through the adapter. The package itself is not imported.
"""

from collections.abc import Sequence
from math import prod

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
from iac_core.errors import ConfigError

_PARTS = ("stages", "transpconvs", "seg_layers")


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
                f"and seg_layers, got {type(network).__name__} without "
                f"{', '.join(missing) or 'encoder'}"
            )
        self.encoder: nn.Module = parts["encoder"]
        self.decoder: nn.Module = NnunetDecoder(parts["decoder"])
        norms = [part for part in parts.values() if isinstance(part, nn.InstanceNorm2d)]
        self.cell_norm: CellNorm = "instance" if norms else "batch"
        deepest = prod(max(stride) for stride in parts["encoder"].strides)
        # Twice the deepest stride: an instance norm needs more than one pixel.
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels, size=2 * deepest)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features, finest first, the bottleneck last."""
        return list(self.encoder(images))

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
