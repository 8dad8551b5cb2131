"""The script of `ray submit CLUSTER_FILE sweeps/submit.py`: runs the sweep that the file carries.

It runs on the head, with whatever ``python`` the login shell finds there, so it needs nothing but
the standard library: it looks for the project's own environment and hands over to it. Ray copied
the cluster file to ``~/ray_bootstrap_config.yaml``; that copy is the sweep file. The same command
again resumes.

    IAC_HOME          the project on the head, ~/iac if not set
    IAC_RUN_OPTIONS   further words for `orchestrator run`, such as --data acdc=/scratch/ACDC
"""

import os
import shlex
import sys
from pathlib import Path

_BAD_INPUT = 2


def main() -> None:
    """Hand over to the project's environment; its exit code becomes this script's."""
    project = Path(os.environ.get("IAC_HOME", "~/iac")).expanduser()
    python = project / ".venv" / "bin" / "python"
    sweep = Path("~/ray_bootstrap_config.yaml").expanduser()
    for path, way_out in (
        (sweep, "start the cluster with `ray up CLUSTER_FILE` first"),
        (
            python,
            "its setup_commands must make the environment (`make install` in the project), or "
            "IAC_HOME must name the project",
        ),
    ):
        if not path.exists():
            print(f"the head must have {path}, got no such file; {way_out}", file=sys.stderr)
            sys.exit(_BAD_INPUT)
    environment = dict(os.environ)
    # Ray forces one thread and no warnings on whatever it submits; stages set their own threads.
    for name in ("OMP_NUM_THREADS", "PYTHONWARNINGS"):
        environment.pop(name, None)
    environment.setdefault("RAY_ADDRESS", "auto")
    options = shlex.split(environment.get("IAC_RUN_OPTIONS", ""))
    words = [str(python), "-m", "orchestrator", "run", str(sweep), *options, *sys.argv[1:]]
    os.chdir(project)
    sys.stdout.flush()
    os.execve(python, words, environment)


if __name__ == "__main__":
    main()
