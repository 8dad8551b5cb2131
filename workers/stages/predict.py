"""The stage ``predict``: the job's network segments every volume that is to be scored."""

from typing import Any

from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import EvaluateSettings
from iac_core.errors import StopRequested
from iac_core.evaluation.cost import count_macs, count_parameters
from iac_core.evaluation.masks import MaskOfVolume, write_index, write_mask
from iac_core.evaluation.per_patient import volumes_to_score
from workers.job import Job, plain
from workers.recipes import recipe_of
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.stages.networks import final_network
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work, pixels_of


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    settings = plain(job.settings.evaluate)
    return {"predict": {name: settings[name] for name in ("subsets", "batch_size")}}


def _run(context: StageContext) -> Outcome:
    job, data = context.task.job, context.data()
    network = final_network(context, data)
    segment = recipe_of(job.settings.backbone).segment(context, network, data)
    volumes = volumes_to_score(data, context.split(data), job.settings.evaluate)
    masks = []
    for index, (subset, volume) in enumerate(volumes):
        if context.reporter.should_stop():
            raise StopRequested("prediction stopped")
        mask = MaskOfVolume(
            subset=subset,
            patient_id=volume.patient_id,
            volume_id=volume.volume_id,
            file=f"mask_{index:05d}.npz",
        )
        write_mask(context.folder / mask.file, segment(volume))
        masks.append(mask)
        context.reporter.progress(epoch=index + 1, n_epochs=len(volumes))
    write_index(context.folder, masks)
    cells = network.implant.cell_parameters() if isinstance(network, ImplantedNetwork) else ()
    return {
        "n_parameters": count_parameters(network).total,
        "n_cell_parameters": sum(weight.numel() for weight in cells),
        "n_macs": count_macs(network, (1, data.n_channels, *data.slice_shape)),
    }


def work_of_slices(sections: Sections, size: int, data: DataSize) -> Work:
    """Return the work of a stage that passes through every slice once."""
    per_round = None if data.n_slices is None else float(data.n_slices)
    return Work(per_round=per_round, pixels=pixels_of(size))


PREDICT = StageKind(
    name="predict",
    version=1,
    section="evaluate",
    settings=EvaluateSettings,
    inputs=_inputs,
    run=_run,
    work=work_of_slices,
    varies_with="cells",
    is_on_demand=True,
    promises=("n_parameters", "n_cell_parameters", "n_macs"),
)
