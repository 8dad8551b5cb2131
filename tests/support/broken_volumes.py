"""Small folders of volumes, and ways to break their headers and their bytes."""

import gzip
import random
import struct

import nibabel
import numpy as np
import pytest

from iac_core.config import DatasetOptions, PrepareSettings
from iac_core.data import open_dataset
from iac_core.data.check import check_dataset
from iac_core.data.prepare import prepare
from iac_core.errors import DataError
from iac_core.types import SilentReporter

SHAPE = (12, 10, 6)
NOTE = "labels: {background: 0, organ: 1}\n"
FIELDS = {
    "sizeof_hdr": (0, "i"), "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "pixdim": (76, "8f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"),
    "scl_inter": (116, "f"), "xyzt_units": (123, "B"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), "quatern": (256, "3f"), "qoffset": (268, "3f"),
    "srow_x": (280, "4f"), "srow_y": (296, "4f"), "srow_z": (312, "4f"), "magic": (344, "4s"),
}  # fmt: skip
"""Field → its first byte and its form in a little-endian header of version 1."""
_FLOATS = (0.0, -0.0, 1e-45, 1e-30, 1e30, -3.4e38, float("nan"), float("inf"), -1.0, 0.5, 1000.0)
_WHOLE = (0, 1, -1, 2, 3, 7, 8, 9, 16, 128, 255, 256, 512, 1024, 2304, 9999, 32767, -32768)


def picture(number):
    """An image with noise of its own, float32."""
    draw = np.random.default_rng(number)
    return (100 + 10 * draw.normal(size=SHAPE)).astype(np.float32)


def box():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[3:8, 2:7, 1:4] = 1
    return labels


def image_of(array, affine=None, **fields):
    """A NIfTI image, some fields of its header replaced."""
    placed = np.diag([2.0, 2.0, 4.0, 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(array, placed)
    image.header.set_xyzt_units("mm")
    for name, value in fields.items():
        image.header[name] = value
    return image


def write_folder(root, n_cases=3):
    """A plain data folder of whole volumes; returns the path of each case's image and labels."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    (root / "dataset.yaml").write_text(NOTE)
    paths = {}
    for number in range(n_cases):
        name = f"case_{number}"
        image, labels = (root / kind / f"{name}.nii.gz" for kind in ("images", "labels"))
        nibabel.save(image_of(picture(number)), image)
        nibabel.save(image_of(box()), labels)
        paths[name] = (image, labels)
    return paths


def flip(path, at, bit=1):
    """Flip a bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


def inflated(path):
    return bytearray(gzip.decompress(path.read_bytes()))


def set_field(path, name, value, index=0):
    """Overwrite a number of a header in a compressed file."""
    content = inflated(path)
    offset, form = FIELDS[name]
    values = list(struct.unpack_from("<" + form, content, offset))
    values[index] = value
    struct.pack_into("<" + form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def mutate(content, draw):
    """Return a damaged copy of a compressed volume, and what was done to it.

    Args:
        content: The bytes of a ``.nii.gz`` file of version 1, little-endian.
        draw: `random.Random`.
    """
    if draw.random() < 0.4:
        return _bytes_changed(content, draw)
    plain = bytearray(gzip.decompress(content))
    what = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        name = draw.choice(list(FIELDS))
        offset, form = FIELDS[name]
        if draw.random() < 0.3:
            at = offset + draw.randrange(struct.calcsize("<" + form))
            plain[at] ^= 1 << draw.randrange(8)
            what.append(f"bit of {name}")
            continue
        values = list(struct.unpack_from("<" + form, plain, offset))
        index = draw.randrange(len(values))
        values[index] = _value(form[-1], draw)
        struct.pack_into("<" + form, plain, offset, *values)
        what.append(f"{name}[{index}] = {values[index]!r}")
    if draw.random() < 0.1:
        plain = plain[: draw.randrange(len(plain))]
        what.append("cut before compression")
    if draw.random() < 0.1:
        plain += bytes(draw.choice((1, 16, 5000, 2**24)))
        what.append("longer than the header says")
    return gzip.compress(bytes(plain), 1, mtime=0), ", ".join(what)


def _value(kind, draw):
    if kind == "f":
        return draw.choice((*_FLOATS, draw.uniform(-10, 10), 10.0 ** draw.uniform(-38, 38)))
    if kind == "s":
        return draw.choice((b"ni1\0", b"\0\0\0\0", b"n+2\0", b"n+1\0"))
    if kind == "B":
        return draw.randrange(256)
    return draw.choice((*_WHOLE, draw.randrange(-(2**15), 2**15)))


def _bytes_changed(content, draw):
    changed, kind = bytearray(content), draw.randrange(6)
    at = draw.randrange(len(changed))
    if kind == 0:
        changed[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        changed[at : at + 8] = draw.randbytes(8)
    elif kind == 3:
        changed += draw.choice((b"junk", bytes(100), content, b"\x1f\x8b"))
    elif kind == 4:
        changed[-8 + draw.randrange(8)] ^= 0xFF
    else:
        changed = bytearray(draw.randbytes(draw.choice((0, 1, 2, 400))))
    names = ("a flipped bit", "cut", "8 other bytes", "more at the end", "trailer", "noise")
    return bytes(changed), f"compressed bytes: {names[kind]}"


def mutations(content, n_mutations, seed):
    """Yield damaged copies of a volume, the same for a seed."""
    draw = random.Random(seed)
    for _ in range(n_mutations):
        yield mutate(content, draw)


def check(tmp_path, **limits):
    """Check the folder that `write_folder` wrote into ``data``."""
    return check_dataset(open_dataset("folder", tmp_path / "data", DatasetOptions(), **limits))


def assert_found(tmp_path, pattern, path, *, n_good=2):
    """Assert one problem of this kind, the other volumes read, and preparation's same words."""
    summary = check(tmp_path)
    text = str(DataError(summary.problems))
    with pytest.raises(DataError, match=pattern):
        raise DataError(summary.problems)
    assert {problem.file for problem in summary.problems} == {str(path)}
    assert summary.n_volumes == n_good
    into = tmp_path / "prepared"
    into.mkdir(exist_ok=True)
    dataset = open_dataset("folder", tmp_path / "data", DatasetOptions())
    with pytest.raises(DataError) as caught:
        prepare(dataset, PrepareSettings(size=16, spacing_mm=4.0), into, SilentReporter())
    assert str(caught.value) == text
    return text


def assert_warned(tmp_path, pattern):
    """Assert warnings alone; returns them."""
    summary = check(tmp_path)
    assert summary.problems == ()
    assert summary.n_volumes == 3
    with pytest.raises(DataError, match=pattern):
        raise DataError(summary.warnings)
    return summary.warnings
