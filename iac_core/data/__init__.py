"""Data sets: folder layouts, preparation into slices, patient-level splits, a phantom."""

from collections.abc import Callable
from pathlib import Path

from iac_core.data.acdc import Acdc
from iac_core.types import SegmentationDataset

DATASETS: dict[str, Callable[[Path], SegmentationDataset]] = {"acdc": Acdc}
"""Layout → reader of a folder in that layout."""
