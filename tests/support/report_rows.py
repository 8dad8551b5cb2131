"""Rows of a report's tables, made by hand."""

import pandas as pd

from results.schema import conform, empty

GENOTYPE = (
    '{"n_nodes":2,"levels":[[[0,2,"sep_conv_3x3"],[1,2,"skip_connect"],'
    '[0,3,"max_pool_3x3"],[2,3,"dil_conv_5x5"]]]}'
)


def job(pruner, seed, dice, search_s=None, **more):
    row = {
        "job_id": f"{pruner}{seed}", "dataset": "acdc", "backbone": "unet_&_co", "pruner": pruner,
        "seed": seed, "sweep": "s", "status": "done", "test_dice": dice,
        "test_hd95_mm": 5.0 + seed,
        "search_s": search_s, "search_epochs": 20 if search_s else None,
        "search_epochs_full": 50 if search_s else None, "search_exclusive": True,
        "search_other_load": 0.0, "device": "cpu", "n_threads": 1, "torch_version": "2",
        "versions": '{"torch": "2"}', "commit": "abc", "config_cell_form": "replace",
        "genotype": GENOTYPE if search_s else "", "search_key": f"k{pruner}{seed}",
    }  # fmt: skip
    return row | more


def trajectory(pruner, n_epochs=12):
    return [
        {
            "job_id": f"{pruner}0", "search_key": f"k{pruner}0", "dataset": "acdc",
            "backbone": "unet_&_co", "pruner": pruner, "seed": 0, "epoch": epoch, "level": 0,
            "edge": edge, "source": source, "target": target, "operation": operation,
            "alpha": 0.1 * epoch, "beta": 0.0, "importance": 0.5,
            "jsd": 1e-3 / (epoch + 1) if epoch > 3 else None, "active": True,
        }
        for epoch in range(n_epochs)
        for edge, (source, target) in enumerate([(0, 2), (1, 2)])
        for operation in ("none", "sep_conv_3x3")
    ]  # fmt: skip


def tables(rows, trajectories=(), events=()):
    found = {name: empty(name) for name in ("patients", "stages")}
    found["jobs"] = conform("jobs", pd.DataFrame(rows))
    found["trajectories"] = conform("trajectories", pd.DataFrame(trajectories))
    found["events"] = conform("events", pd.DataFrame(events))
    return found
