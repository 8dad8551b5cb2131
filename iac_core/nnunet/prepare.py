"""From a data folder of any layout to cases that nnU-Net preprocessed, and slices of these."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from files.checksums import checksum_of_file, damage_of
from files.encoding import from_json
from files.reading import warn_damaged
from files.writing import whole_path, write_json
from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.config import PrepareSettings
from iac_core.data.check import load_checked
from iac_core.data.nifti import write_nifti
from iac_core.data.prepare import (
    PARTS,
    PreparedSummary,
    axes_of,
    is_whole_part,
    packed_labels,
    training_slices,
    write_part,
    write_slices,
)
from iac_core.data.slices import PreparedVolume
from iac_core.data.splits import Split
from iac_core.data.transforms import VolumeGeometry, centre_crop_or_pad, turn
from iac_core.errors import StopRequested
from iac_core.nnunet import N_DATASET, PLANNED, PREPROCESSED
from iac_core.nnunet.cases import PlannedCases, case_name
from iac_core.nnunet.run_apart import require_nnunet, run_apart
from iac_core.types import DatasetDescription, Reporter, SegmentationDataset, Volume, VolumeRef

NORMALISATION = "nnunet"
"""Normalisation of a `PreparedVolume` whose slices nnU-Net made."""
_RAW = "nnunet_raw"
_DATASET = f"Dataset{N_DATASET:03d}_iac"


def prepare_by_nnunet(
    dataset: SegmentationDataset,
    split: Split,
    settings: NnunetSettings,
    slices: PrepareSettings,
    into: Path,
    reporter: Reporter,
    *,
    n_processes: int,
) -> PreparedSummary:
    """Let nnU-Net plan from the training patients and preprocess every volume.

    Every volume is first written as nnU-Net's raw layout wants it (consecutive labels, one file
    per channel, canonical axes where the data set is reoriented); these files are parts that a
    later attempt takes over. Fingerprint and plans see the training patients of the split alone,
    which is stricter than nnU-Net's own command. The slices that search and retraining use are
    the preprocessed ones, cut to the planned patch size: as many tiles as cover a slice, zeros
    around one that is smaller, as in nnU-Net's own loader.

    Args:
        dataset: The data folder.
        split: Patients of each part.
        settings: Planner and its memory.
        slices: Share of background slices that train; all else of it is nnU-Net's.
        into: An existing folder; parts of an earlier attempt in it are used.
        reporter: Told of every volume; asked whether to stop.
        n_processes: How many processes nnU-Net may start.

    Raises:
        ConfigError: If nnU-Net is not installed.
        DataError: If a volume breaks a rule that `check_dataset` has for it.
        NnunetError: If nnU-Net fails.
        StopRequested: If the user asked to stop; the parts stay.
    """
    require_nnunet()
    refs, description = dataset.volumes(), dataset.description
    parts = into / PARTS
    parts.mkdir(exist_ok=True)
    for position, ref in enumerate(refs):
        if reporter.should_stop():
            raise StopRequested("preparation stopped")
        if not _is_whole_case(parts, ref):
            _write_case(parts, ref, load_checked(dataset, ref), description)
        reporter.progress(epoch=position + 1, n_epochs=len(refs))
    places = {"raw": into / _RAW, "preprocessed": into / PREPROCESSED, "results": into / _RAW}
    planned = into / PLANNED
    training = set(split.train)
    run_apart(
        "plan",
        {
            "header": _header(refs, description),
            "cases": _cases(parts.resolve(), refs, len(description.channels)),
            "training": [case_name(ref.volume_id) for ref in refs if ref.patient_id in training],
            "planner": settings.planner,
            "gpu_memory_gb": settings.gpu_memory_gb,
            "n_processes": n_processes,
            "result": str(planned),
        },
        into,
        places=places,
        n_processes=n_processes,
        reporter=reporter,
    )
    write_json(planned, {"dataset": _DATASET, **from_json(planned.read_bytes(), dict)})
    _write_split(into, refs, split)
    cases = PlannedCases(into)
    summary = write_slices(
        _tiled_parts(cases, parts, refs, slices),
        into,
        description,
        replace(slices, n_neighbours=0),
        shape=cases.patch_shape,
        flip_axes=_flip_axes(description, cases.transposition),
    )
    shutil.rmtree(parts)
    shutil.rmtree(into / _RAW)
    return summary


def _part(parts: Path, ref: VolumeRef) -> Path:
    return parts / f"{case_name(ref.volume_id)}.npz"


def _images(parts: Path, ref: VolumeRef, n_channels: int) -> list[Path]:
    name = case_name(ref.volume_id)
    return [parts / f"{name}_{channel:04d}.nii" for channel in range(n_channels)]


def _labels(parts: Path, ref: VolumeRef) -> Path:
    return parts / f"{case_name(ref.volume_id)}.nii"


def _cases(parts: Path, refs: Sequence[VolumeRef], n_channels: int) -> dict[str, Any]:
    """Name → files, as ``dataset.json`` may list them."""
    return {
        case_name(ref.volume_id): {
            "images": [str(path) for path in _images(parts, ref, n_channels)],
            "label": str(_labels(parts, ref)),
        }
        for ref in refs
    }


def _write_case(
    parts: Path, ref: VolumeRef, volume: Volume, description: DatasetDescription
) -> None:
    """Write images and labels, then the part that says that they are whole."""
    order, signs = axes_of(description, volume.affine)
    grid = np.diag([*(volume.spacing_mm[axis] for axis in order), 1.0])
    indices = np.searchsorted(description.label_values, volume.labels).astype(np.uint8)
    files = zip(
        [*_images(parts, ref, len(volume.image)), _labels(parts, ref)],
        [*volume.image, indices],
        strict=True,
    )
    sums = {}
    for path, array in files:
        with whole_path(path, suffix=".nii") as temporary:
            write_nifti(temporary, np.ascontiguousarray(turn(array, order, signs)), grid)
        sums[path.name] = checksum_of_file(path)
    shape = volume.labels.shape
    described = PreparedVolume(
        patient_id=ref.patient_id,
        volume_id=ref.volume_id,
        phase=ref.phase,
        is_official_test=ref.is_official_test,
        normalisation=NORMALISATION,
        n_slices=0,
        spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(float(value) for value in row) for row in volume.affine),
        geometry=VolumeGeometry(
            shape=(shape[0], shape[1], shape[2]),
            axis_order=order,
            axis_signs=signs,
            resampled=(0, 0),
            size=0,
        ),
    )
    write_part(
        _part(parts, ref),
        {
            "reference": packed_labels(volume.labels),
            "histogram": np.zeros((len(volume.image), 0), dtype=np.uint32),
            "volume": np.array(json.dumps(asdict(described))),
            "files": np.array(json.dumps(sums)),
        },
    )


def _is_whole_case(parts: Path, ref: VolumeRef) -> bool:
    """Whether the part of a volume and its files are there and as they were written."""
    path = _part(parts, ref)
    if not is_whole_part(path):
        return False
    with np.load(path, allow_pickle=False) as part:
        if "files" not in part.files:
            return True  # of an older version
        wrong = damage_of(parts, json.loads(str(part["files"])))
    if wrong:
        warn_damaged(str(parts), wrong, way_out="made again in part")
    return wrong is None


def _header(refs: Sequence[VolumeRef], description: DatasetDescription) -> dict[str, Any]:
    """``dataset.json`` without its cases."""
    is_ct = all(ref.intensity == "ct" for ref in refs)
    channels = ["CT" if is_ct else f"MR {name}" for name in description.channels]
    names = {values[0]: name for name, values in description.classes.items() if len(values) == 1}
    labels = {"background": 0}
    for index, value in enumerate(description.label_values[1:], start=1):
        labels[names.get(value, f"label {value}")] = index
    return {
        "name": _DATASET,
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": labels,
        "file_ending": ".nii",
        "overwrite_image_reader_writer": "NibabelIO",
    }


def _write_split(into: Path, refs: Sequence[VolumeRef], split: Split) -> None:
    """The split file that nnU-Net's trainer reads: by patient, test patients left out."""
    entry = {
        name: [case_name(ref.volume_id) for ref in refs if ref.patient_id in set(patients)]
        for name, patients in (("train", split.train), ("val", split.validation))
    }
    path = into / PREPROCESSED / _DATASET / "splits_final.json"
    write_json(path, [entry], is_indented=True)


