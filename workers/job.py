"""A job: one set of settings with a seed, and the hashes that identify jobs and stages."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    EvaluateSettings,
    PrepareSettings,
    PretrainSettings,
    RetrainSettings,
    SearchSettings,
    SplitSettings,
)
from iac_core.errors import ConfigError
from workers.key_names import key_name, registry_name

JOB_SCHEMA_VERSION = 1
JOB_SECTIONS = (
    "prepare",
    "split",
    "augmentation",
    "pretrain",
    "cell",
    "search",
    "retrain",
    "evaluate",
)
"""Sections of settings that the identity of every job has held from the start."""

LATER_SETTINGS: dict[str, dict[str, Any]] = {
    "cell": {"node_width": None, "start": "plain"},
    "pretrain": {"seed": None},
    "retrain": {"seed": None},
    "split": {"validation": "first"},
}
"""Section → its settings that keys did not always hold → what was implied before they existed."""

_plain_settings: dict[int, tuple[object, dict[str, Any]]] = {}
"""Identity of a settings object → the object and its plain form: ten thousand jobs share a few."""
_MOST_PLAIN_SETTINGS = 10_000


def plain(value: object) -> Any:  # noqa: ANN401 - plain JSON values of any shape
    """Return a value as dicts, lists, strings, numbers, booleans and None; not to be changed.

    Raises:
        ConfigError: If it holds anything else, or a number that is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        known = _plain_settings.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        found = {each.name: plain(getattr(value, each.name)) for each in fields(value)}
        if len(_plain_settings) >= _MOST_PLAIN_SETTINGS:
            _plain_settings.clear()
        _plain_settings[id(value)] = value, found
        return found
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            "a setting must be finite",
            value=value,
        )
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        "a setting must be plain",
        value=type(value).__name__,
    )


def identity(section: str, settings: object) -> dict[str, Any]:
    """Return what identifies a section, without later settings that are as was implied.

    A setting that is added later then changes no key of what was computed before.
    """
    later = LATER_SETTINGS.get(section, {})
    every: dict[str, Any] = plain(settings)
    return {
        name: value for name, value in every.items() if name not in later or value != later[name]
    }


_CANONICAL = json.JSONEncoder(
    default=plain, sort_keys=True, separators=(",", ":"), allow_nan=False
)


def flat_value(value: Any) -> str | int | float | bool:  # noqa: ANN401 - plain data
    """Return a plain value of a setting as one cell of a table.

    Examples:
        >>> flat_value([16, 32]), flat_value(None), flat_value(0.5)
        ('16,32', '', 0.5)
    """
    if isinstance(value, list) and not any(isinstance(one, dict) for one in value):
        return ",".join(str(entry) for entry in value)
    if isinstance(value, list | dict):
        return json.dumps(value, sort_keys=True)
    found: str | int | float | bool = "" if value is None else value
    return found


