"""Settings of pruners tried on the recorded full searches of a sweep, without training."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from iac_core.bounded_yaml import read_scalar
from iac_core.errors import ConfigError
from iac_core.pruners import build_pruner
from iac_core.pruners.epoch_cost import EpochCost
from iac_core.pruners.replay import (
    NotReplayableError,
    ReplayedSearch,
    Trajectory,
    agreement,
    replay,
)
from iac_core.training.searches import search_kind
from orchestrator.recorded import GridCell, RecordedSearch, cost_of_epochs
from orchestrator.spec import changed_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRoom:
    """A cell of the grid, ready for replays.

    Attributes:
        cell: The cell.
        full: Its full search.
        trajectory: What is replayed.
        cost: Seconds of an epoch there.
    """

    cell: GridCell
    full: RecordedSearch
    trajectory: Trajectory
    cost: EpochCost

    @property
    def full_s(self) -> float:
        """Seconds of the full search by the fitted cost, so that both sides of a ratio are."""
        full = self.full
        seconds = self.cost.seconds(full.active, full.n_weight_steps, full.n_architecture_steps)
        return float(seconds.sum())

    def replay(self, settings: object) -> "Replayed":
        """Replay a pruner of these settings.

        Raises:
            NotReplayableError: If what it decides on was not recorded.
        """
        if search_kind(settings) is not None:
            raise NotReplayableError(
                "a replay must be of an operation pruner, got a search of another kind, which "
                "does not look at alpha; run it"
            )
        found = replay(self.trajectory, build_pruner(settings))
        n = found.n_epochs
        full = self.full
        seconds = self.cost.seconds(
            found.active, full.n_weight_steps[:n], full.n_architecture_steps[:n]
        )
        return Replayed(
            room=self,
            search=found,
            search_s=float(seconds.sum()),
            agreement=agreement(found.genotype, full.genotype),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One setting on one cell of the grid.

    Attributes:
        room: The cell.
        search: How the search would have gone.
        search_s: Its seconds by the fitted cost of epochs.
        agreement: Share of the full search's chosen edges that it chooses too.
    """

    room: ReplayRoom
    search: ReplayedSearch
    search_s: float
    agreement: float

    @property
    def speed_up(self) -> float:
        """Seconds of the full search over those of this one."""
        return self.room.full_s / self.search_s

    def row(self, pruner: str, real: RecordedSearch | None) -> dict[str, Any]:
        """Return the row of a table; `real` is the search that was run with these settings."""
        job, search = self.room.cell.job, self.search
        first = search.first_removal_epoch
        return {
            "dataset": job.dataset,
            "backbone": job.backbone,
            "seed": job.seed,
            "pruner": pruner,
            "first_removal_epoch": first,
            "n_removed_first": sum(
                len(reason.operations) for epoch, reason in search.events if epoch == first
            ),
            "is_exact": search.is_exact,
            "is_whole": search.is_whole,
            "epochs": search.n_epochs,
            "epochs_full": self.room.full.n_epochs,
            "epoch_equivalents": search.epoch_equivalents,
            "search_s": self.search_s,
            "speed_up": self.speed_up,
            "agreement": self.agreement,
            "genotype": search.genotype.to_json(),
            **self._beside(real),
        }

    def _beside(self, real: RecordedSearch | None) -> dict[str, Any]:
        """The same of a search that was run; nothing is known without one."""
        return {
            "real_first_removal_epoch": real and real.first_removal_epoch,
            "real_epochs": real and real.n_epochs,
            "real_epoch_equivalents": real and float(real.active.mean(axis=(1, 2, 3)).sum()),
            "real_search_s": real and real.search_s,
            "real_agreement": real and agreement(real.genotype, self.room.full.genotype),
            "genotypes_agree": real and agreement(real.genotype, self.search.genotype),
        }


def replay_rooms(cells: Sequence[GridCell]) -> tuple[ReplayRoom, ...]:
    """Return the cells whose full search is recorded, with costs fitted per backbone and device.

    Raises:
        ConfigError: If no cell has one.
    """
    recorded = [cell for cell in cells if cell.full is not None]
    if not recorded:
        names = ", ".join(cell.label for cell in cells)
        raise ConfigError(
            "a replay must have a finished full search",
            value=f"none for {names}",
            way_out="run the sweep first",
        )
    groups: dict[tuple[str, ...], list[RecordedSearch]] = {}
    for cell in recorded:
        for search in (cell.full, *cell.others.values()):
            if search is not None:
                groups.setdefault(_like(search), []).append(search)
    costs = {group: cost_of_epochs(searches) for group, searches in groups.items()}
    return tuple(
        ReplayRoom(
            cell=cell,
            full=cell.full,
            trajectory=cell.full.trajectory(),
            cost=costs[_like(cell.full)],
        )
        for cell in recorded
        if cell.full is not None
    )


