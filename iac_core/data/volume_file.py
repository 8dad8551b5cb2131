"""The bytes of a NIfTI file, read within the bounds that its header sets.

Nothing is inflated beyond what the header says, and a compressed file is read to its end so that
its checksum is compared.
"""

import math
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray

from iac_core.data.byte_streams import PIECE_BYTES, GzipStream, PlainStream
from iac_core.data.findings import Findings
from iac_core.data.volume_header import HEADER_BYTES, VolumeHeader, parse_header

MAX_VOLUME_GIB = 4.0
"""Largest volume that is read unless a setting says otherwise."""
_GIB = 2**30
_GZIP = b"\x1f\x8b"
_MOST_INFLATION = 1032
"""Deflate makes at most so many bytes of one."""
_MOST_PADDING = 4096
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"BZh", "compressed by bzip2"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"NRRD", "an NRRD file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ObjectType", "a MetaImage file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
    (b"/annex/", "a pointer of git-annex, not the file itself"),
    (b"<", "HTML or XML, such as the error page of a download"),
)
_PLAIN_STARTS = tuple(
    number.to_bytes(4, order) for number in (348, 540) for order in ("little", "big")
)
"""``sizeof_hdr`` as the first bytes of a file that is not compressed."""
_DAMAGED = "the file is damaged or was cut off while copying; copy it again"
_WHOLE = "a NIfTI file must be whole"


def read_stored(
    path: Path, findings: Findings, *, n_channels: int, max_gib: float
) -> tuple[VolumeHeader, ndarray] | None:
    """Return header and stored voxels of a file, unscaled, in the file's axes and type.

    Args:
        path: Ends in ``.nii.gz`` or ``.nii``.
        findings: Where errors and warnings are noted.
        n_channels: Channels that the volume must have.
        max_gib: Largest size in memory, by the header; nothing larger is read.

    Returns:
        None with every error noted if the file cannot be used.
    """
    try:
        if not _is_readable(path, findings):
            return None
        with path.open("rb") as file:
            return _read(file, path, findings, n_channels, max_gib)
    except zlib.error as error:
        findings.error(_WHOLE, f"a gzip stream that is damaged ({error})", _DAMAGED)
    except EOFError:
        findings.error(_WHOLE, "a file that ends before its content does", _DAMAGED)
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        findings.error("the file must be readable", error, "look at its rights and its disk")
    return None


