"""What a data folder holds, as lines and as a page of pictures."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy import ndarray

from files.writing import write_text
from iac_core.data.check import DatasetSummary
from iac_core.data.nifti import canonical_axes
from iac_core.errors import DataError
from iac_core.types import DatasetDescription, SegmentationDataset, Volume, VolumeRef
from results.figures import SlicePanel, label_colours, slice_panels

_N_SLICES = 5


def summary_lines(summary: DatasetSummary) -> Iterator[str]:
    """Yield what `check` prints of a folder without problems."""
    official = summary.n_official_test
    aside = f", {official} of them set aside for testing by the publishers" if official else ""
    yield f"{summary.n_patients} patients{aside}, {summary.n_volumes} labelled volumes"
    kinds = ", ".join(f"{count} {name}" for name, count in summary.intensities.items())
    yield f"channels: {', '.join(summary.channels)}; intensities: {kinds}"
    axes = zip(("rows", "columns", "slices"), summary.spacing_mm, summary.shape, strict=True)
    for axis, spacing, extent in axes:
        yield f"{axis}: {spacing[0]:.3g} to {spacing[1]:.3g} mm, {extent[0]} to {extent[1]} voxels"
    for name, count in summary.n_volumes_with.items():
        yield f"{name}: in {count} of {summary.n_volumes} volumes"
    for patient, fault in summary.known_faults.items():
        yield f"known fault, left out by `leave_out: [known_faults]`: {patient}: {fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShownVolume:
    title: str
    text: str
    picture: str = ""
    problems: tuple[str, ...] = ()


def write_data_page(dataset: SegmentationDataset, page: Path, *, n_volumes: int) -> int:
    """Write a page that shows slices of some volumes with the contours of their labels.

    Args:
        dataset: The data folder.
        page: The HTML file, complete in itself.
        n_volumes: Volumes to show, spread evenly over the folder.

    Returns:
        Volumes shown; one that cannot be read is shown with its problems.

    Raises:
        DataError: If the folder is not of its layout.
    """
    refs, description = dataset.volumes(), dataset.description
    n_shown = min(n_volumes, len(refs))
    chosen = [refs[index] for index in np.linspace(0, len(refs) - 1, n_shown).round().astype(int)]
    names = _label_names(description)
    colours = label_colours(description.label_values[1:])
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    text = environment.get_template("data.html.j2").render(
        title=f"{len(refs)} volumes of {len({ref.patient_id for ref in refs})} patients",
        lead="Slices as they are cut for training, at the volume's own spacing; the patient's "
        "right is on the left where volumes are reoriented.",
        key=[(names[value], colour) for value, colour in colours.items()],
        volumes=[_shown(dataset, ref, description) for ref in chosen],
    )
    write_text(page, text)
    return n_shown


def _shown(
    dataset: SegmentationDataset, ref: VolumeRef, description: DatasetDescription
) -> _ShownVolume:
    part = ", official test part" if ref.is_official_test else ""
    title = f"{ref.volume_id} {ref.phase}".strip()
    text = f"patient {ref.patient_id}{part}, {ref.intensity}"
    try:
        volume = dataset.load(ref)
    except DataError as error:
        problems = tuple(str(problem) for problem in error.problems)
        return _ShownVolume(title=title, text=text, problems=problems)
    image, labels, spacing = _as_cut(volume, description)
    sizes = " × ".join(str(extent) for extent in labels.shape)
    text += f", {sizes} voxels of {' × '.join(f'{edge:.3g}' for edge in spacing)} mm"
    low, high = np.percentile(image, (0.5, 99.5))
    panels = [
        SlicePanel(
            title=f"slice {index}",
            image=np.clip(image[..., index], low, high),
            labels=labels[..., index],
            aspect=spacing[1] / spacing[0],
        )
        for index in _informative(labels)
    ]
    picture = slice_panels(panels, description.label_values[1:])
    return _ShownVolume(title=title, text=text, picture=base64.b64encode(picture).decode())


def _as_cut(
    volume: Volume, description: DatasetDescription
) -> tuple[ndarray, ndarray, tuple[float, ...]]:
    """First channel, labels and spacing along rows, columns, slices."""
    order, signs = (0, 1, 2), (1, 1, 1)
    if description.reorients:
        order, found = canonical_axes(volume.affine)
        signs = (found[0], found[1], found[2])
    steps = tuple(slice(None, None, sign) for sign in signs)
    image, labels = (
        np.transpose(array, order)[steps] for array in (volume.image[0], volume.labels)
    )
    return image, labels, tuple(volume.spacing_mm[axis] for axis in order)


def _informative(labels: ndarray) -> list[int]:
    """Slices spread over those with foreground; over all if there is none."""
    found = np.flatnonzero(labels.any(axis=(0, 1)))
    if len(found) == 0:
        found = np.arange(labels.shape[2])
    places = np.linspace(0, len(found) - 1, min(_N_SLICES, len(found))).round().astype(int)
    return [int(found[place]) for place in places]


def _label_names(description: DatasetDescription) -> dict[int, str]:
    """Label value → the class that is this value alone, else the classes that hold it."""
    names = {}
    for value in description.label_values:
        alone = [name for name, values in description.classes.items() if values == (value,)]
        within = [name for name, values in description.classes.items() if value in values]
        names[value] = " · ".join(alone or within) or f"label {value}"
    return names