def _flip_axes(description: DatasetDescription, transposition: Sequence[int]) -> list[str]:
    """Axes of nnU-Net's slices that may be mirrored; its volumes have the axes Z, Y, X."""
    allowed = {2: "rows" in description.flip_axes, 1: "columns" in description.flip_axes}
    rows, columns = transposition[1:]
    return [
        name for name, axis in (("rows", rows), ("columns", columns)) if allowed.get(axis, False)
    ]


def _tiled_parts(
    cases: PlannedCases, parts: Path, refs: Sequence[VolumeRef], settings: PrepareSettings
) -> Iterator[Mapping[str, ndarray]]:
    for ref in refs:
        with np.load(_part(parts, ref), allow_pickle=False) as part:
            arrays = dict(part)
        image, labels, _ = cases.load(case_name(ref.volume_id))
        images = tiles(np.moveaxis(image, 1, 0), cases.patch_shape)
        tiled = tiles(np.maximum(labels, 0)[:, None], cases.patch_shape)[:, 0].astype(np.uint8)
        described = json.loads(str(arrays["volume"]))
        described["n_slices"] = len(images)
        described["geometry"] |= {
            "resampled": list(image.shape[-2:]),
            "size": max(cases.patch_shape),
        }
        yield {
            **arrays,
            "images": images.astype(np.float16),
            "labels": tiled,
            "trains": training_slices(tiled, ref, settings),
            "volume": np.array(json.dumps(described)),
        }


def tiles(slices: ndarray, shape: tuple[int, int]) -> ndarray:
    """Cut slices into as few tiles of a shape as cover them, evenly placed.

    Args:
        slices: Shape ``(D, C, H, W)``; smaller ones are padded with zeros about their centre.
        shape: Rows and columns of a tile.

    Returns:
        Shape ``(D · T, C, *shape)``, the tiles of a slice one after the other.

    Examples:
        >>> tiles(np.arange(5.0).reshape(1, 1, 1, 5), (1, 3))[:, 0, 0].tolist()
        [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    rows, columns = (max(have, want) for have, want in zip(slices.shape[-2:], shape, strict=True))
    padded = centre_crop_or_pad(slices, (rows, columns), 0)
    starts = [
        np.round(np.linspace(0, have - want, -(-have // want))).astype(int)
        for have, want in zip((rows, columns), shape, strict=True)
    ]
    cut = [
        padded[..., top : top + shape[0], left : left + shape[1]]
        for top in starts[0]
        for left in starts[1]
    ]
    return np.stack(cut, axis=1).reshape(-1, slices.shape[1], *shape)
