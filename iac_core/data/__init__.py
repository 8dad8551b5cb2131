"""Data sets: folder layouts, preparation into slices, patient-level splits, a phantom."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from iac_core.config import DatasetOptions
from iac_core.data.acdc import Acdc
from iac_core.data.amos import Amos
from iac_core.data.brats import Brats
from iac_core.data.kits import Kits
from iac_core.data.msd import Msd
from iac_core.data.nnunet_raw import NnunetRaw
from iac_core.data.selection import Selection
from iac_core.data.user_folder import UserFolder
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.registry import look_up
from iac_core.types import SegmentationDataset

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {
    "acdc": Acdc,
    "brats": Brats,
    "kits19": partial(Kits, edition="kits19"),
    "kits21": partial(Kits, edition="kits21"),
    "kits23": partial(Kits, edition="kits23"),
    "amos22": Amos,
    "amos22_ct": partial(Amos, modality="ct"),
    "amos22_mr": partial(Amos, modality="mr"),
    "msd": Msd,
    "nnunet": NnunetRaw,
    "folder": UserFolder,
}
"""Layout → reader of a folder in that layout: called with the folder and ``max_volume_gib``."""


def open_dataset(
    layout: str,
    root: Path,
    options: DatasetOptions,
    *,
    max_volume_gib: float = MAX_VOLUME_GIB,
) -> SegmentationDataset:
    """Return the reader of a data folder; nothing is read yet.

    Args:
        layout: A name in `DATASETS`.
        root: The folder.
        options: What of it is used.
        max_volume_gib: Largest volume file in memory, by its header; nothing larger is read.

    Raises:
        UnknownNameError: If the layout is unknown.
    """
    dataset = look_up(layout, DATASETS, what="layout")(root, max_volume_gib=max_volume_gib)
    return dataset if options == DatasetOptions() else Selection(dataset, options)
