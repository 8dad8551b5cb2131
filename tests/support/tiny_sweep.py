"""A sweep of seconds on phantom hearts."""

TINY_SWEEP = """
metadata:
  sweep:
    name: tiny
    datasets: {phantom: {layout: acdc, path: PHANTOM}}
    grid:
      dataset: [phantom]
      backbone: [unet]
      pruner: PRUNERS
      seed: SEEDS
    stages:
      prepare: {size: 32, spacing_mm: 5.0}
      split: {n_folds: 4, validation_share: 0.2}
      pretrain: {epochs: 2, batch_size: 4, steps_per_epoch: 3, checkpoint_every_epochs: 1}
      cell: {n_nodes: 2}
      search: {epochs: 6, batch_size: 4, steps_per_epoch: 2, alpha_warmup_epochs: 1,
               checkpoint_every_epochs: 1}
      retrain: {epochs: 2, batch_size: 4, steps_per_epoch: 2, checkpoint_every_epochs: 1}
    backbones: {unet: {widths: [8, 16]}}
    pruners:
      js_stability: {type: js_absolute, window_epochs: 1, patience_epochs: 1, threshold: 0.5,
                     living_edges_only: false}
    resources: {threads: 1, cpus: 2, exclusive_search: false}
"""