def content_hash(value: object) -> str:
    """Return the first 16 hexadecimal digits of SHA-256 over the canonical JSON of a value.

    Examples:
        >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
        True
    """
    try:
        text = _CANONICAL.encode(value)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(
            "a setting must be finite",
            value="a number that is not",
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Resolved settings of every stage of a job.

    Attributes:
        backbone: Settings of the backbone, an instance of its ``Settings``.
        pruner: Settings of the operation pruner; None for a control.
        others: Section of another kind of stage → its settings; left out where they are as the
            kind has them by itself, so that a new kind changes no job.
        split_content: Content of `SplitSettings.file`, hashed; empty without a file. It stands in
            for the file's path in every key.
    """

    prepare: PrepareSettings
    split: SplitSettings
    augmentation: AugmentationSettings
    pretrain: PretrainSettings
    cell: CellSettings
    search: SearchSettings
    retrain: RetrainSettings
    evaluate: EvaluateSettings
    backbone: object
    pruner: object | None
    split_content: str = ""
    others: Mapping[str, object] = field(default_factory=dict)

    def section(self, name: str) -> object:
        """Return the settings of a section; None if they are as its kind of stage has them."""
        return getattr(self, name) if name in JOB_SECTIONS else self.others.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One cell of a sweep.

    Attributes:
        dataset: Name of the dataset in the sweep.
        backbone: Name of the backbone in the sweep.
        pruner: Value of the pruner axis.
        seed: Seed of initialisation, order and halves.
        settings: Everything else.
        control: Name of the control that the pruner value stands for; empty for a search.
    """

    dataset: str
    backbone: str
    pruner: str
    seed: int
    settings: JobSettings
    control: str = ""

    @property
    def job_id(self) -> str:
        """Hash of all resolved settings and the schema version."""
        return content_hash(
            {
                "schema": JOB_SCHEMA_VERSION,
                "dataset": self.dataset,
                "backbone": self.backbone,
                "pruner": self.pruner,
                "seed": self.seed,
                "control": self.control,
                "backbone_type": self.backbone_type,
                "pruner_type": self.pruner_type,
                **{name: identity(name, getattr(self.settings, name)) for name in JOB_SECTIONS},
                **{name: plain(value) for name, value in self.settings.others.items()},
                "augmentation": self.augmentation_identity(),
                "backbone_settings": self.backbone_identity(),
                "pruner_settings": plain(self.settings.pruner),
                "split": self.split_identity(),
            }
        )

    @property
    def backbone_type(self) -> str:
        """What keys call the backbone."""
        return key_name(self.settings.backbone)

    @property
    def pruner_type(self) -> str:
        """What keys call the pruner, the search or the control."""
        return key_name(self.settings.pruner)

    @property
    def arm_type(self) -> str:
        """What the value of the pruner axis stands for: a control, a pruner, another search."""
        return self.control or registry_name(self.settings.pruner)

    @property
    def pretrain_seed(self) -> int:
        """Seed of the backbone."""
        given = self.settings.pretrain.seed
        return self.seed if given is None else given

    @property
    def retrain_seed(self) -> int:
        """Seed of the retraining."""
        given = self.settings.retrain.seed
        return self.seed if given is None else given

    @property
    def label(self) -> str:
        """A short name for people: ``acdc · unet · js_stability · seed 0``."""
        return f"{self.dataset} · {self.backbone} · {self.pruner} · seed {self.seed}"

    def split_identity(self) -> dict[str, Any]:
        """Return what identifies the split: the settings, a file by its content, not its path.

        `SplitSettings.validation_share` counts only where a share of the patients validates.
        """
        split = self.settings.split
        if self.settings.split_content:
            return {
                "content": self.settings.split_content,
                "n_train_patients": split.n_train_patients,
            }
        found = identity("split", split)
        if split.validation == "next_fold":
            del found["validation_share"]
        return found

    def backbone_identity(self) -> dict[str, Any]:
        """Return what identifies the backbone: a file of weights by its hash, not its path."""
        identity: dict[str, Any] = plain(self.settings.backbone)
        return {name: value for name, value in identity.items() if name != "encoder_weights"}

    def augmentation_identity(self) -> dict[str, Any]:
        """Return what identifies the views of a training; ranges count for nothing when off."""
        settings = self.settings.augmentation
        return plain(settings) if settings.enabled else {"enabled": False}

    def flat_settings(self) -> dict[str, str | int | float | bool]:
        """Return one value per setting, named ``config_<section>_<field>`` as in the tables."""
        sections: dict[str, Any] = {name: getattr(self.settings, name) for name in JOB_SECTIONS}
        sections |= self.settings.others
        sections |= {"backbone": self.settings.backbone, "pruner": self.settings.pruner}
        flat: dict[str, str | int | float | bool] = {}
        for section, settings in sections.items():
            for name, value in (plain(settings) or {}).items():
                flat[f"config_{section}_{name}"] = flat_value(value)
        return flat
