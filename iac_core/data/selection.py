"""A data set less some patients, or with its volumes dealt to patients by their names."""

from dataclasses import replace

from iac_core.config import DatasetOptions
from iac_core.data.folders import patient_of
from iac_core.errors import ConfigError
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
        refs = self._dataset.volumes()
        pattern = self._options.patient_pattern
        if pattern is not None:
            refs = tuple(
                replace(ref, patient_id=patient_of(ref.volume_id, pattern)) for ref in refs
            )
        left_out = self._left_out({ref.patient_id for ref in refs})
        refs = tuple(ref for ref in refs if ref.patient_id not in left_out)
        if not refs:
            raise ConfigError("leave_out must leave a patient, got none; shorten it")
        return tuple(sorted(refs, key=lambda ref: (ref.patient_id, ref.volume_id)))

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""
        return self._dataset.load(ref)

    def _left_out(self, known: set[str]) -> set[str]:
        """Known faults may be absent from a folder; a patient named by the user may not."""
        named = set(self._options.leave_out) - {KNOWN_FAULTS}
        unknown = sorted(named - known)
        if unknown:
            near = did_you_mean(unknown[0], sorted(known)).split(" known:")[0].removesuffix(";")
            raise ConfigError(
                f"leave_out must name patients of the data set, got {', '.join(unknown[:5])}{near}"
            )
        faults = self.description.known_faults if KNOWN_FAULTS in self._options.leave_out else ()
        return named | set(faults)
