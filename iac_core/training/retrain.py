"""Training of the discrete cells of a genotype in a trained backbone."""

from torch import Tensor

from iac_core.cells.implant import ImplantedNetwork
from iac_core.cells.matched_start import match_start
from iac_core.config import RetrainScope, RetrainSettings
from iac_core.seeding import numpy_generator
from iac_core.training.batches import load_batch
from iac_core.training.fit import FitResult, ParameterGroup, TrainingRoom, fit

_PREFIX = "implant.backbone."


def frozen_prefixes(scope: RetrainScope) -> tuple[str, ...]:
    """Return how the names of frozen tensors start in an `ImplantedNetwork`'s state dict."""
    return {
        "cell": (_PREFIX,),
        "cell_and_decoder": (f"{_PREFIX}encoder.",),
        "all": (),
    }[scope]


def retrain(
    network: ImplantedNetwork, room: TrainingRoom, settings: RetrainSettings, *, seed: int
) -> FitResult:
    """Train the cells, and what else the scope names at its own rate (rows 16 and 17).

    The kept state leaves out what is frozen; loading it wants the backbone in place already.
    """
    if len(network.implant.scales):
        match_start(network, _first_batch(room, settings, seed))
    groups = [
        ParameterGroup(
            parameters=list(network.implant.cell_parameters()),
            learning_rate=settings.learning_rate,
        )
    ]
    trained_backbone = network.implant.backbone_parameters()
    if trained_backbone:
        groups.append(
            ParameterGroup(
                parameters=trained_backbone, learning_rate=settings.backbone_learning_rate
            )
        )
    return fit(
        network,
        groups,
        room,
        settings,
        seed=seed,
        purpose="retrain",
        frozen_prefixes=frozen_prefixes(settings.scope),
        scores_start=True,
    )


def _first_batch(room: TrainingRoom, settings: RetrainSettings, seed: int) -> Tensor:
    """A batch of training slices as they are, drawn by the seed."""
    slices = room.data.slice_indices(room.split.train, for_training=True)
    order = numpy_generator(seed, "retrain", "matched start").permutation(slices)
    n_slices = max(1, settings.batch_size // room.n_micro_batches)
    images, _ = load_batch(room.data, order[:n_slices], room.device)
    return images
