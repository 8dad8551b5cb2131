"""Generated beating hearts in the ACDC layout: for tests, the quick start and examples.

A patient is a left ventricle (cavity and muscular ring), a crescent-shaped right ventricle and a
torso around them, drawn as analytic shapes on a fine grid and averaged down, so that borders have
partial volume. Anatomy, pose, contrast, bias field, noise, spacing and end slices vary between
patients. Nothing is learned from real patients; numbers are round ones from anatomy and imaging
practice (our choice).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray
from scipy.ndimage import gaussian_filter, zoom

from files.writing import write_text
from iac_core.config import require_at_least
from iac_core.data.nifti import write_nifti
from iac_core.errors import ConfigError
from iac_core.seeding import numpy_generator

_NOTE = "phantom.json"
_FINE = 2
"""Fine pixels along each edge of a pixel."""
_SUBSLICES = 3
"""Positions through the thickness of a slice that are averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """What to generate.

    Attributes:
        n_patients: Patients, two volumes each.
        seed: Seed of everything drawn.
        noise: Standard deviation of the noise over the contrast of blood and muscle.
        bias: Largest deviation of the bias field from 1.
    """

    n_patients: int = 20
    seed: int = 0
    noise: float = 0.5
    bias: float = 0.35

    def __post_init__(self) -> None:
        require_at_least(1, n_patients=self.n_patients)
        require_at_least(0, noise=self.noise, bias=self.bias)


def write_phantom(root: Path, settings: PhantomSettings) -> bool:
    """Write a folder in the ACDC layout.

    Args:
        root: The folder; if it holds the same phantom already, nothing is done.
        settings: What to generate.

    Returns:
        Whether anything was written.

    Raises:
        ConfigError: If the folder holds anything else.
    """
    note = root / _NOTE
    wanted = json.dumps(asdict(settings), sort_keys=True)
    if note.exists() and note.read_text(encoding="utf-8") == wanted:
        return False
    if root.exists() and any(root.iterdir()) and not (root / "training.partial").exists():
        raise ConfigError(
            f"{root}: the folder of a phantom must be empty",
            value="other files",
            way_out="give another folder or remove them",
        )
    partial = root / "training.partial"
    for number in range(1, settings.n_patients + 1):
        _write_patient(partial / f"patient{number:03d}", number, settings)
    partial.rename(root / "training")
    write_text(note, wanted)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heart:
    """Anatomy and pose of one patient, lengths in millimetres."""

    radius: float
    wall: float
    contraction: float
    length: float
    rv_width: float
    rv_reach: float
    angle: float
    centre: tuple[float, float]
    tilt: tuple[float, float]
    squash: float
    papillary: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """Grid and intensities of one patient."""

    spacing: float
    step: float
    n_slices: int
    size: int
    blood: float
    muscle: float
    fat: float
    lung: float
    noise: float
    bias: Float[ndarray, "x y z"]


def _write_patient(folder: Path, number: int, settings: PhantomSettings) -> None:
    generator = numpy_generator(settings.seed, "phantom", number)
    heart = _draw_heart(generator)
    scan = _draw_scan(generator, heart, settings)
    texture = gaussian_filter(
        generator.normal(size=(scan.size, scan.size, scan.n_slices)), (4, 4, 0)
    )
    affine = np.diag([scan.spacing, scan.spacing, scan.step, 1.0])
    systole = int(generator.integers(8, 14))
    folder.mkdir(parents=True, exist_ok=True)
    for phase, frame in ((0.0, 1), (1.0, systole)):
        image, labels = _volume(heart, scan, phase, texture, generator)
        name = f"{folder.name}_frame{frame:02d}"
        write_nifti(folder / f"{name}.nii.gz", image, affine)
        write_nifti(folder / f"{name}_gt.nii.gz", labels, affine)
    info = f"ED: 1\nES: {systole}\nGroup: PHANTOM\nNbFrame: 30\n"
    write_text(folder / "Info.cfg", info, is_durable=False)


