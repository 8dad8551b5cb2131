"""The application and its groups; the modules beside this one add their commands to them."""

import typer

_EPILOG = (
    "Exit codes: 0 all that was asked is done and reported; 1 something failed, or no report was "
    "written; 2 bad input, nothing was started; 130 stopped by Ctrl-C or SIGTERM.\n\n"
    "A command works on the runs folder of the last `run` of its sweep file (in this working "
    "directory, or else anywhere; ./runs before the first one) and on the data folders of that "
    "run; --runs and --data choose others."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sweeps of implantable adaptive cells: plan, run, resume, report.",
    epilog=_EPILOG,
)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data folder before a sweep uses it.")
app.add_typer(data_app, name="data")
cluster_app = typer.Typer(no_args_is_help=True, help="Look at sweeps submitted to a cluster.")
app.add_typer(cluster_app, name="cluster")
study_app = typer.Typer(no_args_is_help=True, help="Look at a sweep's study, and use it.")
app.add_typer(study_app, name="study")
