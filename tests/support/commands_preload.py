"""What every command imports; the server that is forked imports it once."""

import importlib

for _name in (
    "orchestrator.cli",
    "orchestrator.reporting",
    "results.report",
    "workers.stages.table",
):
    importlib.import_module(_name)