def _draw_heart(generator: np.random.Generator) -> _Heart:
    """Normal, dilated and thick-walled hearts, a third each, with variation."""
    kind = generator.integers(3)
    radius = generator.uniform(20, 26) + (8 if kind == 1 else 0)
    wall = generator.uniform(7, 10) + (5 if kind == 2 else 0) - (2 if kind == 1 else 0)
    contraction = generator.uniform(0.5, 0.65) if kind != 1 else generator.uniform(0.78, 0.9)
    angle = generator.uniform(0, 2 * np.pi)
    away = generator.uniform(8, 24)  # the right ventricle points to the middle of the body
    jitter = generator.uniform(-8, 8, size=2)
    return _Heart(
        radius=radius,
        wall=wall,
        contraction=contraction,
        length=generator.uniform(75, 100),
        rv_width=generator.uniform(18, 34),
        rv_reach=generator.uniform(0.95, 1.25),
        angle=angle,
        centre=(jitter[0] - away * np.cos(angle), jitter[1] - away * np.sin(angle)),
        tilt=(generator.uniform(-0.12, 0.12), generator.uniform(-0.12, 0.12)),
        squash=generator.uniform(0.85, 1.15),
        papillary=generator.uniform(3, 6),
    )


def _draw_scan(generator: np.random.Generator, heart: _Heart, settings: PhantomSettings) -> _Scan:
    spacing = float(np.round(generator.uniform(1.2, 1.9), 3))
    step = float(generator.choice([5.0, 6.0, 8.0, 10.0]))
    size = int(generator.uniform(170, 215) / spacing)
    n_slices = int(np.clip(np.ceil(heart.length / step) + generator.integers(0, 2), 6, 14))
    blood = generator.uniform(0.7, 1.0)
    muscle = blood * generator.uniform(0.3, 0.6)
    field = generator.normal(size=(4, 4, 3))
    bias = zoom(field, [size / 4, size / 4, n_slices / 3], order=3, mode="nearest")
    bias = bias[:size, :size, :n_slices] / np.abs(bias).max()
    return _Scan(
        spacing=spacing,
        step=step,
        n_slices=n_slices,
        size=size,
        blood=blood,
        muscle=muscle,
        fat=generator.uniform(0.6, 1.1),
        lung=generator.uniform(0.05, 0.15),
        noise=settings.noise * (blood - muscle),
        bias=1 + settings.bias * bias,
    )


