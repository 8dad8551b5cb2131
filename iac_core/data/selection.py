"""A data set less some patients, or with its volumes dealt to patients by their names."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from iac_core.config import DatasetOptions
from iac_core.data.folders import in_order, patient_of
from iac_core.errors import ConfigError, DataError, IncompleteFolderError, Problem
from iac_core.registry import did_you_mean
from iac_core.types import DatasetDescription, SegmentationDataset, Volume, VolumeRef

KNOWN_FAULTS = "known_faults"


class Selection:
    """What `DatasetOptions` leave of a data set.

    Args:
        dataset: The whole data set.
        options: What to leave out, and the patient in a volume's name.
    """

    def __init__(self, dataset: SegmentationDataset, options: DatasetOptions) -> None:
        self._dataset, self._options = dataset, options

    @property
    def description(self) -> DatasetDescription:
        """That of the whole data set."""
        return self._dataset.description

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return the volumes that are left, ordered by patient, then volume.

        Raises:
            DataError: If the folder is not of its layout, or the pattern finds no patient.
            ConfigError: If a patient to leave out is unknown, or none is left.
        """
        problems: list[Problem] = []
        try:
            refs = self._dataset.volumes()
        except IncompleteFolderError as error:
            problems += error.problems
            refs = error.usable
        pattern = self._options.patient_pattern
        if pattern is not None:
            refs = tuple(_renamed(refs, pattern, problems))
        left_out = self._left_out({ref.patient_id for ref in refs}, is_whole=not problems)
        refs = tuple(ref for ref in refs if ref.patient_id not in left_out)
        if not refs and not problems:
            raise ConfigError(
                "leave_out must leave a patient",
                value="none",
                way_out="shorten it",
            )
        return in_order(refs, problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return self._dataset.load(ref)

    def _left_out(self, known: set[str], *, is_whole: bool) -> set[str]:
        """Known faults may be absent from a folder; a patient named by the user may not."""
        named = set(self._options.leave_out) - {KNOWN_FAULTS}
        unknown = sorted(named - known)
        if unknown and is_whole:
            near = did_you_mean(unknown[0], sorted(known)).split(" known:")[0].removesuffix(";")
            raise ConfigError(
                "leave_out must name patients of the data set",
                value=f"{', '.join(unknown[:5])}{near}",
            )
        faults = self.description.known_faults if KNOWN_FAULTS in self._options.leave_out else ()
        return named | set(faults)


def _renamed(
    refs: Iterable[VolumeRef], pattern: str, problems: list[Problem]
) -> Iterator[VolumeRef]:
    """Volumes with the patient that the pattern finds; notes those that it does not fit."""
    for ref in refs:
        try:
            yield replace(ref, patient_id=patient_of(ref.volume_id, pattern))
        except DataError as error:
            problems += error.problems