def replay_table(rooms: Sequence[ReplayRoom], pruners: Mapping[str, object]) -> pd.DataFrame:
    """Replay every pruner on every cell.

    Args:
        rooms: The cells.
        pruners: Name → settings.

    Raises:
        NotReplayableError: If one of them cannot be replayed.
    """
    return pd.DataFrame(list(_rows(rooms, pruners)))


def _rows(rooms: Sequence[ReplayRoom], pruners: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    for room in rooms:
        for name, settings in pruners.items():
            others = room.cell.others.values()
            real = next((one for one in others if one.task.job.settings.pruner == settings), None)
            yield room.replay(settings).row(name, real)


def _like(search: RecordedSearch) -> tuple[str, ...]:
    """What an epoch's cost depends on beside the operations in the network."""
    settings = search.task.job.settings
    return (
        search.task.job.dataset,
        repr(settings.backbone),
        repr(settings.prepare),
        repr(settings.cell),
        repr(settings.search),
        search.device,
    )


def varied(pruners: Mapping[str, object], changes: Sequence[str]) -> dict[str, object]:
    """Return every pruner with every combination of changed settings.

    Args:
        pruners: Name → settings.
        changes: Each ``FIELD=VALUE,VALUE,…``.

    Returns:
        ``name[field=value,…]`` → settings; the pruners themselves without changes.

    Raises:
        ConfigError: If a change is no such text, or a value is not allowed.
    """
    axes = [_axis(change) for change in changes]
    found = {}
    for name, settings in pruners.items():
        for values in itertools.product(*(values for _, values in axes)):
            chosen = dict(zip((field for field, _ in axes), values, strict=True))
            label = ",".join(f"{field}={value}" for field, value in chosen.items())
            found[f"{name}[{label}]" if label else name] = (
                changed_settings(settings, chosen) if chosen else settings
            )
    return found


def _axis(change: str) -> tuple[str, list[Any]]:
    field, equals, values = change.partition("=")
    if not equals or not field or not values:
        raise ConfigError(
            "--vary must be FIELD=VALUE,VALUE,…",
            value=repr(change),
            way_out="for example patience_epochs=1,3",
        )
    return field, [read_scalar(value) for value in values.split(",")]


def replayable(
    pruners: Mapping[str, object], rooms: Sequence[ReplayRoom]
) -> tuple[dict[str, object], dict[str, str]]:
    """Tell pruners that can be replayed from those that cannot.

    Args:
        pruners: Name → settings.
        rooms: The cells; the first one is tried.

    Returns:
        Those that can, and name → reason of the others.
    """
    can, cannot = {}, {}
    for name, settings in pruners.items():
        try:
            rooms[0].replay(settings)
        except NotReplayableError as error:
            cannot[name] = str(error)
        else:
            can[name] = settings
    return can, cannot


def summary_table(table: pd.DataFrame) -> Table:
    """Return one row per pruner: what is known, then what is estimated, as means over cells."""
    shown = Table(box=None, pad_edge=False)
    for name in (
        "pruner", "first removal", "epochs", "epoch equivalents", "speed-up (mean)", "(worst)",
        "agrees with full (mean)", "(worst)", "real speed-up", "real agrees",
    ):  # fmt: skip
        shown.add_column(name, justify="left" if name == "pruner" else "right")
    for pruner, rows in table.groupby("pruner", sort=False):
        first = rows["first_removal_epoch"].dropna()
        span = f"{first.min():.0f}–{first.max():.0f}" if len(first) else "never"
        shown.add_row(
            Text(str(pruner)),
            span,
            f"{rows['epochs'].mean():.1f}",
            f"{rows['epoch_equivalents'].mean():.1f}",
            f"{rows['speed_up'].mean():.2f}×",
            f"{rows['speed_up'].min():.2f}×",
            f"{rows['agreement'].mean():.2f}",
            f"{rows['agreement'].min():.2f}",
            *_real_cells(rows),
        )
    return shown


def _real_cells(rows: pd.DataFrame) -> tuple[str, str]:
    """Means of the searches that were run with the same settings."""
    real = rows.dropna(subset="real_epochs")
    if real.empty:
        return "", ""
    speed_up = real["search_s"] * real["speed_up"] / real["real_search_s"]
    return f"{speed_up.mean():.2f}×", f"{real['real_agreement'].mean():.2f}"
