"""Names of the files that stages leave, and how their values are written."""

from pathlib import Path

from files.writing import write_json

WEIGHTS = "weights.pt"
CURVE = "curve.json"
SPLIT = "split.json"
GENOTYPE = "genotype.json"
TRAJECTORY = "trajectory.npz"
EVENTS = "events.json"
LIVENESS = "liveness.json"
PATIENTS = "patients.json"


def write_values(folder: Path, name: str, value: object) -> None:
    """Write plain values; what was not measured is NaN."""
    write_json(folder / name, value, takes_nan=True, is_indented=True)
