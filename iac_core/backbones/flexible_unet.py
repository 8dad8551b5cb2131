"""MONAI's FlexibleUNet, in 2-D, behind the backbone interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.encoder_weights import check_encoder_weights, load_encoder_weights
from iac_core.backbones.interface import Adapter, SkipSite, fit_to, keep_skip, recorded_sites
from iac_core.config import require, require_levels

ENCODERS: tuple[str, ...] = (
    *(f"resnet{n}" for n in (10, 18, 34, 50, 101, 152, 200)),
    *(f"efficientnet-b{n}" for n in range(9)),
    "efficientnet-l2",
)
"""Encoders of MONAI's FlexibleUNet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexibleUNetSettings:
    """Settings of a FlexibleUNet; no weights are downloaded.

    Attributes:
        encoder: MONAI's name of a residual or efficient network.
        decoder_channels: Channels of the five decoder levels, deepest first.
        encoder_weights: File with pre-trained weights of the encoder.
        encoder_weights_sha256: Hash of that file.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    encoder: str = "resnet18"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    encoder_weights: str | None = None
    encoder_weights_sha256: str | None = None

    def __post_init__(self) -> None:
        require(
            self.encoder in ENCODERS,
            f"encoder must be one of MONAI's {', '.join(ENCODERS)}",
            self.encoder,
        )
        require(
            len(self.decoder_channels) == 5,
            "decoder_channels must name five levels of at least 1 channel",
            self.decoder_channels,
        )
        require_levels(1, at_least=5, decoder_channels=self.decoder_channels)
        check_encoder_weights(self.encoder_weights, self.encoder_weights_sha256)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.decoder_channels) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet34UNetSettings(FlexibleUNetSettings):
    """The same with a ResNet-34."""

    encoder: str = "resnet34"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet50UNetSettings(FlexibleUNetSettings):
    """The same with a ResNet-50."""

    encoder: str = "resnet50"


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetB0UNetSettings(FlexibleUNetSettings):
    """The same with an EfficientNet-B0."""

    encoder: str = "efficientnet-b0"


_CLASSIFIER = ("_conv_head", "_bn1", "_avg_pooling", "_dropout", "_fc")
"""Parts of an EfficientNet that a segmentation never runs; they would count as parameters."""


class _Decoder(nn.Module):
    def __init__(self, blocks: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head


class FlexibleUNet(nn.Module):
    """Residual or efficient encoder, nearest upsampling, concatenation, two convolutions a level.

    The encoder's finest feature has stride 2, so the last decoder level has no skip.

    Args:
        settings: Encoder and decoder widths.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(self, settings: FlexibleUNetSettings, *, n_channels: int, n_classes: int) -> None:
        from monai.networks import nets  # here: the core works without MONAI otherwise

        super().__init__()
        network = nets.FlexibleUNet(
            n_channels,
            n_classes,
            settings.encoder,
            decoder_channels=settings.decoder_channels,
            pretrained=False,
        )
        self.encoder: nn.Module = network.encoder
        for name in _CLASSIFIER:
            if hasattr(self.encoder, name):
                delattr(self.encoder, name)
        if settings.encoder_weights is not None and settings.encoder_weights_sha256 is not None:
            load_encoder_weights(
                self.encoder, settings.encoder_weights, settings.encoder_weights_sha256
            )
        self.decoder: nn.Module = _Decoder(network.decoder.blocks, network.segmentation_head)
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features, finest (stride 2) first."""
        return list(self.encoder(images))

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits, at least of the input's size."""
        assert isinstance(self.decoder, _Decoder)
        x = features[-1]
        for index, block in enumerate(self.decoder.blocks):
            level = len(features) - 2 - index
            x = block.get_submodule("upsample")(x)
            if level >= 0:
                skip = features[level]
                x = fit_to(x, skip.shape[-2:])
                x = torch.cat([adapter(level, skip, x), x], dim=1)
            x = block.get_submodule("convs")(x)
        logits: Tensor = self.decoder.head(x)
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])
