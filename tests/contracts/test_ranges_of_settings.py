"""Every number in every settings class has a finite range, lists of numbers too."""

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from iac_core.backbones.external import SkipArgument
from iac_core.backbones.flexible_unet import ENCODERS
from iac_core.config import SearchPace
from iac_core.errors import ConfigError
from orchestrator.resources import ResourceSettings, StageResources
from orchestrator.session import tables
from orchestrator.spec import STAGE_SETTINGS
from orchestrator.study_settings import Range, StudySettings, TunedSettings

KNOWN = tables()
CLASSES = [
    *STAGE_SETTINGS.values(),
    *KNOWN.backbones.values(),
    *KNOWN.pruners.values(),
    *(kind for kind in KNOWN.controls.values() if kind is not None),
    SearchPace,
    SkipArgument,
    StageResources,
    ResourceSettings,
    StudySettings,
    TunedSettings,
    Range,
]
REQUIRED = {
    "target": "nets:Mine",
    "module": "up.0",
    "operation": "sep_conv_3x3",
    "study": "x",
    "trial": 0,
    "judged_on": {},
    "space": {"js_stability": {"noise_factor": (1.0, 2.0)}},
    "low": 1,
    "high": 3,
}
WHOLE = (2**53, -(2**53), 2**63, -(2**63), 2**70, -(2**70))
FRACTIONS = (math.inf, -math.inf, math.nan, 1e300, -1e300)


def numbers(hint):
    """Which kinds of numbers a field takes: alone, and how many within a list."""
    if hint in (int, float):
        return {hint}, set()
    if get_origin(hint) in (Union, types.UnionType):
        parts = [numbers(part) for part in get_args(hint)]
        return set().union(*(p[0] for p in parts)), set().union(*(p[1] for p in parts))
    if get_origin(hint) is tuple:
        return set(), {part for part in get_args(hint) if part in (int, float)}
    return set(), set()


def cases():
    for kind in CLASSES:
        hints = get_type_hints(kind)
        for field in fields(kind):
            alone, within = numbers(hints[field.name])
            if alone | within:
                yield pytest.param(kind, field, alone, within, id=f"{kind.__name__}.{field.name}")


def make(kind, **changes):
    given = {
        field.name: REQUIRED[field.name]
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }
    return kind(**{**given, **changes})


@pytest.mark.parametrize(("kind", "field", "alone", "within"), list(cases()))
def test_a_number_far_outside_is_refused(kind, field, alone, within):
    base = make(kind)
    for value in [*(WHOLE if int in alone else ()), *(FRACTIONS if float in alone else ())]:
        if field.name in ("seed", "draw") and 0 <= value < 2**63:
            continue
        with pytest.raises(ConfigError, match="must"):
            make(kind, **{field.name: value})
    default = getattr(base, field.name)
    for value in [*(WHOLE if int in within else ()), *(FRACTIONS if float in within else ())]:
        with pytest.raises(ConfigError, match="must"):
            make(kind, **{field.name: (*default[:-1], value)})
    if int in within:
        with pytest.raises(ConfigError, match="must name"):
            make(kind, **{field.name: (16,) * 5000})


def test_every_settings_class_was_looked_at():
    assert all(is_dataclass(kind) for kind in CLASSES)
    assert len(list(cases())) > 120


def test_encoders_are_those_of_monai():
    from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE

    assert sorted(ENCODERS) == sorted(FLEXUNET_BACKBONE.register_dict)
