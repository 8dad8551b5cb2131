"""Small folders in exactly the form of the public data sets: names, headers, types, traps.

Every volume holds nested boxes at places of its own, in canonical axes (right, front, head), and
is written in the orientation that the public files have.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (26, 22, 6)
SPACING_MM = (2.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a reader must find in a folder."""

    layout: str
    n_patients: int
    n_volumes: int
    classes: dict
    n_channels: int = 1
    official_test: tuple = ()
    intensities: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


def boxes(values, number, absent=()):
    """Canonical labels: boxes one inside the other, values from the outside in, uint8."""
    generator = np.random.default_rng(number)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    low = generator.integers(2, 7, size=2)
    for depth, value in enumerate(values):
        a, b = low + 2 * depth
        labels[a : SHAPE[0] - 4 - 2 * depth, b : SHAPE[1] - 4 - 2 * depth, 1:5] = value
    labels[np.isin(labels, absent)] = 0
    return labels


def picture(labels, number, *, scale=100.0, offset=0.0, masked=False):
    """Intensities that follow the labels, with noise; a zero background where masked."""
    noise = np.random.default_rng(1000 + number).normal(size=labels.shape)
    image = offset + scale * (labels + 1 + 0.2 * noise)
    if masked:
        image[:2], image[-2:] = 0, 0
    return image


