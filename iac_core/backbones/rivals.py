"""Networks without cells that are trained and scored by the same stages: MONAI's, and UNet 3+.

They have no skip sites, so only the arms ``no_cell`` and ``no_cell_longer`` exist for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import Adapter, SkipSite, fit_to, keep_skip, run_padded
from iac_core.backbones.unet3plus import UNet3Plus
from iac_core.config import require, require_at_least, require_levels

_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}


class _Rival:
    """What the settings of all rivals share."""

    __slots__ = ()

    @property
    def n_skips(self) -> int:
        """None that a cell could go into."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionUNetSettings(_Rival):
    """MONAI's AttentionUnet (Oktay et al. 2018). Attributes: widths: channels, finest first."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    widths: tuple[int, ...] = (32, 64, 128, 256)

    def __post_init__(self) -> None:
        _check_widths(self.widths, at_least=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetPlusPlusSettings(_Rival):
    """MONAI's BasicUNetPlusPlus (Zhou et al. 2018), the deepest supervision's output alone.

    Attributes:
        widths: Channels of five levels, finest first, and of the last up-sampling.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    widths: tuple[int, ...] = (32, 32, 64, 128, 256, 32)

    def __post_init__(self) -> None:
        _check_widths(self.widths, at_least=6)
        require(len(self.widths) == 6, "widths must name six numbers of channels", self.widths)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet3PlusSettings(_Rival):
    """UNet 3+ without deep supervision and classification-guided module (Huang et al. 2020).

    Attributes:
        widths: Channels of the encoder's levels, finest first.
        branch_width: Channels that each scale brings to a decoder level.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    branch_width: int = 32

    def __post_init__(self) -> None:
        _check_widths(self.widths, at_least=2)
        require_at_least(1, branch_width=self.branch_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegResNetSettings(_Rival):
    """MONAI's SegResNet (Myronenko 2018, without the auto-encoder branch).

    Attributes:
        width: Channels of the finest level, a multiple of 8; each of four levels doubles them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    width: int = 16

    def __post_init__(self) -> None:
        require(
            self.width >= 8 and self.width % 8 == 0, "width must be a multiple of 8", self.width
        )
        require_at_least(8, width=self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinUNETRSettings(_Rival):
    """MONAI's SwinUNETR in 2-D (Hatamizadeh et al. 2022).

    Attributes:
        width: Channels of the first level, a multiple of 12.
        window: Rows and columns of an attention window.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    width: int = 24
    window: int = 7

    def __post_init__(self) -> None:
        require(
            self.width >= 12 and self.width % 12 == 0, "width must be a multiple of 12", self.width
        )
        require_at_least(1, width=self.width, window=self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNETRSettings(_Rival):
    """MONAI's UNETR in 2-D (Hatamizadeh et al. 2022).

    Attributes:
        size: Rows and columns that the position embedding is made for, a multiple of 16; smaller
            slices are padded to it, larger ones refused.
        width: Channels of the finest level.
        hidden: Channels of the transformer, a multiple of `n_heads`.
        n_heads: Attention heads.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    size: int = 128
    width: int = 16
    hidden: int = 768
    n_heads: int = 12

    def __post_init__(self) -> None:
        require(
            self.size >= 16 and self.size % 16 == 0, "size must be a multiple of 16", self.size
        )
        require_at_least(1, width=self.width, n_heads=self.n_heads, hidden=self.hidden)
        require_at_least(16, size=self.size)
        require(
            self.hidden % self.n_heads == 0, "hidden must be a multiple of n_heads", self.hidden
        )


class Rival(nn.Module):
    """A network without skip sites behind the backbone interface; its encoder does nothing.

    Args:
        network: Images → logits, or a list whose last entry they are.
        multiple: Rows and columns that the network takes are multiples of this; images are padded
            by repeating their border, logits cropped.
        size: Rows and columns that the network takes, if only one size fits.
    """

    def __init__(self, network: nn.Module, *, multiple: int, size: int | None = None) -> None:
        super().__init__()
        self.encoder: nn.Module = nn.Identity()
        self.decoder: nn.Module = network
        self.sites: tuple[SkipSite, ...] = ()
        self.multiple, self.size = multiple, size

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the images themselves."""
        return [self.encoder(images)]

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits; there is no skip to adapt.

        Raises:
            ConfigError: If the slices are larger than the one size that fits.
        """
        images = features[-1]
        largest = max(images.shape[-2:])
        require(
            self.size is None or largest <= self.size,
            f"the network's size must be at least that of the slices ({largest})",
            self.size,
        )
        multiple = self.size or self.multiple
        size = [-(-edge // multiple) * multiple for edge in images.shape[-2:]]
        return run_padded(self.decoder, images, size)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])


def attention_unet(settings: AttentionUNetSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return MONAI's AttentionUnet."""
    from monai.networks import nets  # here: the core works without MONAI otherwise

    strides = [2] * (len(settings.widths) - 1)
    network = nets.AttentionUnet(2, n_channels, n_classes, settings.widths, strides)
    return Rival(network, multiple=2 ** len(strides))


def unet_plus_plus(settings: UNetPlusPlusSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return MONAI's BasicUNetPlusPlus."""
    from monai.networks import nets

    network = nets.BasicUNetPlusPlus(2, n_channels, n_classes, settings.widths)
    return Rival(network, multiple=16)


def unet_3_plus(settings: UNet3PlusSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return UNet 3+."""
    network = UNet3Plus(n_channels, n_classes, settings.widths, settings.branch_width)
    return Rival(network, multiple=2 ** (len(settings.widths) - 1))


def seg_res_net(settings: SegResNetSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return MONAI's SegResNet."""
    from monai.networks import nets

    network = nets.SegResNet(2, settings.width, n_channels, n_classes)
    return Rival(network, multiple=8)


def swin_unetr(settings: SwinUNETRSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return MONAI's SwinUNETR."""
    from monai.networks import nets

    network = nets.SwinUNETR(
        n_channels,
        n_classes,
        window_size=settings.window,
        feature_size=settings.width,
        spatial_dims=2,
    )
    return Rival(network, multiple=32)


def unetr(settings: UNETRSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return MONAI's UNETR."""
    from monai.networks import nets

    network = nets.UNETR(
        n_channels,
        n_classes,
        img_size=settings.size,
        feature_size=settings.width,
        hidden_size=settings.hidden,
        mlp_dim=4 * settings.hidden,
        num_heads=settings.n_heads,
        spatial_dims=2,
    )
    return Rival(network, multiple=16, size=settings.size)


def _check_widths(widths: tuple[int, ...], *, at_least: int) -> None:
    require_levels(1, at_least=at_least, widths=widths)