def _is_readable(path: Path, findings: Findings) -> bool:
    """A file of its own, under a name that says what it is, and the only one of its case."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        near = [other.name for other in _namesakes(path)]
        findings.error(
            "the file must exist",
            f"no file (but {', '.join(near)} beside it)" if near else "no file",
            "restore it from the original data, or remove the patient's folder",
        )
        return False
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        findings.error("a volume must be a file", kind, "restore it from the original data")
        return False
    if not path.name.endswith((".nii", ".nii.gz")):
        findings.error(
            "the name of a volume must end in .nii.gz or .nii, in small letters",
            path.name,
            "rename the file if it is NIfTI, else convert it",
        )
        return False
    twins = _namesakes(path)
    if twins:
        findings.error(
            "a case must have one file",
            f"{path.name} and {', '.join(twin.name for twin in twins)}",
            "remove the one that is not meant",
        )
        return False
    return True


def _namesakes(path: Path) -> list[Path]:
    """NIfTI files beside a path that differ from it in their ending alone."""
    name = path.name.lower()
    bare = name.removesuffix(".gz").removesuffix(".nii")
    if bare == name:
        return []
    stem = path.name[: len(bare)]
    others = (path.with_name(stem + ending) for ending in (".nii", ".nii.gz", ".NII", ".NII.GZ"))
    found = [other for other in others if other.name != path.name and other.is_file()]
    return [other for other in found if not (path.exists() and other.samefile(path))]


def _read(
    file: BinaryIO, path: Path, findings: Findings, n_channels: int, max_gib: float
) -> tuple[VolumeHeader, ndarray] | None:
    start = file.read(HEADER_BYTES)
    file.seek(0)
    is_gzip = start.startswith(_GZIP)
    if not _has_right_name(path, start, findings):
        return None
    n_file_bytes = path.stat().st_size
    stream = GzipStream(file) if is_gzip else PlainStream(file)
    block = stream.read(HEADER_BYTES)
    header = parse_header(block, findings, n_channels=n_channels)
    if header is None:
        return None
    if not _is_within_bounds(header, n_file_bytes, is_gzip, findings, max_gib):
        return None
    content = _content(stream, block, header.offset + header.n_bytes, findings)
    if content is None:
        return None
    stored: ndarray = np.ndarray(
        header.shape, header.dtype, content.data, offset=header.offset, order="F"
    )
    return header, stored


def _is_within_bounds(
    header: VolumeHeader, n_file_bytes: int, is_gzip: bool, findings: Findings, max_gib: float
) -> bool:
    """Whether the setting allows the volume, and the file can hold it."""
    n_bytes = header.offset + header.n_bytes
    held = header.offset + math.prod(header.shape) * max(header.dtype.itemsize, 4)
    if held > max_gib * _GIB:
        findings.error(
            f"a volume must take at most {max_gib:g} GiB (data.max_volume_gib)",
            f"{held / _GIB:.3g} GiB by its header, shape {header.shape}",
            "raise the setting (--max-volume-gib) if it is so large, else the header is damaged",
        )
        return False
    can_hold = n_file_bytes * _MOST_INFLATION + PIECE_BYTES if is_gzip else n_file_bytes
    if n_bytes > can_hold:
        value = f"{n_file_bytes} bytes, too few for {n_bytes} bytes of shape {header.shape}"
        findings.error(_WHOLE, value, _DAMAGED)
        return False
    return True


def _content(
    stream: PlainStream | GzipStream, block: bytes, n_bytes: int, findings: Findings
) -> ndarray | None:
    """The first bytes of a file, of which a block is read already; None if there are more."""
    content = np.empty(n_bytes, dtype=np.uint8)
    content[: len(block)] = np.frombuffer(block, dtype=np.uint8)[:n_bytes]
    stream.fill(content.data[len(block) :])
    extra = block[n_bytes:] + stream.read(_MOST_PADDING + 1)
    if extra and (len(extra) > _MOST_PADDING or extra.strip(b"\0")):
        findings.error(
            f"a file must end with its last voxel, after {n_bytes} bytes by its header",
            "more content" if len(extra) > _MOST_PADDING else f"{len(extra)} bytes more",
            "the header's shape or type is wrong; export the volume again",
        )
        return None
    if extra:
        rule = "a file should end with its last voxel"
        findings.warn(rule, f"{len(extra)} bytes of padding", "the padding was ignored")
    return content


def _has_right_name(path: Path, start: bytes, findings: Findings) -> bool:
    """Whether the first bytes are of the kind that the name says."""
    is_gzip, says_gzip = start.startswith(_GZIP), path.name.endswith(".gz")
    for magic, kind in _OTHER_KINDS:
        if start.startswith(magic):
            findings.error(_WHOLE, f"a file that is {kind}", "convert it, or fetch the file again")
            return False
    if start[128:132] == b"DICM":
        findings.error(_WHOLE, "a DICOM file", "convert its series to NIfTI")
        return False
    if is_gzip and not says_gzip:
        findings.error(
            "a compressed file must be named .nii.gz",
            f"a gzip stream in {path.name}",
            f"rename it to {path.name}.gz",
        )
    elif says_gzip and not is_gzip and start[:4] in _PLAIN_STARTS:
        findings.error(
            "a file that is named .nii.gz must be compressed",
            "NIfTI without compression",
            f"rename it to {path.name.removesuffix('.gz')}, or compress it",
        )
    elif says_gzip and not is_gzip:
        value = f"no gzip stream, but {start[:12]!r}" if start else "an empty file"
        findings.error(_WHOLE, value, _DAMAGED)
    return is_gzip == says_gzip
