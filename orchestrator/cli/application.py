"""The application and its groups; the modules beside this one add their commands to them."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sweeps of implantable adaptive cells: plan, run, resume, report.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data folder before a sweep uses it.")
app.add_typer(data_app, name="data")
cluster_app = typer.Typer(no_args_is_help=True, help="Look at sweeps submitted to a cluster.")
app.add_typer(cluster_app, name="cluster")
study_app = typer.Typer(no_args_is_help=True, help="Look at a sweep's study, and use it.")
app.add_typer(study_app, name="study")
