"""The user's own network as a host: any module that is named ``package.module:Class``.

Its skips are the arguments of modules that the user names: the map ``{module: decoder.blocks.0,
argument: 1}`` says that the skip is the second argument of that module's ``forward``. The network
is not taken apart: its encoder is run again in every step, without gradients.
"""

import importlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import (
    Adapter,
    SkipSite,
    fit_to,
    keep_skip,
    recorded_sites,
    run_padded,
)
from iac_core.config import require, require_at_least
from iac_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipArgument:
    """Where a skip enters the network.

    Attributes:
        module: Path of a module in the network, such as ``decoder.blocks.0``.
        argument: Which argument of its ``forward`` is the skip: a position from 0, or a name.
        upsampled: Which argument is the decoder's feature; it is brought to the skip's size.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    module: str
    argument: int | str = 1
    upsampled: int | str = 0

    def __post_init__(self) -> None:
        for name in ("argument", "upsampled"):
            value = getattr(self, name)
            if isinstance(value, int):
                require_at_least(0, **{name: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSettings:
    """Settings of the user's own network.

    Attributes:
        target: ``package.module:Class``; a class or function that returns a module.
        arguments: Keyword arguments of the target.
        channels_argument: Name of the argument that takes the number of image channels.
        classes_argument: Name of the argument that takes the number of classes.
        skips: Where the skips enter, finest first; none makes the network a rival without cells.
        multiple: Rows and columns that the network takes are multiples of this.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    channels_argument: str = "in_channels"
    classes_argument: str = "classes"
    skips: tuple[SkipArgument, ...] = ()
    multiple: int = 32

    def __post_init__(self) -> None:
        module, _, name = self.target.partition(":")
        is_named = bool(module) and name.isidentifier()
        require(is_named, "target must be package.module:Class", self.target)
        require_at_least(1, multiple=self.multiple)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.skips)


class External(nn.Module):
    """A network that cells join through the arguments of its own modules.

    Args:
        network: Images → logits, or a list whose last entry they are.
        skips: Where the skips enter, finest first.
        multiple: Rows and columns that the network takes are multiples of this.
        n_channels: Image channels.

    Raises:
        ConfigError: If a skip is not where it is said to be.
    """

    def __init__(
        self,
        network: nn.Module,
        skips: Sequence[SkipArgument],
        *,
        multiple: int,
        n_channels: int,
    ) -> None:
        super().__init__()
        self.skips, self.multiple = tuple(skips), multiple
        self.encoder: nn.Module = nn.Identity()
        self.decoder: nn.Module = network
        known = dict(network.named_modules())
        for skip in self.skips:
            if skip.module not in known:
                near = [name for name in known if name.endswith(skip.module.split(".")[-1])][:5]
                raise ConfigError(
                    f"a skip must be an argument of a module of {type(network).__name__}",
                    value=repr(skip.module),
                    way_out=f"near names: {', '.join(near) or 'none'}",
                )
        self.sites: tuple[SkipSite, ...] = ()
        if self.skips:
            self.sites = recorded_sites(self, n_channels)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the images themselves: the network is run whole in `decode`."""
        return [self.encoder(images)]

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits; each skip argument goes through the adapter on its way.

        Raises:
            ConfigError: If a skip argument is no feature map.
        """
        images = features[-1]
        size = [-(-edge // self.multiple) * self.multiple for edge in images.shape[-2:]]
        with ExitStack() as stack:
            for level, skip in enumerate(self.skips):
                hook = _Hook(level, skip, adapter)
                module = self.decoder.get_submodule(skip.module)
                handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            return run_padded(self.decoder, images, size)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])


class _Hook:
    """Puts the adapter between a skip and the module that takes it."""

    def __init__(self, level: int, skip: SkipArgument, adapter: Adapter) -> None:
        self.level, self.skip, self.adapter = level, skip, adapter

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values: dict[int | str, Any] = dict(enumerate(args))
        values.update(kwargs)
        skip, upsampled = (
            self._feature(values, name) for name in (self.skip.argument, self.skip.upsampled)
        )
        if upsampled.shape[-2:] != skip.shape[-2:]:
            upsampled = F.interpolate(upsampled, size=skip.shape[-2:], mode="nearest")
        values[self.skip.argument] = self.adapter(self.level, skip, upsampled)
        return tuple(values[place] for place in range(len(args))), {
            name: values[name] for name in kwargs
        }

    def _feature(self, values: dict[int | str, Any], name: int | str) -> Tensor:
        value = values.get(name)
        if not isinstance(value, Tensor) or value.ndim != 4:
            found = "nothing" if value is None else type(value).__name__
            known = ", ".join(str(place) for place in values)
            raise ConfigError(
                f"argument {name!r} of {self.skip.module} must be a feature map",
                value=found,
                way_out=f"its arguments: {known}",
            )
        return value


def external(settings: ExternalSettings, *, n_channels: int, n_classes: int) -> External:
    """Return the network that the settings name.

    Raises:
        ConfigError: If it cannot be imported or built, or a skip is not where it is said to be.
    """
    return External(
        _build(settings, n_channels, n_classes),
        settings.skips,
        multiple=settings.multiple,
        n_channels=n_channels,
    )


def _build(settings: ExternalSettings, n_channels: int, n_classes: int) -> nn.Module:
    module_name, _, name = settings.target.partition(":")
    try:
        target = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "target must be importable on every worker",
            value=f"{settings.target!r} ({error})",
            way_out="install it there, or put its folder on PYTHONPATH",
        ) from error
    sizes = {settings.channels_argument: n_channels, settings.classes_argument: n_classes}
    try:
        network = target(**{**settings.arguments, **sizes})
    except TypeError as error:
        raise ConfigError(
            f"{settings.target} must take the arguments given",
            value=error,
            way_out="correct arguments, channels_argument or classes_argument",
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{settings.target} must return a torch module",
            value=type(network).__name__,
        )
    return network
