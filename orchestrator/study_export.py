"""A tuned setting as a sweep file of its own, ready to run on every cell of the grid."""

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files.writing import create_bytes
from iac_core.errors import ConfigError
from orchestrator.confirmed import DICE_LOSS, is_feasible
from orchestrator.expand import is_on_cell
from orchestrator.names import MOST_LETTERS
from orchestrator.recorded import grid_cells
from orchestrator.session import Session, tables
from orchestrator.study import cells_judged_on, open_storage, proposal_again, study_of
from orchestrator.study_settings import check_study
from orchestrator.sweep_file import read_sweep_file, sweep_text
from workers.job import plain

_ENDING = "_tuned"
TUNED = "tuned"
"""Name of the tuned pruner in the new file; numbered if there is one already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedStudy:
    """A written sweep file.

    Attributes:
        path: The file.
        number: The trial that it is of.
        why: Why this one, in words.
    """

    path: Path
    number: int
    why: str


def load_confirmed(session: Session) -> optuna.Study:
    """Return the study of confirmed trials, to be read.

    Raises:
        ConfigError: If it has not begun, or objectives or space do not suit its trials.
    """
    storage = open_storage(session)
    if session.spec.name not in optuna.get_all_study_names(storage):
        raise ConfigError(
            f"{session.spec.path}: a study must have trials to be shown",
            value="none",
            way_out=f"`{session.command('run')}` runs them",
        )
    study = optuna.load_study(study_name=session.spec.name, storage=storage)
    settings = study_of(session)
    check_study(study, settings, settings.objectives)
    return study


def chosen_trial(session: Session, study: optuna.Study) -> tuple[FrozenTrial, str]:
    """Return the trial to go on with, and why.

    Where a loss of Dice is limited, the cheapest trial within the limit; otherwise the one of the
    best validation Dice, the cheapest of equal ones.

    Raises:
        ConfigError: If no confirmed trial is finished, or none is within the limit.
    """
    settings = study_of(session)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    feasible = [trial for trial in done if is_feasible(trial, settings)]
    if not feasible:
        raise ConfigError(
            f"a study must have a finished trial within {DICE_LOSS} {settings.max_dice_loss} to "
            "be exported",
            value=f"{len(done)} finished ones and none within",
            way_out="name one by --trial",
        )
    costs = [place for place, name in enumerate(settings.objectives) if name != "val_dice"]
    if costs and (settings.max_dice_loss is not None or len(settings.objectives) == len(costs)):
        name = settings.objectives[costs[0]]
        best = min(feasible, key=lambda trial: (trial.values[costs[0]], trial.number))
        limit = f", {DICE_LOSS} at most {settings.max_dice_loss}" if settings.max_dice_loss else ""
        return best, f"least {name} of {len(done)} trials{limit}"
    place = settings.objectives.index("val_dice")
    best = min(
        feasible,
        key=lambda trial: (-trial.values[place], [trial.values[i] for i in costs], trial.number),
    )
    return best, f"best val_dice of {len(done)} trials"


def export_study(session: Session, into: Path | None, number: int | None) -> ExportedStudy:
    """Write the sweep with the tuned pruner beside the arms that it has, and without its study.

    It is the final sweep: it scores test patients even if this one leaves them out.

    Args:
        session: An open sweep with a study.
        into: The new file, in the folder of the sweep file, so that relative paths stay right;
            None adds ``_tuned`` to the sweep's.
        number: The trial; None is `chosen_trial`.

    Raises:
        ConfigError: If there is no such finished trial, or the file exists or lies elsewhere.
    """
    old = session.spec.path
    path = into or old.with_name(f"{old.stem}_tuned{old.suffix}")
    if path.resolve().parent != old.resolve().parent:
        raise ConfigError(
            "--into must lie beside the sweep file, whose paths are relative",
            value=path,
            way_out=f"for example {old.with_name(path.name)}",
        )
    study = load_confirmed(session)
    if number is None:
        trial, why = chosen_trial(session, study)
    else:
        trial, why = _numbered(study, number), "named by --trial"
    proposal = proposal_again(session, trial)
    if proposal is None:
        raise ConfigError(
            f"{old}: pruners and study.space must stay as trial {trial.number} ran with them",
            value="others",
            way_out="put them back to export it",
        )
    kind = _type_of(session, proposal.pruner)
    data: dict[str, Any] = copy.deepcopy(dict(read_sweep_file(old).sweep))
    data.pop("study")
    data["name"] = f"{session.spec.name[: MOST_LETTERS - len(_ENDING)]}{_ENDING}"
    arms = data["grid"]["pruner"]
    arm = next(
        name
        for name in itertools.chain([TUNED], (f"{TUNED}_{n}" for n in itertools.count(2)))
        if name not in arms and name not in (data.get("pruners") or {})
    )
    data["pruners"] = {
        **(data.get("pruners") or {}),
        arm: {"type": kind, **plain(proposal.settings)},
    }
    data["grid"]["pruner"] = [*arms, arm]
    data["tuned"] = {
        **(data.get("tuned") or {}),
        arm: {
            "study": session.spec.name,
            "trial": trial.number,
            "judged_on": _judged_on(session),
        },
    }
    _score_test_patients(data)
    text = sweep_text(data)
    head = f"# {session.spec.name}, trial {trial.number}: {why}.\n"
    if not create_bytes(path, (head + text).encode()):
        raise ConfigError(
            "--into must be a new file",
            value=path,
            way_out="name another",
        )
    return ExportedStudy(path=path, number=trial.number, why=why)


def _judged_on(session: Session) -> dict[str, list[Any]]:
    """Axis → values of the cells that the study was judged on, every axis of the grid named."""
    cells = cells_judged_on(grid_cells(session, reads=False), study_of(session))
    return {
        axis.name: [
            value
            for value in axis.values
            if any(is_on_cell(cell.job, {axis.name: (value,)}) for cell in cells)
        ]
        for axis in session.spec.axes
        if axis.name != "pruner"
    }


def _score_test_patients(data: dict[str, Any]) -> None:
    """Let the new sweep score test patients, which the study's may leave out."""
    evaluate = (data.get("stages") or {}).get("evaluate") or {}
    if "test" not in evaluate.get("subsets", ["test"]):
        evaluate.pop("subsets")
    if not evaluate:
        (data.get("stages") or {}).pop("evaluate", None)


def _numbered(study: optuna.Study, number: int) -> FrozenTrial:
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for trial in done:
        if trial.number == number:
            return trial
    known = ", ".join(str(trial.number) for trial in done) or "none"
    raise ConfigError(
        "--trial must be a finished one",
        value=number,
        way_out=f"finished: {known}",
    )


def _type_of(session: Session, pruner: str) -> str:
    """The operation pruner or search that a name of the sweep stands for."""
    settings = session.spec.pruners[pruner]
    known = tables().pruners
    return next(name for name, entry in known.items() if entry is type(settings))
