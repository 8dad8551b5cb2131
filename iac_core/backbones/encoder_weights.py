"""Pre-trained weights of an encoder, from a file that the user gives; nothing is downloaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from iac_core.config import require
from iac_core.errors import ConfigError


def check_encoder_weights(path: str | None, sha256: str | None) -> None:
    """Check that a file comes with the hash that stands for it in every stage's key.

    Raises:
        ConfigError: If one is given without the other.
    """
    require(
        (path is None) == (sha256 is None),
        "encoder_weights and encoder_weights_sha256 (`sha256sum FILE`) must be given together",
        path if sha256 is None else sha256,
    )


def load_encoder_weights(encoder: nn.Module, path: str, sha256: str) -> None:
    """Load a state dict into an encoder.

    Entries that the encoder does not have (a classifier) are passed over. A first convolution for
    another number of image channels takes the sum over the file's channels, in equal parts.

    Args:
        encoder: The encoder, on the CPU.
        path: A file of `torch.save` with a state dict, alone or under ``state_dict``.
        sha256: Hash of the file, hexadecimal.

    Raises:
        ConfigError: If the file is missing, another one, no state dict, or lacks weights.
    """
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            "encoder_weights must be a file",
            value=f"{path} ({error.strerror})",
            way_out="correct the path",
        ) from error
    require(found == sha256, f"encoder_weights_sha256 must be that of {path}, {found}", sha256)
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            "encoder_weights must hold a state dict of tensors",
            value=f"{path} ({type(error).__name__})",
            way_out="save one with torch.save(encoder.state_dict(), FILE)",
        ) from error
    state = raw.get("state_dict", raw) if isinstance(raw, Mapping) else raw
    require(isinstance(state, Mapping), "encoder_weights must hold a state dict", type(raw))
    own = encoder.state_dict()
    fitted = {name: _fitted(state[name], own[name]) for name in own if name in state}
    missing = [name for name in own if name not in fitted and "num_batches" not in name]
    if missing:
        raise ConfigError(
            "encoder_weights must hold every weight of the encoder",
            value=f"none for {len(missing)}: {', '.join(missing[:3])} …",
            way_out=f"the file has {', '.join(list(state)[:3])} …",
        )
    wrong = [name for name, value in fitted.items() if value.shape != own[name].shape]
    if wrong:
        raise ConfigError(
            "encoder_weights must fit the encoder",
            value=(
                f"{tuple(fitted[wrong[0]].shape)} for {wrong[0]} of {tuple(own[wrong[0]].shape)}"
            ),
            way_out="name the encoder that the file is of",
        )
    encoder.load_state_dict(fitted, strict=False)


def _fitted(weight: Tensor, own: Tensor) -> Tensor:
    """A first convolution for the channels at hand; anything else as it is."""
    is_other_image = (
        weight.ndim == 4
        and own.ndim == 4
        and weight.shape[0] == own.shape[0]
        and weight.shape[2:] == own.shape[2:]
        and weight.shape[1] == 3 != own.shape[1]
    )
    if not is_other_image:
        return weight
    return weight.sum(dim=1, keepdim=True).expand_as(own) / own.shape[1]