def _volume(
    heart: _Heart,
    scan: _Scan,
    phase: float,
    texture: Float[ndarray, "x y z"],
    generator: np.random.Generator,
) -> tuple[Float[ndarray, "x y z"], Integer[ndarray, "x y z"]]:
    """Intensities and labels of one frame; phase 0 is end-diastole, 1 end-systole."""
    clean = np.empty((scan.size, scan.size, scan.n_slices))
    labels = np.empty(clean.shape, dtype=np.uint8)
    for index in range(scan.n_slices):
        parts = [
            _slice(heart, scan, (index + (part + 0.5) / _SUBSLICES - 0.5) * scan.step, phase)
            for part in range(_SUBSLICES)
        ]
        clean[..., index] = np.mean([image for image, _ in parts], axis=0)
        labels[..., index] = parts[_SUBSLICES // 2][1]
    clean = (clean + 0.12 * texture / texture.std() * scan.muscle) * scan.bias
    noisy = np.hypot(
        clean + generator.normal(scale=scan.noise, size=clean.shape) * 0.5,
        generator.normal(scale=scan.noise, size=clean.shape) * 0.5,
    )
    return (1000 * noisy).astype(np.float32), labels


def _slice(
    heart: _Heart, scan: _Scan, depth: float, phase: float
) -> tuple[Float[ndarray, "x y"], Integer[ndarray, "x y"]]:
    """One infinitely thin slice at a depth below the base, in millimetres."""
    axis = (np.arange(scan.size * _FINE) + 0.5) / _FINE * scan.spacing
    x, y = np.meshgrid(axis - axis.mean(), axis - axis.mean(), indexing="ij")
    body_x, body_y = x / 88, y / 72
    u = x - heart.centre[0] - heart.tilt[0] * depth
    v = y - heart.centre[1] - heart.tilt[1] * depth
    u, v = (
        np.cos(heart.angle) * u + np.sin(heart.angle) * v,
        -np.sin(heart.angle) * u + np.cos(heart.angle) * v,
    )
    labels = _heart_labels(heart, u, v * heart.squash, depth, phase)
    image = np.where(body_x**2 + body_y**2 < 1, scan.fat, 0.02)
    image = np.where((body_x**2 + body_y**2) < 0.86, scan.lung, image)
    liver = (u + 20) ** 2 / 55**2 + (v + 62) ** 2 / 30**2 < 1
    image = np.where(liver & (image == scan.lung), 0.9 * scan.muscle, image)
    vessel = (u - 48) ** 2 + (v - 42) ** 2 < 11**2
    image = np.where(vessel & (image == scan.lung), scan.blood, image)
    near_heart = u**2 + v**2 < (heart.radius + heart.wall + 9) ** 2
    image = np.where(near_heart & (image == scan.lung), 0.8 * scan.fat, image)
    intensity = np.array([0.0, scan.blood * 0.92, scan.muscle, scan.blood])
    image = np.where(labels > 0, intensity[labels], image)
    image = np.where(_papillary(heart, u, v, depth, labels), scan.muscle, image)
    coarse = image.reshape(scan.size, _FINE, scan.size, _FINE).mean(axis=(1, 3))
    return coarse, labels[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE]


def _heart_labels(
    heart: _Heart, u: Float[ndarray, "x y"], v: Float[ndarray, "x y"], depth: float, phase: float
) -> Integer[ndarray, "x y"]:
    """0 background, 1 right ventricle, 2 myocardium, 3 left ventricle."""
    base = 7 * phase
    position = (depth - base) / heart.length
    labels = np.zeros(u.shape, dtype=np.uint8)
    if position < -0.02 or position > 1:
        return labels
    taper = float(np.sqrt(max(0.0, 1 - max(position, 0.0) ** 2.2)))
    shrink = 1 - (1 - heart.contraction) * phase
    inner = heart.radius * taper * shrink
    outer = heart.radius * taper * (1 - 0.12 * phase) + heart.wall * (0.45 + 0.55 * taper)
    outer = max(outer, inner + heart.wall * 0.6)
    distance = np.hypot(u, v)
    rv_position = position * 1.15
    if rv_position < 1:
        size = float(np.sqrt(1 - rv_position**2)) * (1 - 0.3 * phase)
        reach = heart.rv_reach * (outer + 2)
        centre = outer + heart.rv_width * size * 0.25
        crescent = ((u - centre) / (heart.rv_width * size + 1e-6)) ** 2 + (v / reach) ** 2 < 1
        labels[crescent & (size > 0.2)] = 1
    ring = distance < outer
    if position < 0.04:
        ring &= np.abs(np.arctan2(v, -u)) < 2.4
    labels[ring] = 2
    labels[(distance < inner) & (inner > 2)] = 3
    return labels


def _papillary(
    heart: _Heart,
    u: Float[ndarray, "x y"],
    v: Float[ndarray, "x y"],
    depth: float,
    labels: Integer[ndarray, "x y"],
) -> Integer[ndarray, "x y"]:
    """Two muscles inside the cavity that experts count as blood."""
    if not 0.25 < depth / heart.length < 0.75:
        return np.zeros(labels.shape, dtype=bool)
    spread = 0.55 * heart.radius
    blobs = np.zeros(labels.shape, dtype=bool)
    for side in (-1, 1):
        blobs |= (u + 0.3 * spread) ** 2 + (v - side * spread) ** 2 < heart.papillary**2
    inside: ndarray = blobs & (labels == 3)
    return inside
