"""MONAI's DynUNet in 2-D, the network that nnU-Net's plans describe, behind the interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import (
    Adapter,
    SkipSite,
    features_of,
    fit_to,
    keep_skip,
    recorded_sites,
)
from iac_core.config import require_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class DynUNetSettings:
    """Settings of a DynUNet with 3 × 3 kernels, instance norm and leaky ReLU.

    Attributes:
        filters: Channels of each level, finest first; every level halves the size.
        residual: Residual blocks in the place of plain ones.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    filters: tuple[int, ...] = (32, 64, 128, 256, 512)
    residual: bool = False

    def __post_init__(self) -> None:
        require_levels(1, at_least=3, filters=self.filters)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.filters) - 1


class _Decoder(nn.Module):
    def __init__(self, blocks: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = blocks, head


class DynUNet(nn.Module):
    """DynUNet without deep supervision.

    Args:
        settings: Filters and kind of blocks.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(self, settings: DynUNetSettings, *, n_channels: int, n_classes: int) -> None:
        from monai.networks import nets  # here: the core works without MONAI otherwise

        super().__init__()
        n_levels = len(settings.filters)
        network = nets.DynUNet(
            2,
            n_channels,
            n_classes,
            kernel_size=[3] * n_levels,
            strides=[1] + [2] * (n_levels - 1),
            upsample_kernel_size=[2] * (n_levels - 1),
            filters=settings.filters,
            res_block=settings.residual,
        )
        self.encoder: nn.Module = nn.ModuleList(
            [network.input_block, *network.downsamples, network.bottleneck]
        )
        self.decoder: nn.Module = _Decoder(network.upsamples, network.output_block)
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return one feature per level, finest first."""
        assert isinstance(self.encoder, nn.ModuleList)
        return features_of(self.encoder, images)

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits, at least of the input's size."""
        assert isinstance(self.decoder, _Decoder)
        x = features[-1]
        for index, block in enumerate(self.decoder.blocks):
            level = len(features) - 2 - index
            skip = features[level]
            upsampled = fit_to(block.get_submodule("transp_conv")(x), skip.shape[-2:])
            joined = torch.cat([upsampled, adapter(level, skip, upsampled)], dim=1)
            x = block.get_submodule("conv_block")(joined)
        logits: Tensor = self.decoder.head(x)
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])