def save(path, canonical, *, codes="RAS", dtype=np.float32, spacing=SPACING_MM):
    """Write a canonical array in another orientation; channels may lie along a fourth axis."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, -30, 5)
    image = nibabel.Nifti1Image(np.asarray(canonical, dtype=dtype), affine)
    start = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(turned, path)


def mac_litter(*paths):
    """The file beside each file that archives made on a Mac hold."""
    for path in paths:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")


def acdc(root):
    for number in range(1, 7):
        part = "training" if number < 5 else "testing"
        name = f"patient{number if number < 5 else 96 + number:03d}"
        folder = root / part / name
        first = 4 if number == 2 else 1  # patient090 has its diastole at frame 4
        for frame in (first, first + 7):
            labels = boxes((2, 1, 3), 10 * number + frame)
            save(folder / f"{name}_frame{frame:02d}.nii.gz", picture(labels, frame), codes="LPS")
            save(
                folder / f"{name}_frame{frame:02d}_gt.nii.gz", labels, codes="LPS", dtype=np.uint8
            )
        (folder / f"{name}_4d.nii.gz").write_bytes(b"cine without labels")
        (folder / "Info.cfg").write_text(
            f"ED: {first}\nES: {first + 7}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        )
    (root / "training" / "mandatory_citation.md").write_text("cite")
    return Expected(
        layout="acdc", n_patients=6, n_volumes=12, intensities={"mr": 12},
        classes={"RV": (1,), "MYO": (2,), "LV": (3,)}, official_test=("patient101", "patient102"),
    )  # fmt: skip


def _brats_case(folder, number, suffixes, mask, values, *, ending=".nii.gz"):
    labels = boxes(values, number)
    for channel, suffix in enumerate(suffixes):
        image = picture(labels, 10 * number + channel, masked=True)
        path = folder / f"{folder.name}{suffix}{ending}"
        save(path, image, codes="LPS", dtype=np.int16, spacing=(1, 1, 1))
    if mask:
        save(folder / mask, labels, codes="LPS", dtype=np.uint8, spacing=(1, 1, 1))


def brats_old(root):
    suffixes = ("_t1", "_t1ce", "_t2", "_flair")
    names = ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_355",
             "BraTS20_Training_004", "BraTS20_Validation_001"]  # fmt: skip
    release = root / "MICCAI_BraTS2020_TrainingData"
    for number, name in enumerate(names):
        mask = f"{name}_seg.nii"
        mask = "W39_1998.09.19_Segm.nii" if name.endswith("355") else mask
        mask = "" if "Validation" in name else mask
        _brats_case(release / name, number, suffixes, mask, (2, 1, 4), ending=".nii")
    (release / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n")
    for number, name in enumerate(("Brats18_CBICA_AAB_1", "Brats18_TCIA02_135_1"), start=9):
        grade = "HGG" if number == 9 else "LGG"
        _brats_case(root / grade / name, number, suffixes, f"{name}_seg.nii.gz", (2, 1, 4))
    return Expected(
        layout="brats", n_patients=6, n_volumes=6, n_channels=4, intensities={"mr_masked": 6},
        classes={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
    )  # fmt: skip


def brats_new(root):
    suffixes = ("-t1n", "-t1c", "-t2w", "-t2f")
    names = [f"BraTS-GLI-{number:05d}-000" for number in (0, 2, 3, 5, 6)]
    for number, name in enumerate([*names, "BraTS-GLI-00002-001"]):
        _brats_case(root / name, number, suffixes, f"{name}-seg.nii.gz", (2, 1, 3))
    mac_litter(root / names[0] / f"{names[0]}-t1n.nii.gz")
    return Expected(
        layout="brats", n_patients=5, n_volumes=6, n_channels=4, intensities={"mr_masked": 6},
        classes={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
    )  # fmt: skip


def _kits(root, edition, values, label_file, numbers):
    place = root / {"kits19": "data", "kits21": "kits21/data", "kits23": "dataset"}[edition]
    for number in numbers:
        folder = place / f"case_{number:05d}"
        labels = boxes(values, number)
        image = picture(labels, number, scale=60, offset=-80)
        save(folder / "imaging.nii.gz", image, codes="IPL", dtype=np.float64)
        kind = np.uint16 if number % 2 else np.uint8
        save(folder / label_file, labels, codes="IPL", dtype=kind)
        if edition == "kits21":
            single = folder / "segmentations" / "kidney_instance-1_annotation-1.nii.gz"
            save(single, labels, codes="IPL", dtype=np.uint8)
    return place


def kits19(root):
    place = _kits(root, "kits19", (1, 2), "segmentation.nii.gz", (0, 1, 2, 3, 4, 15))
    test = place / "case_00210" / "imaging.nii.gz"
    save(test, picture(boxes((1,), 1), 1), codes="IPL")
    (place / "kits.json").write_text("[]")
    return Expected(
        layout="kits19", n_patients=6, n_volumes=6, intensities={"ct": 6},
        classes={"kidney": (1, 2), "tumour": (2,)},
    )  # fmt: skip


def kits21(root):
    _kits(root, "kits21", (1, 2, 3), "aggregated_MAJ_seg.nii.gz", range(6))
    return Expected(
        layout="kits21", n_patients=6, n_volumes=6, intensities={"ct": 6},
        classes={"kidney": (1, 2, 3), "masses": (2, 3), "tumour": (2,)},
    )  # fmt: skip


def kits23(root):
    _kits(root, "kits23", (1, 2, 3), "segmentation.nii.gz", (0, 1, 2, 3, 400, 588))
    return Expected(
        layout="kits23", n_patients=6, n_volumes=6, intensities={"ct": 6},
        classes={"kidney": (1, 2, 3), "masses": (2, 3), "tumour": (2,)},
    )  # fmt: skip


AMOS_LABELS = (
    "background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver",
    "stomach", "arota", "postcava", "pancreas", "right adrenal gland", "left adrenal gland",
    "duodenum", "bladder", "prostate/uterus",
)  # fmt: skip


def amos22(root):
    parts = {"Tr": (1, 4, 5, 507, 510), "Va": (8, 540)}
    listed = {"Tr": [], "Va": []}
    for part, numbers in parts.items():
        for number in numbers:
            absent = (4, 15) if number == 4 else ()
            labels = boxes((6, 1, 15, 4), number, absent)
            is_ct = number < 500
            image = picture(labels, number, scale=40 if is_ct else 300, offset=-20 if is_ct else 0)
            name = f"amos_{number:04d}.nii.gz"
            save(root / f"images{part}" / name, image, codes="LAS", dtype=np.int16)
            save(root / f"labels{part}" / name, labels, codes="LAS", dtype=np.uint8)
            mac_litter(root / f"images{part}" / name)
            listed[part].append(
                {"image": f"./images{part}/{name}", "label": f"./labels{part}/{name}"}
            )
    save(root / "imagesTs" / "amos_0003.nii.gz", picture(boxes((1,), 3), 3), codes="LAS")
    header = {
        "name": "AMOS", "tensorImageSize": "3D", "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in enumerate(AMOS_LABELS)},
        "numTraining": 5, "numTest": 1, "training": listed["Tr"], "validation": listed["Va"],
        "test": [{"image": "./imagesTs/amos_0003.nii.gz"}],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(header))
    names = [name.replace("arota", "aorta") for name in AMOS_LABELS]
    return Expected(
        layout="amos22", n_patients=7, n_volumes=7, intensities={"ct": 4, "mr": 3},
        classes={name: (value,) for value, name in enumerate(names) if value},
        official_test=("amos_0008", "amos_0540"),
    )  # fmt: skip


def _msd(root, names, modality, labels, *, kind="3D", ending=".nii.gz", label_type=np.uint8):
    values = [int(value) for value in labels if value != "0"]
    entries = []
    for number, name in enumerate(names):
        mask = boxes(values, number)
        is_brain = len(modality) == 4
        channels = [
            picture(mask, 10 * number + channel, masked=is_brain)
            for channel in range(len(modality))
        ]
        image = channels[0] if kind == "3D" else np.stack(channels, axis=-1)
        save(root / "imagesTr" / f"{name}{ending}", image, codes="LAS")
        save(root / "labelsTr" / f"{name}{ending}", mask, codes="LAS", dtype=label_type)
        mac_litter(root / "imagesTr" / f"{name}{ending}")
        start = "/" if number == 1 else "./"
        entries.append(
            {
                "image": f"{start}imagesTr/{name}{ending}",
                "label": f"{start}labelsTr/{name}{ending}",
            }
        )
    header = {
        "name": root.name, "relase": "1.0", "tensorImageSize": kind, "modality": modality,
        "labels": labels, "numTraining": len(names), "numTest": 1, "training": entries,
        "test": ["./imagesTs/x_999.nii.gz"],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(header))


def msd_brain(root):
    _msd(
        root, [f"BRATS_{number:03d}" for number in range(1, 7)],
        {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        kind="4D",
    )  # fmt: skip
    return Expected(
        layout="msd", n_patients=6, n_volumes=6, n_channels=4, intensities={"mr_masked": 6},
        classes={"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)},
    )  # fmt: skip


def msd_prostate(root):
    _msd(
        root, [f"prostate_{number:02d}" for number in range(6)], {"0": "T2", "1": "ADC"},
        {"0": "background", "1": "PZ", "2": "TZ"}, kind="4D", label_type=np.float32,
    )  # fmt: skip
    return Expected(
        layout="msd", n_patients=6, n_volumes=6, n_channels=2, intensities={"mr": 6},
        classes={"PZ": (1,), "TZ": (2,)},
    )  # fmt: skip


def msd_spleen(root):
    names = [f"spleen_{number}" for number in (2, 3, 6, 8, 9, 10)]
    _msd(root, names, {"0": "CT"}, {"0": "background", "1": "spleen"}, ending=".nii")
    return Expected(
        layout="msd", n_patients=6, n_volumes=6, intensities={"ct": 6}, classes={"spleen": (1,)}
    )


def nnunet(root):
    for number in range(1, 7):
        part = "Ts" if number > 4 else "Tr"
        for frame in (1, 9):
            labels = boxes((2, 1), 10 * number + frame)
            name = f"patient{number:03d}_frame{frame:02d}"
            for channel in (0, 1):
                image = picture(labels, 100 * number + channel)
                save(root / f"images{part}" / f"{name}_{channel:04d}.nii.gz", image)
            save(root / f"labels{part}" / f"{name}.nii.gz", labels, dtype=np.uint8)
    header = {
        "channel_names": {"0": "cineMRI", "1": "LGE"}, "numTraining": 8, "file_ending": ".nii.gz",
        "labels": {"background": 0, "heart": [1, 2], "cavity": 1},
        "regions_class_order": [2, 1],
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(header))
    return Expected(
        layout="nnunet", n_patients=6, n_volumes=12, n_channels=2, intensities={"mr": 12},
        classes={"heart": (1, 2), "cavity": (1,)}, official_test=("patient005", "patient006"),
        options={"patient_pattern": r"(patient\d+)_frame"},
    )  # fmt: skip


def folder(root):
    for number in range(1, 8):
        labels = boxes((1, 2), number)
        name = f"amos_{number:04d}" if number < 7 else "scan 7"  # a number that is no channel
        image = picture(labels, number, scale=60, offset=-80)
        save(root / "images" / f"{name}.nii.gz", image, codes="SPR", dtype=np.int16)
        save(root / "labels" / f"{name}.nii.gz", labels, codes="SPR", dtype=np.int32)
    (root / "dataset.yaml").write_text(
        "labels: {background: 0, kidney: 1, tumour: 2}\nmodality: ct\nregions: {organ: [1, 2]}\n"
    )
    return Expected(
        layout="folder", n_patients=7, n_volumes=7, intensities={"ct": 7},
        classes={"organ": (1, 2)},
    )  # fmt: skip


LAYOUTS = {
    function.__name__: function
    for function in (
        acdc, brats_old, brats_new, kits19, kits21, kits23, amos22, msd_brain, msd_prostate,
        msd_spleen, nnunet, folder,
    )
}  # fmt: skip
"""Name of a generated folder → what writes it and says what must be found."""


def canonical_labels(path: Path) -> np.ndarray:
    """Return a label file turned to canonical axes by nibabel itself."""
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj).astype(np.uint8)


def kidneys_with_made_images(real_data, root):
    """Real masks with their headers; the images are not at hand and are made from them."""
    for source in sorted((real_data / "kits19_labels").glob("case_*")):
        folder = root / source.name
        folder.mkdir(parents=True)
        mask = nibabel.load(source / "segmentation.nii.gz")
        (folder / "segmentation.nii.gz").symlink_to(source / "segmentation.nii.gz")
        image = np.asarray(mask.dataobj).astype(np.int16) * 60 - 20
        nibabel.save(nibabel.Nifti1Image(image, mask.affine), folder / "imaging.nii.gz")
    return root
