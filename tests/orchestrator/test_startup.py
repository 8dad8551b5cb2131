"""What only says how the command line is used, or that it was typed wrongly, waits for nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "pandas", "ray", "numpy", "scipy", "mlflow", "optuna", "monai")
SAYS = f"""
import sys
from orchestrator.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print(code, *(name for name in {SLOW} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["data", "check", "--help"], 0),
        (["cluster", "--help"], 0),
        (["study", "export", "--help"], 0),
        (["plam"], 2),
        (["plan", "--machines", "none", "sweep.yaml"], 2),
    ],
)
def test_help_and_typing_errors_import_nothing_slow(words, code):
    done = subprocess.run(
        [sys.executable, "-c", SAYS, *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr.splitlines()[-1] == str(code)
    assert done.stdout or code
